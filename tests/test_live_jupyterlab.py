"""`mlw.watch()` in a real JupyterLab, while a project runs in another process."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from flow_project import PLAIN, begin, newest_record, wait_for, write_project
from lab_tab import jupyterlab, notebook_tab, run_cell, theme
from nbformat.v4 import new_code_cell, new_notebook

HOLD = 'while not os.path.exists("go"): time.sleep(0.05)'
WATCH = "import threading\nimport mlworkbench as mlw\nw = mlw.watch()\nw"
ASK = """threads = [t for t in threading.enumerate() if t.name.endswith("(_look_on)")]
print("answer", w.status, w.value and w.value["status"], len(threads))"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "JupyterLab on a project with three steps, with settings of its own: its address and the project."
    root = write_project(
        tmp_path_factory.mktemp("lab") / "project",
        {"name": "1_ingest", "head": PLAIN, "code": ["1 + 1"]},
        {"name": "2_train", "head": PLAIN, "code": [HOLD, "raise ValueError('no rows')"]},
        {"name": "3_after", "head": PLAIN, "code": ["1"]},
    )
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [new_code_cell(WATCH), new_code_cell(ASK)]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "w.ipynb")
    with jupyterlab(root) as address:
        yield address, root


@pytest.fixture
def run_held(lab):
    "Begins a run in another process; its second step goes on until the file `go` is there."
    _, root = lab
    begun = []

    def start():
        begun.append(begin(root, "run", "--jobs", "1"))
        return begun[0]

    yield start
    (root / "go").touch()
    for run in begun:
        run.communicate(timeout=60)


@pytest.fixture
def tab(lab, browser):
    with notebook_tab(lab[0], browser) as page:
        yield page


def answer(tab):
    "What the second cell prints, asked anew."
    out = run_cell(tab, 1)
    tab.keyboard.press("Escape")
    out.get_by_text("answer").wait_for()
    return out.inner_text().strip()


def test_a_run_is_watched_from_before_it_begins_until_it_has_ended(lab, tab, axe, run_held):
    _, root = lab
    widget = run_cell(tab, 0).locator(".mlw-watch")
    widget.get_by_text("Waiting for a run to begin.").first.wait_for()
    run = run_held()
    train = widget.locator("tbody tr", has_text="2_train")
    train.get_by_text("cell 3 of 4").wait_for()
    assert widget.locator("tbody th").all_inner_texts() == ["1_ingest", "2_train", "3_after"]
    assert widget.locator("tbody tr").first.locator(".mlw-status").inner_text() == "✓Succeeded"
    assert "1 of 3 steps done" in widget.locator(".mlw-headline").inner_text()
    bar = train.get_by_role("progressbar", name="2_train")
    assert (bar.get_attribute("aria-valuenow"), bar.get_attribute("aria-valuemax")) == ("2", "4")
    assert bar.get_attribute("aria-valuetext") == "cell 3 of 4"
    assert "2_train: Running" in widget.get_by_role("status").inner_text()
    assert answer(tab) == "answer running running 1"

    page, notebook = widget.get_by_role("link", name="1_ingest"), widget.get_by_role("link", name="2_train")
    assert "/lab/tree/runs/" in notebook.get_attribute("href")
    page.focus()
    with tab.context.expect_page() as opened:
        tab.keyboard.press("Enter")
    opened.value.get_by_text("Succeeded").first.wait_for()
    opened.value.close()
    ticks = widget.locator("tbody tr").nth(1).locator(".mlw-time")
    before = ticks.inner_text()
    tab.wait_for_function("([node, text]) => node.textContent !== text", arg=[ticks.element_handle(), before])
    assert tab.evaluate("document.activeElement.textContent") == "1_ingest"  # the focus stays while it ticks

    for look in ("JupyterLab Light", "JupyterLab Dark"):
        theme(tab, look)
        assert axe(tab, ".mlw-watch") == []
        if folder := os.environ.get("SCREENSHOTS"):
            widget.screenshot(path=Path(folder, f"{look}.png"))

    (root / "go").touch()
    widget.get_by_text("Failed in").first.wait_for()
    assert run.wait(60) == 1
    assert "In [3]: ValueError: no rows" in widget.inner_text()
    wait_for(lambda: answer(tab) == "answer failed failed 0")  # and no thread is left
    tab.keyboard.press("Control+s")
    html = wait_for(
        lambda: (h := saved_html(root)) and "ValueError" in h and h
    )  # for readers without widgets
    assert "As of" not in html and newest_record(root)["run"] in html


def saved_html(root):
    try:
        cells = json.loads((root / "w.ipynb").read_text())["cells"]
    except ValueError:  # JupyterLab is writing it
        return ""
    return "".join("".join(out.get("data", {}).get("text/html", "")) for out in cells[0]["outputs"])


def test_a_cell_that_is_run_again_leaves_no_thread_behind(tab):
    widget = run_cell(tab, 0).locator(".mlw-watch")
    widget.get_by_text("Waiting for the next run to begin.").wait_for()  # below the last one's outcome
    assert "Failed" in widget.locator(".mlw-head").inner_text()
    first = widget.element_handle()
    run_cell(tab, 0)
    tab.wait_for_function("node => !node.isConnected", arg=first)
    widget.get_by_text("Waiting for the next run to begin.").wait_for()
    assert answer(tab) == "answer failed failed 1"
