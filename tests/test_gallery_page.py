"""The gallery in a real browser: a thousand runs are found, compared and followed over time, offline and by keyboard."""

import json

import pytest

from mlworkbench.report.compare import compare_runs, write_comparison
from mlworkbench.report.gallery import FIRST, write_gallery

pytestmark = pytest.mark.browser

STATUSES = ["succeeded", "failed", "gated", "interrupted", "running"]
STEPS = ("10_ingest", "40_train", "50_evaluate")


def step_record(i, name, status, waits):
    error = {"name": "ValueError", "message": f"no <rows> {i}", "execution_count": 2, "cell": 3}
    finding = {"check": "drift", "subject": "column", "severity": "warn", "message": "moved"}
    return {
        "name": name, "notebook": f"{name}.ipynb", "status": status, "seconds": 2.0 + i % 7, "upstream": waits,
        "reason": "Ran because it was forced.", "error": error if status == "failed" else None,
        "params": {"depth": 4 + i % 2}, "reads": {}, "writes": {}, "findings": [finding] if i % 5 else [],
        "metrics": {"roc_auc": 0.7 + i % 50 / 1000, "rows": 1000 + i}, "html": f"{name}.html", "from_run": None,
    }  # fmt: skip


def write_runs(runs, count):
    "Runs of three steps, the last of which ends as the run does; run 7 is half written, every 100th is tagged."
    for i in range(count):
        folder = runs / f"202611{i // 50 + 1:02}-{i % 50:06}-{i:04x}"
        (folder / "tags").mkdir(parents=True)
        status = STATUSES[i % 5]
        ends = ["succeeded", "cached" if i % 3 else "succeeded", "pending" if status == "running" else status]
        steps = [
            step_record(i, name, end, STEPS[:k])
            for k, (name, end) in enumerate(zip(STEPS, ends, strict=True))
        ]
        record = {"run": folder.name, "project": "flights", "status": status, "seconds": 75.0, "steps": steps}
        record |= {"started": f"2026-11-{i // 50 + 1:02}T04:05:12+00:00", "trigger": {"kind": "manual"}}
        (folder / "run.json").write_text(json.dumps(record) if i != 7 else '{"run": "20')
        if i % 100 == 2:
            (folder / "tags" / f"release-{i // 100}").touch()
        (folder / "50_evaluate.html").write_text("<title>the report</title>")
    return runs


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    return write_gallery(write_runs(tmp_path_factory.mktemp("runs"), 1000))


def shown(tab):
    return tab.locator(".runs tbody tr:visible").count()


def wait_for_runs(tab, words):
    tab.locator("#shown", has_text=words).wait_for()
    return tab.locator("#shown").inner_text()


def test_a_thousand_runs_are_searched_and_filtered(thousand, visit):
    tab = visit(thousand, 390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert wait_for_runs(tab, "1000") == "1000 runs" and shown(tab) == 50
    tab.get_by_role("button", name="Show 50 more of 1000").click()
    assert shown(tab) == 100
    tab.get_by_label("Search runs").fill("20261103 0063 nothing")
    assert wait_for_runs(tab, "0 of") == "0 of 1000 runs" and shown(tab) == 0
    tab.get_by_label("Search runs").fill("20261103")
    assert wait_for_runs(tab, "50 of") == "50 of 1000 runs" and shown(tab) == 50
    tab.get_by_label("Status").select_option("gated")
    assert shown(tab) == 10
    tab.get_by_label("Parameter").select_option("10_ingest.depth=5")
    assert shown(tab) == 5
    tab.get_by_label("Findings").select_option("fail")
    assert shown(tab) == 0


def test_a_run_says_why_it_failed_and_not_why_it_ran(thousand, visit):
    tab = visit(thousand)
    wait_for_runs(tab, "1000")
    tab.get_by_label("Search runs").fill("no <rows> 996")
    row = tab.locator(".runs tbody tr:visible")
    assert row.locator(".reason").inner_text() == "50_evaluate: In [2]: ValueError: no <rows> 996"
    assert "forced" not in row.inner_text()
    link = row.get_by_role("link", name="50_evaluate failed")
    assert (thousand.parent / link.get_attribute("href")).is_file() and row.get_by_role("link").count() == 1
    tab.get_by_label("Search runs").fill("")
    tab.get_by_label("Status").select_option("unreadable")
    assert shown(tab) == 1 and "JSONDecodeError" in row.inner_text()
    tab.get_by_label("Status").select_option("")
    tab.get_by_label("Tag").select_option("release-3")
    assert shown(tab) == 1 and "tagged release-3" in row.locator(".chips").text_content()


def test_the_page_is_small_and_its_newest_runs_need_no_script(thousand, browser):
    assert thousand.stat().st_size < 500_000
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(thousand.as_uri())
    assert shown(tab) == FIRST and f"{1000 - FIRST} older" in tab.locator("noscript p").inner_text()
    assert not tab.locator("#filter").is_visible() and tab.locator(".line").count() == 10
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_pipeline_is_a_picture_with_words_and_links(thousand, visit, width, scheme):
    tab = visit(thousand, width, scheme)
    picture = tab.locator(".picture:visible")
    assert picture.count() == 1
    nodes = picture.locator(".node")
    said = [nodes.nth(i).get_attribute("aria-label") for i in range(3)]
    assert said[2].startswith("50_evaluate: Waiting") and said[2].endswith("after 10_ingest, 40_train")
    assert (
        picture.locator(".mark").all_text_contents()[0] == "✓" and picture.locator(".edges path").count() == 2
    )
    words = nodes.nth(0).locator(".now")
    contrast = words.evaluate(CONTRAST)
    assert contrast >= 4.5
    tab.get_by_text("The pipeline as a table").click()
    rows = tab.get_by_role("group", name="Steps of the pipeline").get_by_role("row")
    assert rows.nth(2).inner_text().split("\t")[:2] == ["40_train", "Succeeded"] and rows.count() == 4
    assert rows.nth(2).locator("code").all_inner_texts() == ["depth=5"]


CONTRAST = """text => {
  const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
  const both = [text, text.parentNode.querySelector("rect")].map(one => light(getComputedStyle(one).fill))
  const [a, b] = both.sort((x, y) => y - x)
  return (a + 0.05) / (b + 0.05) }"""


def test_trends_are_read_by_pointer_keyboard_and_table(thousand, visit):
    tab = visit(thousand)
    group = tab.locator(".group", has=tab.get_by_role("heading", name="50_evaluate"))
    chart = group.locator(".chart", has_text="roc auc")
    slider = group.get_by_role("slider", name="roc auc newest 200 of 399 of 50_evaluate")
    newest = chart.locator("output").inner_text()
    assert newest == "0.747"  # of run 997, which was stopped by its findings; those that failed do not count
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    assert chart.locator("output").inner_text() == "0.745"
    assert slider.get_attribute("aria-valuetext") == "0.745, 20 Nov 2026, 04:05 UTC, run 20261120-000045-03e3"
    tab.keyboard.press("Home")
    assert chart.locator("output").inner_text() == "0.7"
    slider.blur()
    assert chart.locator("output").inner_text() == newest
    slider.hover(position={"x": 3, "y": 20})
    assert chart.locator("output").inner_text() == "0.7"
    group.get_by_text("Values as a table").click()
    row = group.get_by_role("row").nth(1)
    assert row.inner_text().split("\t") == ["20261120-000047-03e5", "5.0 s", "0.747", "1,997"]
    reused = tab.locator(".group", has=tab.get_by_role("heading", name="40_train"))
    assert reused.get_by_role("slider").first.get_attribute("aria-label").endswith("200 of 334 of 40_train")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_runs_are_chosen_for_a_comparison(tmp_path, visit, axe, scheme):
    runs = write_runs(tmp_path, 4)
    names = sorted(folder.name for folder in runs.iterdir())
    (runs / f"compare-{names[0]}-{names[2]}.html").write_text("<title>both</title>")
    tab = visit(write_gallery(runs), scheme=scheme)
    choose = lambda name: tab.get_by_label(f"Compare run {name}").check()  # noqa: E731
    choose(names[2])
    assert "choose a second run" in tab.locator("#compare").inner_text()
    choose(names[0])
    assert f"mlworkbench compare {names[0]} {names[2]}" in tab.locator("#compare").inner_text()
    assert tab.get_by_role("link", name="Open comparison").get_attribute("href").startswith("compare-")
    choose(names[3])
    assert f"mlworkbench compare {names[0]} {names[3]}" in tab.locator("#compare").inner_text()
    assert not tab.get_by_role("link", name="Open comparison").is_visible()
    assert tab.get_by_role("link", name=f"{names[0]} with {names[2]}").is_visible()
    assert axe(tab) == []
    tab.get_by_role("button", name="Clear").click()
    assert (
        not tab.locator("#compare").is_visible()
        and not tab.get_by_label(f"Compare run {names[3]}").is_checked()
    )


def test_a_sweep_is_a_table_that_sorts(tmp_path, visit, axe):
    runs = write_runs(tmp_path, 4)
    for number, folder in enumerate(sorted(runs.glob("2*")), 1):
        record = json.loads((folder / "run.json").read_text())
        values = {"depth": 4 + number % 2}
        record |= {"batch": {"id": "b1", "kind": "sweep", "number": number, "of": 6, "values": values}}
        if number == 3:
            record["steps"][2]["metrics"] = {}
        (folder / "run.json").write_text(json.dumps(record))
    tab = visit(write_gallery(runs), 390)
    table = tab.get_by_role("group", name="Sweep 1").get_by_role("table")
    assert tab.get_by_role("heading", name="Sweep over depth").is_visible()
    assert tab.locator(".batch summary").inner_text().startswith("Sweep over depth 4 of 6 runs")

    def column(number):
        return table.locator(f"tbody td:nth-child({number + 1})").all_text_contents()

    heads = table.locator("thead th").all_text_contents()
    last = heads.index("50_evaluate roc auc")
    assert heads[0] == "depth" and column(last) == ["0.7", "0.701", "", "0.703"]
    table.get_by_role("button", name=heads[last]).click()
    assert column(last) == ["0.703", "0.701", "0.7", ""]
    assert table.locator("thead th").nth(last).get_attribute("aria-sort") == "descending"
    tab.keyboard.press("Enter")
    assert column(last) == ["0.7", "0.701", "0.703", ""]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390 and axe(tab) == []


EVIL = "</script><img src=x onerror=hit=1><script>hit=1</script>\"' onfocus=hit=1 autofocus"


def test_nothing_that_a_run_has_written_becomes_part_of_a_page(tmp_path, visit):
    runs = write_runs(tmp_path, 2)
    for number, folder in enumerate(sorted(runs.glob("2*"))):
        step = step_record(1, EVIL, "failed", [EVIL]) | {
            "error": {"name": EVIL, "message": EVIL}, "reason": EVIL, "writes": {EVIL: number},
            "params": {EVIL: f"{EVIL}{number}"}, "metrics": {EVIL: number}, "html": EVIL, "from_run": EVIL,
            "findings": [{"check": EVIL, "subject": f"{EVIL}{number}", "severity": "fail", "message": EVIL}],
        }  # fmt: skip
        batch = {"id": EVIL, "kind": EVIL, "number": number, "of": 2, "values": {EVIL: EVIL}}
        record = {"project": EVIL, "status": EVIL, "seconds": 1, "started": EVIL, "batch": batch}
        record |= {
            "steps": [step, step | {"name": "later", "status": "succeeded"}],
            "mlworkbench": f"{EVIL}{number}",
        }
        (folder / "run.json").write_text(json.dumps(record))
    names = sorted(folder.name for folder in runs.glob("2*"))
    comparison = write_comparison(runs, compare_runs(runs, *names))
    for page in (write_gallery(runs), comparison):
        tab = visit(page)
        tab.wait_for_load_state("networkidle")
        assert EVIL[:30] in tab.locator("main").inner_text()
        assert tab.evaluate("typeof hit") == "undefined" and tab.locator("main img").count() == 0
