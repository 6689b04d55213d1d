"""Pages in a real browser: offline, drawn, readable, printable, unbreakable."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from itertools import pairwise

import polars as pl
import pytest
from flow_project import call, step_of, wait_for, write_project

from mlworkbench.core.findings import finding, findings_html, make_findings
from mlworkbench.core.words import STATUSES
from mlworkbench.report.gallery import write_gallery
from mlworkbench.report.outputs import PLOTLY
from mlworkbench.report.page import render_page

pytestmark = pytest.mark.browser

CELLS = [
    "# Late *flights*\n\n> One line.\n\n<script>window.broken = 1</script>\n\n"
    "| carrier | share |\n|---|--:|\n| EV | 24 % |\n\n![far](https://example.org/a.png)",
    "import numpy as np, polars as pl\nfrom mlworkbench.report import figures\nx = np.linspace(0, 1, 50)",
    "## Curves",
    """powers = {"LightGBM with a rather long name": 0.2, "Logistic regression": 0.4, "Carrier average": 0.7}
rates = {name: {"false_positive_rate": x, "true_positive_rate": x**power} for name, power in powers.items()}
figures.roc_figure({name: pl.DataFrame(curve) for name, curve in rates.items()})""",
    'figures.pr_figure(pl.DataFrame({"recall": x, "precision": 1 - x / 2}), 0.3)',
    """bins = pl.DataFrame({"mean_score": [0.1, 0.5], "rate": [0.2, 0.5], "rows": [90, 10]})
figures.calibration_figure(bins)""",
    'figures.confusion_figure({"tn": 81220, "fp": 30125, "fn": 9480, "tp": 22960}, ("on time", "late"))',
    """curve = pl.DataFrame({"threshold": x, "value": 1e6 * x * (1 - x)})
figures.value_curve_figure(curve, 0.4, {"do nothing": 0})""",
    """names = ["an unreasonably long model name that must be cut", "rule"]
models = pl.DataFrame({"model": names, "value": [0.7, 0.6], "low": [0.69, 0.59], "high": [0.71, 0.61]})
figures.ladder_figure(models, must_beat="rule")""",
    'figures.bars_figure(models, "model", reference=0.65)',
    """seen = pl.DataFrame({"hour": x, "carrier": x**2})
figures.shap_points_figure(seen * 2 - 1, seen)""",
    """cells = [(f"2013-{m:02}", c, m / 40) for m in range(1, 13) for c in ("wind_gust", "temperature")]
drift = pl.DataFrame(cells, schema=["month", "column", "drift"], orient="row")
figures.drift_figure(drift, limit=0.2)""",
    'figures.history_figure(drift.filter(pl.col("column") == "wind_gust"), "month", "drift", 0.2)',
    "# Tables",
    'pl.DataFrame({f"column_{i}": [1.5, None] for i in range(15)})',
    """from IPython.display import HTML
HTML("</main><script>try { parent.document.body.remove() } catch {}</script><p>framed</p>")""",
    'print("\\x1b[31mred\\x1b[0m <b>")',
    "1 / 0",
]
FINDINGS = [
    finding("null_share", "flights.<dep_time>", "fail", "7 % is <null>", 0.07, 0.05),
    *(finding("drift", f"column {i}", "warn", "moved", 0.3, 0.2) for i in range(15)),
]
STEP = {
    "name": "40_train",
    "notebook": "notebooks/40_train.ipynb",
    "status": "failed",
    "started": "2026-11-21T04:05:12+00:00",
    "seconds": 83.4,
    "reason": None,
    "params": {"seed": 7, "note": "<img src=x onerror=alert(1)>"},
    "reads": {"features": 12},
    "writes": {"models/champion": 5},
    "metrics": {"roc_auc": 0.71234},
    "findings": FINDINGS,
    "html": "40_train.html",
    "error": {
        "cell": 17,
        "name": "ZeroDivisionError",
        "message": "division by zero",
        "traceback": "\x1b[31mZeroDivisionError\x1b[0m",
    },
}
RUN = {"run": "20261121-040512-a1b2", "project": "flights", "status": "failed", "mlworkbench": "0.1.0"}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    "A notebook executed by a real kernel, its figures kept as plotly's mimetype."
    path = tmp_path_factory.mktemp("runs") / RUN["run"] / "40_train.ipynb"
    path.parent.mkdir()
    markdown = {text for text in CELLS if text.startswith("#")}
    cells = [
        {"cell_type": "markdown", "id": str(i), "metadata": {}, "source": text}
        if text in markdown
        else {
            "cell_type": "code",
            "id": str(i),
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for i, text in enumerate(CELLS)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "python3"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}))
    execute = "from nbclient.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", execute, "--allow-errors", "--inplace", str(path)],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="module")
def page(executed):
    return render_page(executed, executed.with_suffix(".html"), {"run": RUN, "step": STEP})


def drawn(tab):
    "All figures of a page, when the last one is drawn."
    for figure in tab.locator(".mlw-figure").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for(state="attached")
    tab.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    return tab.locator(".mlw-figure")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn_and_nothing_overflows(page, visit, width, scheme):
    tab = visit(page, width, scheme, has_touch=width < 500, is_mobile=width < 500)
    figures = drawn(tab)
    assert figures.count() == 10
    for figure in figures.all():
        box = figure.locator(".main-svg").first.bounding_box()
        assert box["width"] > 300 and box["height"] > 100
        assert len(figure.locator(".mlw-plot").get_attribute("aria-label")) > 30
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_switches_in_the_margin_fit_every_window(page, visit):
    tab = visit(page)
    for width in (1024, 1200, 1240, 1279, 1280):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_no_label_is_clipped(page, visit):
    clipped = """() => [...document.querySelectorAll(".mlw-plot")].flatMap(plot => {
      const box = plot.getBoundingClientRect()
      const outside = text => {
        const t = text.getBoundingClientRect()
        const over = Math.max(box.left - t.left, t.right - box.right, box.top - t.top, t.bottom - box.bottom)
        return text.textContent.trim() && t.width && over > 1
      }
      return [...plot.querySelectorAll(".main-svg text")].filter(outside).map(text => text.textContent) })"""
    for width in (1280, 390):
        tab = visit(page, width)
        drawn(tab)
        assert tab.evaluate(clipped) == []


def test_page_opens_with_status_error_findings_and_lineage(page, visit):
    tab = visit(page)
    assert tab.title() == "Late flights · flights" and tab.locator("h1").inner_text() == "Late flights"
    tops = [
        tab.get_by_text(text).first.bounding_box()["y"]
        for text in ("Failed", "ZeroDivisionError in cell 15", "Findings")
    ]
    assert tops == sorted(tops) and tops[-1] < 800
    assert (
        tab.get_by_text("flights.<dep_time>").is_visible()
        and "1 fail, 15 warn" in tab.locator("#findings").inner_text()
    )
    assert not tab.get_by_text("column 14").is_visible()
    tab.get_by_text("4 more").click()
    assert tab.get_by_text("column 14").is_visible()
    for text in ("features@12", "models/champion@5", "0.7123", "<img src=x onerror=alert(1)>"):
        assert tab.get_by_text(text, exact=True).is_visible()
    tab.get_by_role("link", name="Go to cell 15").click()
    assert tab.locator("#error-cell").get_by_text("division by zero").is_visible()
    links = tab.locator(".contents a")
    assert links.all_inner_texts() == ["Curves", "Tables"]
    assert all(tab.locator(link.get_attribute("href")).count() == 1 for link in links.all())


def test_code_is_behind_a_button(page, executed, visit, tmp_path):
    tab = visit(page)
    source = tab.get_by_text("from mlworkbench.report import figures")
    button = tab.get_by_role("button", name="Show code")
    assert not source.is_visible()
    button.click()
    assert (
        source.is_visible()
        and tab.get_by_role("button", name="Hide code").get_attribute("aria-pressed") == "true"
    )
    without = visit(render_page(executed, tmp_path / "without.html", code=False))
    assert without.locator("#code").count() == 0 and "np.linspace" not in without.content()


def test_foreign_html_stays_in_its_frame(page, visit):
    tab = visit(page)
    assert tab.evaluate("typeof window.broken") == "undefined" and tab.locator("main").count() == 1
    frame = tab.locator(".mlw-frame")
    frame.scroll_into_view_if_needed()
    assert frame.get_attribute("sandbox") == "allow-scripts"
    assert tab.get_by_text("picture not included: far").is_visible()
    assert tab.locator(".mlw-stream", has_text="red <b>").locator(".mlw-ink-red").inner_text() == "red"


def test_theme_follows_the_system_the_button_and_paper(page, visit):
    tab = visit(page, scheme="dark")
    drawn(tab)
    ink = "() => getComputedStyle(document.querySelector('.xtitle')).fill"
    dark = tab.evaluate(ink)
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 31)"
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(ink) != dark
    tab.emulate_media(media="screen")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(ink) == dark
    tab.get_by_role("button", name="Switch between light and dark").click()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate(ink) != dark


def test_small_and_readable_without_script(page, browser):
    assert page.stat().st_size <= 1_600_000
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    for text in ("flights.<dep_time>", "EV"):
        assert tab.get_by_text(text, exact=True).is_visible()
    instead = tab.locator(".mlw-figure noscript p")  # a figure's description stands in for it
    assert instead.first.is_visible() and "Chance would find 20 %" in instead.first.inner_text()
    context.close()


def shown_page(folder, step=None, **outputs):
    "A page of one cell for each output: its name, and its media type and content."
    cells = [
        {
            "cell_type": "code",
            "metadata": {},
            "source": name,
            "outputs": [{"output_type": "display_data", "metadata": {}, "data": {media: content}}],
        }
        for name, (media, content) in outputs.items()
    ]
    (folder / "shown.ipynb").write_text(json.dumps({"cells": cells}))
    return render_page(folder / "shown.ipynb", folder / "shown.html", {"run": RUN, "step": step or {}})


def test_figures_beyond_the_small_bundle(visit, tmp_path):
    figure = {"data": [{"type": "scatterpolar", "r": [1, 2, 3], "theta": [0, 120, 240]}], "layout": {}}
    assert drawn(visit(shown_page(tmp_path, figure=(PLOTLY, figure)))).count() == 1


def test_maps_and_pictures_from_elsewhere_ask_nothing_of_the_network(visit, tmp_path):
    logo = {"source": "https://example.org/logo.png", "sizex": 1, "sizey": 1}
    figure = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {"images": [logo]}}
    airports = {"data": [{"type": "scattergeo", "lon": [-74], "lat": [41]}], "layout": {"title": "Airports"}}
    page = shown_page(tmp_path, figure=(PLOTLY, figure), airports=(PLOTLY, airports))
    tab = visit(page)
    assert drawn(tab).count() == 1
    assert "A map needs a network to draw" in tab.locator(".mlw-map").inner_text()
    assert page.stat().st_size < 1_000_000  # a map does not bring the complete plotly along


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_long_findings_wrap_and_numbers_fit_their_tiles(visit, tmp_path, width):
    long = finding("a_check_of_a_long_name", "flights." + "x" * 80, "fail", "a/b" * 60, 123456789.5, 1e-9)
    metrics = {"value": -2568776, "rows": 1234567890, "note": "a_word_that_does_not_end" * 3}
    table = findings_html(make_findings([long]))
    frame = pl.DataFrame({f"a_long_column_{i}": [2568776.0] for i in range(20)})._repr_html_()
    step = STEP | {"metrics": metrics, "findings": [long]}
    tab = visit(shown_page(tmp_path, step, findings=("text/html", table), frame=("text/html", frame)), width)
    wide = "node => node.scrollWidth - node.clientWidth"
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator(".mlw-scroll", has=tab.locator(".mlw-findings")).first.evaluate(wide) <= 0
    assert all(tile.evaluate(wide) <= 0 for tile in tab.locator(".tile").all())
    line = "node => node.offsetHeight / parseFloat(getComputedStyle(node).fontSize)"
    assert all(tab.locator(".tile dd").nth(i).evaluate(line) < 2 for i in (0, 1))
    assert tab.get_by_text("2,568,776", exact=True).first.is_visible()


def code_cell(source, *outputs, tags=()):
    return {"cell_type": "code", "metadata": {"tags": [*tags]}, "source": source, "outputs": [*outputs]}


def text_cell(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def shows(**data):
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {key.replace("_", "/"): value for key, value in data.items()},
    }


def written(folder, cells, summary, name="50_fit", code=True, **metadata):
    "A page of these cells in the folder of a run."
    notebook = folder / RUN["run"] / f"{name}.ipynb"
    notebook.parent.mkdir(exist_ok=True)
    notebook.write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells})
    )
    return render_page(notebook, notebook.with_suffix(".html"), summary, code)


TROUBLE = ("failed", "timed_out", "interrupted", "killed", "kernel_died", "lost")


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in ("pending", "blocked")])
def test_every_end_says_so_at_the_top_and_in_its_cell(visit, tmp_path, axe, status):
    error = {"cell": 2, "name": "Ended", "message": "it ended <early>", "traceback": "last words of it"}
    step = {"name": "50_fit", "status": status, "reason": f"Because of {status}.", "findings": []}
    step["error"] = error if status in TROUBLE else None
    cells = [text_cell("# A fit"), code_cell("first()"), code_cell("wait()"), code_cell("never()")]
    tab = visit(written(tmp_path, cells, {"run": RUN, "step": step}), scheme="dark")
    badge = tab.locator(".state .badge")
    assert badge.inner_text().replace("\n", " ").endswith(STATUSES[status][0])
    assert badge.bounding_box()["y"] < 300 and tab.get_by_text(f"Because of {status}.").is_visible()
    assert tab.locator("#error-cell").count() == (status in TROUBLE)
    if status in TROUBLE:
        assert tab.get_by_role("heading", name="Ended in cell 2").is_visible()
        assert tab.get_by_text("it ended <early>").is_visible()
        assert tab.get_by_text("the cell after it did not run").is_visible()
        tab.get_by_role("link", name="Go to cell 2").click()
        stopped = tab.locator("#error-cell")
        assert "wait()" in stopped.inner_text() and "The notebook ended in this cell" in stopped.inner_text()
    assert axe(tab) == []


def test_what_the_notebook_knows_of_its_end_is_enough(tmp_path):
    seal = {"run": "r", "step": "50_fit", "status": "killed", "reason": "Killed from outside by SIGKILL."}
    seal["error"] = {"cell": 1, "name": "Killed", "message": "by SIGKILL", "traceback": ""}
    html = written(tmp_path, [text_cell("# A fit"), code_cell("wait()")], None, mlworkbench=seal).read_text()
    for said in ("Killed from outside</span>", "Killed in cell 1", "by SIGKILL", 'id="error-cell"'):
        assert said in html, said


def test_answer_comes_before_findings_and_parameters_say_what_they_are(visit, tmp_path):
    said = shows(text_markdown="**Warn everybody.** It saves 2 million.\n\nMore below.")
    cells = [text_cell("# Late?\n\nFor the person who asked."), code_cell("say()", said, tags=["answer"])]
    declared = [
        {"name": "depth", "type": "int", "default": 4, "comment": "how deep a tree may grow"},
        {"name": "month", "type": "date", "default": "2013-01-01", "comment": ""},
    ]
    step = {"name": "50_fit", "status": "succeeded", "params": {"depth": 6}, "declared": declared}
    step |= {"findings": FINDINGS[:1], "reason": "Ran because it was forced."}
    tab = visit(written(tmp_path, cells, {"run": RUN, "step": step}))
    answer = tab.locator(".answer")
    assert answer.locator("p").inner_text() == "Warn everybody. It saves 2 million."
    order = [
        tab.locator(place) for place in ("h1", ".lead", ".state", ".answer", "#findings", ".params", ".foot")
    ]
    tops = [place.bounding_box()["y"] for place in order]
    assert tops == sorted(tops) and "forced" in tab.locator(".foot").inner_text()
    rows = [row.locator("th, td").all_inner_texts() for row in tab.locator(".params tbody tr").all()]
    assert rows == [
        ["depth", "6 default 4", "int", "how deep a tree may grow"],
        ["month", "2013-01-01 default", "date", ""],
    ]


def test_lineage_leads_to_the_page_that_made_a_table(visit, tmp_path):
    maker = {"name": "10_ingest", "status": "succeeded", "writes": {"flights": 3}, "html": "10_ingest.html"}
    older = tmp_path / "20261120-040512-a1b2"
    older.mkdir()
    (older / "run.json").write_text(json.dumps({"steps": [maker | {"started": "2026-11-20T04:05:12+00:00"}]}))
    (older / "10_ingest.html").write_text("<title>the maker</title>")
    beside = maker | {"name": "20_check", "writes": {"clean": 0}, "html": "20_check.html"}
    step = {"name": "50_fit", "status": "succeeded", "reads": {"flights": 3, "clean": 0, "by_hand": 7}}
    page = written(tmp_path, [text_cell("# A fit")], {"run": RUN, "step": step | {"writes": {"model": 1}}})
    (page.parent / "run.json").write_text(json.dumps({"steps": [beside, step]}))
    page.with_name("20_check.html").write_text("<title>the check</title>")
    page = written(tmp_path, [text_cell("# A fit")], {"run": RUN, "step": step | {"writes": {"model": 1}}})
    tab = visit(page)
    texts = [text.split() for text in tab.locator(".lineage dd").all_inner_texts()]
    assert texts == [
        ["by_hand@7"],
        ["clean@0", "from", "20_check"],
        ["flights@3", "from", "10_ingest,", "20", "Nov", "2026,", "04:05", "UTC"],
        ["model@1"],
    ]
    links = [link.get_attribute("href") for link in tab.locator(".lineage a").all()]
    assert links == ["20_check.html", "../20261120-040512-a1b2/10_ingest.html"]
    assert all((page.parent / link).is_file() for link in links)
    sent = tmp_path / "attachment.html"
    shutil.copy(page, sent)
    away = visit(sent)
    assert away.locator(".lineage a[href], .trail a[href]").count() == 0
    assert away.get_by_text("10_ingest, 20 Nov 2026").is_visible()


def test_figures_are_drawn_when_they_come_near_and_all_on_paper(visit, tmp_path):
    figure = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {"title": {"text": "Bars"}}}
    cells = [text_cell(f"## Part {i}") for i in range(2)]
    cells += [code_cell(f"show({i})", shows(text_plain="x") | {"data": {PLOTLY: figure}}) for i in range(40)]
    tab = visit(written(tmp_path, cells, {}))
    tab.locator(".mlw-figure[data-drawn]").first.wait_for()
    assert tab.locator(".mlw-figure[data-drawn]").count() < 10
    tab.locator(".mlw-figure").nth(30).scroll_into_view_if_needed()
    tab.locator(".mlw-figure").nth(30).locator(".main-svg").first.wait_for()
    assert tab.locator(".mlw-figure[data-drawn]").count() < 20
    assert tab.pdf(format="A4").startswith(b"%PDF")
    assert tab.locator(".mlw-figure[data-drawn]").count() == 40


def test_nothing_is_cut_on_paper(page, visit, tmp_path):
    tab = visit(page)
    drawn(tab)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 690, "height": 900})  # A4 between its margins
    cut = """() => [...document.querySelectorAll("main table, main pre, .main-svg, .answer, .trouble")].filter(node => {
      const box = node.getBoundingClientRect(); return box.width && (box.right > 691 || box.left < -1) }).length"""
    assert tab.evaluate(cut) == 0 and tab.evaluate("document.documentElement.scrollWidth") <= 690
    assert tab.get_by_text("column 14").is_visible()  # what is folded away on the screen
    assert not tab.locator(".bar").is_visible() and not tab.get_by_text("np.linspace").is_visible()
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    tab.emulate_media(media="screen")
    tab.set_viewport_size({"width": 1280, "height": 800})
    assert not tab.get_by_text("column 14").is_visible()
    wait_for(lambda: tab.evaluate("document.querySelector('.main-svg').getBoundingClientRect().width > 800"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, visit, axe, tmp_path, scheme):
    tab = visit(page, scheme=scheme)
    drawn(tab)
    assert axe(tab) == []
    tab.get_by_role("button", name="Show code").click()
    tab.get_by_text("4 more").click()
    assert axe(tab) == []
    assert axe(visit(page, 390, scheme, has_touch=True, is_mobile=True)) == []
    runs = tmp_path / "runs" / RUN["run"]
    runs.mkdir(parents=True)
    (runs / "run.json").write_text(json.dumps(RUN | {"started": STEP["started"], "steps": [STEP]}))
    assert axe(visit(write_gallery(runs.parent), scheme=scheme)) == []


def test_headings_descend_without_gaps(visit, tmp_path):
    loud = shows(text_html="<h1>Loud</h1><h6>Quiet</h6>")
    cells = [text_cell("# Title\n\n#### Deep"), text_cell("##### Deeper\n\n# Top"), code_cell("x", loud)]
    step = {"name": "s", "status": "succeeded", "findings": [], "metrics": {"rows": 1}}
    tab = visit(written(tmp_path, cells, {"run": RUN, "step": step}))
    found = tab.locator("main :is(h1, h2, h3, h4, h5, h6)").evaluate_all(
        "all => all.map(one => +one.tagName[1])"
    )
    assert found[0] == 1 and found.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(found))
    assert tab.locator(".contents a").all_inner_texts() == ["Deep", "Deeper", "Top"]


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page, visit):
    tab = visit(page)
    seen = []
    for _ in range(9):
        tab.keyboard.press("Tab")
        seen.append(
            tab.evaluate("""() => { const at = document.activeElement, look = getComputedStyle(at)
              return [at.textContent.trim().split("\\n")[0], look.outlineStyle, parseFloat(look.outlineWidth)] }""")
        )
    texts = [text for text, *_ in seen]
    assert texts[:3] == ["Skip to the report", "All runs", "Show code"] and "Curves" in texts
    assert all(style != "none" and width >= 2 for _, style, width in seen)
    tab.get_by_role("button", name="Show code").focus()
    tab.keyboard.press("Enter")
    assert tab.get_by_text("from mlworkbench.report import figures").is_visible()


def test_widgets_show_how_they_were_left(visit, tmp_path):
    source = """import ipywidgets as w, plotly.graph_objects as go, numpy as np
from IPython.display import display
display(w.VBox([w.IntSlider(value=4, description="Depth"), w.HTML("<b>bold</b>")]))
display(go.FigureWidget([go.Bar(y=np.arange(3))]))
display(w.Button(description="Press"))"""
    notebook = tmp_path / "controls.ipynb"
    cell = code_cell(source) | {"execution_count": None, "id": "a"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3"}}
    notebook.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": [cell]}))
    execute = "from nbclient.cli import main; main()"
    subprocess.run([sys.executable, "-c", execute, "--inplace", notebook], check=True, capture_output=True)
    html = render_page(notebook, tmp_path / "controls.html")
    assert html.stat().st_size < 1_000_000  # the notebook holds five megabytes of a widget's script
    tab = visit(html)
    first, button = tab.locator(".mlw-widget").all()
    assert first.locator(".mlw-control").inner_text().split() == ["Depth", "4"]
    assert first.get_by_text("bold").is_visible() and "As it was left" in first.inner_text()
    assert "Press" in button.inner_text()
    assert drawn(tab).locator(".barlayer .point").count() == 3


LEAK = "secret_rate = 0.1234567 * len('a line of code')"
BOOM = "raise ValueError('no rows')  # a comment that quotes code"


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    "A run whose second step prints, warns and fails."
    warn = "import warnings\nwarnings.warn('look here')  # warned code"
    root = write_project(
        tmp_path_factory.mktemp("project") / "mine",
        {"name": "make", "code": ["step.write('rows', pl.DataFrame({'x': [1]}))"], "writes": ["rows"]},
        {"name": "fit", "code": [LEAK, warn, BOOM, "print('never')"], "params_cell": "depth = 4  # how deep",
         "reads": ["rows"], "params": {"depth": 6}},
    )  # fmt: skip
    record = call(root, "run")[1]
    return root, record


def test_a_run_writes_the_page_that_tells_how_it_failed(failed_run, visit):
    root, record = failed_run
    step = step_of(record, "fit")
    assert step["status"] == "failed"
    tab = visit(root / "runs" / record["run"] / step["html"])
    assert tab.get_by_role("heading", name="ValueError in cell 6").is_visible()
    assert tab.get_by_text("the cell after it did not run").is_visible()
    tab.get_by_role("link", name="Go to cell 6").click()
    assert tab.locator("#error-cell .mlw-error").is_visible()
    assert tab.locator(".lineage a", has_text="make").get_attribute("href") == "make.html"


def test_no_code_leaves_no_byte_of_it(failed_run):
    root, record = failed_run
    assert call(root, "report", "--no-code")[0] == 0
    for step in record["steps"]:
        html = (root / "runs" / record["run"] / f"{step['name']}.html").read_text()
        for line in (LEAK, BOOM, "0.1234567", "quotes code", "warned code", "step.write(", "import polars"):
            assert line not in html and base64.b64encode(line.encode()).decode()[:-4] not in html
    assert "no rows" in html and "ValueError" in html
    assert call(root, "report")[0] == 0
    assert "0.1234567" in (root / "runs" / record["run"] / "fit.html").read_text()


def test_nbconvert_and_the_export_menu_of_jupyterlab_give_the_same_page(failed_run, tmp_path):
    root, record = failed_run
    assert call(root, "report")[0] == 0
    folder = root / "runs" / record["run"]
    convert = [sys.executable, "-m", "nbconvert", "--to", "mlworkbench", folder / "fit.ipynb"]
    subprocess.run([*convert, "--output-dir", tmp_path], check=True, capture_output=True)
    assert (tmp_path / "fit.html").read_text() == (folder / "fit.html").read_text()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0"
    server = [sys.executable, "-m", "jupyter", "server", *options.split(), "--IdentityProvider.token=t"]
    base = f"http://127.0.0.1:{port}"

    def get(path):
        request = urllib.request.Request(base + path, headers={"Authorization": "token t"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def answers():
        try:
            return get("/api/nbconvert")
        except OSError:
            return None

    process = subprocess.Popen([*server, f"--ServerApp.root_dir={folder}"], stderr=subprocess.DEVNULL)
    try:
        assert json.loads(wait_for(answers))["mlworkbench"] == {"output_mimetype": "text/html"}
        page = get("/nbconvert/mlworkbench/fit.ipynb?download=true")
    finally:
        process.terminate()
        process.wait()
    assert page == (folder / "fit.html").read_text()
