"""Pages and the gallery in a real browser: offline, drawn, readable, unbreakable."""

import json
import subprocess
import sys
import time

import polars as pl
import pytest

from mlworkbench.core.findings import finding, findings_html, make_findings
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


@pytest.fixture
def visit(browser):
    "Open a page at a width and in a colour scheme; nothing may be requested or reported as an error."
    contexts, requests, complaints = [], [], []

    def open_page(path, width=1280, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
    assert all(url.startswith("file:") for url in requests) and len(requests) == len(contexts)


def drawn(tab):
    "All figures of a page, when the last one is drawn."
    tab.locator(".mlw-figure:not([data-drawn])").first.wait_for(state="detached", timeout=20_000)
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
        for text in ("Failed", "ZeroDivisionError in cell 17", "Findings")
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
    tab.get_by_role("link", name="Go to the cell").click()
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


def test_small_quick_and_readable_without_script(page, executed, browser):
    assert page.stat().st_size <= 1_600_000
    started = time.perf_counter()
    render_page(executed, page, {"run": RUN, "step": STEP})
    assert time.perf_counter() - started < 1
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert (
        tab.get_by_text("flights.<dep_time>").is_visible() and tab.get_by_text("EV", exact=True).is_visible()
    )
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
