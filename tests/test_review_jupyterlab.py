"""Labels given by key in a real JupyterLab; what was decided is read from the history by this process."""

import base64
import os
import signal
from pathlib import Path

import nbformat
import polars as pl
import pytest
from flow_project import wait_for
from lab_tab import jupyterlab, notebook_tab, run_cell, theme
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.core.store import Store
from mlworkbench.labels.history import History

CORPUS = """
import os
import time
import polars as pl
from mlworkbench.core.store import Store
from mlworkbench.labels.events import make_events
from mlworkbench.labels.history import History
from mlworkbench.labels.review import Review
from mlworkbench.labels.review_items import make_highlights
from mlworkbench.labels.similar import similar_items, text_vectors
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.widgets.label_review import LabelReview

topics = Taxonomy([
    Label("natural-language-processing", "Text and speech.", aliases=("nlp",)), Label("computer-vision", "Pictures."),
    Label("mlops", "Serving and watching models."), Label("other"),
])


class Rules:
    def matches(self, row):
        at = row["title"].find("image")
        return [("title", at, at + 5, "says_image", "computer-vision")] if at >= 0 else []


def explain(text, label):
    return [(start, start + 6, 0.8) for start in [text.find("search")] if start >= 0]


def review(name, count=40, store=None, **options):
    items = [f"{name}-{number}" for number in range(count)]
    frame = pl.DataFrame({"item": items, "title": [f"Fast image search number {number}" for number in range(count)],
                          "text": ["A library of pictures \\U0001f50e that finds another."] * count, "stars": range(count)})
    queue = pl.DataFrame({"item": items, "strategy": "likely_error", "suggested": "computer-vision", "given": "mlops"})
    queue = queue.with_columns(probability=pl.lit(0.93), queue=pl.lit(name))
    history = History(Store(store or name))
    if history.current().is_empty():
        history.append(make_events(items, "mlops", "raw", source="import"))
        history.append(make_events(items, "computer-vision", "anna"))
    marks = make_highlights(Rules(), explain, ["title"])
    return Review(frame, queue, topics, history, ["title", "text", "stars"], annotator="me", highlights=marks, **options)


def shown(item, queue, taxonomy=topics, **options):
    name = queue["queue"][0]
    return LabelReview(Review(item, queue, taxonomy, History(Store(name)), annotator="me", **options))
"""
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("review") / "project"
    root.mkdir()
    (root / "corpus.py").write_text(CORPUS)
    (root / "dot.png").write_bytes(base64.b64decode(DOT))
    with jupyterlab(root) as address:
        yield address, root


@pytest.fixture
def notebook(lab, browser, request):
    "Opens a notebook with these cells; the tab."
    address, root = lab
    tabs = []

    def start(*cells, **size):
        name = f"{request.node.name[:40]}.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[*map(new_code_cell, cells)], metadata=kernel), root / name)
        tabs.append(notebook_tab(address, browser, name, **size))
        return tabs[-1].__enter__()

    yield start
    for tab in tabs:
        tab.__exit__(None, None, None)


def begin(tab, number=0):
    "Run a cell with a review; its view, with the keys."
    view = run_cell(tab, number).locator(".mlw-review")
    view.wait_for()
    view.locator(".mlw-top").click()
    return view


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


def title(view):
    return view.locator(".mlw-words").first.inner_text()


def events(root, name):
    "What is in the history, but for what was there before the review."
    return History(Store(root / name)).events().filter(pl.col("annotator") == "me").collect()


def saved(view):
    view.locator(".mlw-saved", has_text="✓").wait_for()


def kernel_of(tab):
    "The kernel's process, which the first cell prints."
    return int(tab.locator(".jp-OutputArea-output", has_text="pid").inner_text().split()[1])


def restarted(tab):
    "JupyterLab says that the kernel has died and starts another."
    tab.get_by_role("dialog", name="Kernel Restarting").get_by_role("button", name="Ok").click()
    tab.get_by_text("Python 3 (ipykernel) | Idle").wait_for()


def picture(view, name):
    if folder := os.environ.get("SCREENSHOTS"):
        view.screenshot(path=Path(folder, f"review-{name}.png"))


def test_keys_decide_and_stay_in_the_view(lab, notebook):
    _, root = lab
    tab = notebook(
        "from corpus import *\nw = LabelReview(review('keys'))\nw", "print(w.value['labels'].to_list())"
    )
    view = begin(tab)
    assert title(view) == "Fast image search number 0"
    assert view.get_by_role("button", name="Accept computer-vision").is_visible()
    assert view.locator(".mlw-facts").inner_text().count("93 %") == 1
    press(tab, "Enter", "3", "k", "s", "a")
    assert title(view) == "Fast image search number 5"
    press(tab, "u", "u")
    assert title(view) == "Fast image search number 3"
    press(tab, "c")
    tab.keyboard.type("asku12? a line")
    press(tab, "Shift+Enter")
    tab.keyboard.type("and another")
    press(
        tab, "Enter", "d", "d", "x", "b", "j", "Shift+Enter", "ArrowDown", "z"
    )  # what the notebook would obey
    saved(view)
    wait_for(lambda: events(root, "keys").height == 8)
    got = events(root, "keys").select(pl.col("action").cast(pl.String), "labels", "reason").rows()
    wanted = [("label", ["computer-vision"]), ("label", ["mlops"]), ("label", ["mlops"])]
    assert [row[:2] for row in got[:3]] == wanted and [row[0] for row in got[3:5]] == ["skip", "label"]
    assert [row[0] for row in got[5:7]] == ["undo", "undo"]
    assert got[7][::2] == ("comment", "asku12? a line\nand another")
    assert tab.locator(".jp-Notebook .jp-Cell").count() == 2  # none added, cut or deleted
    assert title(view) == "Fast image search number 3"
    assert view.locator(".mlw-agree").inner_text() == (
        "Agreement with: given label 67 % of 3 · suggestion 33 % of 3 · votes 50 % of 6"
    )
    run_cell(tab, 1).get_by_text("[['computer-vision'], ['mlops'], ['mlops']]").wait_for()


def test_help_and_the_rest_can_be_closed_and_clicked(notebook):
    tab = notebook("from corpus import *\nw = LabelReview(review('clicks'))\nw", "w.review.relabel('other')")
    view = begin(tab)
    press(tab, "?")
    view.get_by_role("dialog", name="Keys and labels").get_by_text("Serving and watching models.").wait_for()
    press(tab, "2")  # means nothing while the list lies over the item
    press(tab, "Escape")
    assert view.get_by_role("dialog").count() == 0 and title(view).endswith("number 0")
    view.get_by_role("button", name="mlops").click()
    press(tab, "Enter")  # accepts; does not click mlops again
    view.locator(".mlw-saved", has_text="computer-vision: \u2068Fast image search number 1").wait_for()
    view.get_by_role("button", name="Undo").click()
    assert title(view).endswith("number 1")
    run_cell(tab, 1)  # a function in another cell moves the view along
    view.get_by_text("number 2").first.wait_for()
    view.locator(".mlw-count", has_text="2 of 40 decided").wait_for()


PID = "from corpus import *\nw = LabelReview(review('{}'))\nprint('pid', os.getpid())\nw"


def test_the_next_item_does_not_wait_for_the_kernel(lab, notebook):
    _, root = lab
    tab = notebook(PID.format("busy"))
    view = begin(tab)
    os.kill(kernel_of(tab), signal.SIGSTOP)
    press(tab, *"21a2s")
    assert title(view).endswith("number 5")
    view.get_by_text("5 not saved yet: the kernel is busy").wait_for()
    assert events(root, "busy").is_empty()
    os.kill(kernel_of(tab), signal.SIGCONT)
    saved(view)
    wait_for(lambda: events(root, "busy").height == 5)
    view.locator(".mlw-count", has_text="4 of 40 decided, 1 skipped").wait_for()


def test_a_killed_kernel_loses_nothing(lab, notebook):
    _, root = lab
    tab = notebook(PID.format("killed"))
    view = begin(tab)
    press(tab, "1", "2")
    saved(view)
    press(tab, "3")
    os.kill(kernel_of(tab), signal.SIGKILL)  # right after the key
    view.get_by_text("The kernel has gone.").first.wait_for()
    told = view.get_by_role("alert").inner_text()
    kept = events(root, "killed").height
    assert kept >= 2 and (kept == 3 or "not saved" in told)
    assert view.get_by_role("button", name="Accept computer-vision").get_attribute("aria-disabled") == "true"
    restarted(tab)
    view = begin(tab)  # the cell is run again: the review goes on
    assert title(view).endswith(f"number {kept}")
    if "not saved" in told:
        view.get_by_role("button", name="Save now").click()
    wait_for(lambda: events(root, "killed")["labels"].list.first().to_list()[2:] == ["mlops"])

    os.kill(kernel_of(tab), signal.SIGSTOP)  # what the kernel never saw is offered again
    press(tab, "4", "4")
    view.get_by_text("2 not saved yet").wait_for()
    os.kill(kernel_of(tab), signal.SIGKILL)
    view.get_by_text("2 decisions are not saved").wait_for()
    restarted(tab)
    view = begin(tab)
    view.get_by_role("alert").get_by_text("2 decisions had not reached the kernel").wait_for()
    view.get_by_role("button", name="Save now").click()
    wait_for(lambda: events(root, "killed").height == 5)
    assert events(root, "killed")["labels"].list.first().to_list()[3:] == ["other", "other"]
    wait_for(lambda: title(view).endswith("number 5"))


def test_a_decision_that_fails_is_shown_and_comes_back(lab, notebook):
    _, root = lab
    full = "history = w.review.history\nrecord = history.record\ndef fail(*given, **more): raise OSError('disk full')\n"
    full += "history.record = fail"
    tab = notebook(
        "from corpus import *\nw = LabelReview(review('fails'))\nw", full, "history.record = record"
    )
    view = begin(tab)
    run_cell(tab, 1)
    view.locator(".mlw-top").click()
    press(tab, "2")
    view.get_by_role("alert").get_by_text("disk full").wait_for()
    wait_for(lambda: title(view).endswith("number 0"))
    run_cell(tab, 2)
    view.locator(".mlw-top").click()
    press(tab, "2")
    saved(view)
    assert events(root, "fails").height == 1


HOSTILE = """
from corpus import *
texts = ["<script>window.hacked = 1</script>", '<img src=x onerror="window.hacked = 2">',
         "<svg onload='window.hacked = 3'></svg>",
         "بحث دلالي في المستندات", "👩‍👩‍👧 family", "", None, "line " * 2_000_000]
frame = pl.DataFrame({"item": [str(n) for n in range(len(texts))], "title": texts})
queue = pl.DataFrame({"item": frame["item"], "suggested": "other", "queue": "hostile"})
w = shown(frame, queue, votes=pl.DataFrame({"item": ["0"], "annotator": ["<b>eve</b>"], "labels": [["<i>x</i>"]]}))
w
"""


def test_texts_are_shown_and_never_run(notebook, axe):
    tab = notebook(HOSTILE)
    view = begin(tab)
    assert title(view) == "<script>window.hacked = 1</script>"
    assert "<b>eve</b>" in view.locator(".mlw-facts").inner_text()
    press(tab, "a")
    assert title(view) == '<img src=x onerror="window.hacked = 2">'
    press(tab, "a")
    assert title(view) == "<svg onload='window.hacked = 3'></svg>"
    assert view.locator(".mlw-item script, .mlw-item img, .mlw-item svg, .mlw-item b").count() == 0
    press(tab, "a")
    words = view.locator(".mlw-words").first
    assert words.evaluate("node => getComputedStyle(node).direction") == "rtl"
    picture(view, "arabic")
    press(tab, "a")
    assert title(view) == "👩‍👩‍👧 family"
    press(tab, "a")
    assert view.locator(".mlw-item .mlw-none").first.inner_text() == "(empty)"
    press(tab, "a")
    assert view.locator(".mlw-item .mlw-none").first.inner_text() == "(missing)"
    press(tab, "a")
    view.get_by_text("4,000 of 10,000,000 characters shown").wait_for()
    picture(view, "long")
    assert axe(tab, ".mlw-review") == []
    press(tab, "m")
    view.get_by_text("24,000 of 10,000,000 characters shown").wait_for()
    assert len(title(view)) > 23_000
    assert tab.evaluate("window.hacked") is None


PICTURES = """
from corpus import *
frame = pl.DataFrame({"item": ["1", "2", "3"], "iso": [100, 200, 300]})
frame = frame.with_columns(photo=pl.Series(["dot.png", "http://127.0.0.1:9/cat.png", "gone.png"]))
queue = pl.DataFrame({"item": ["1", "2", "3"], "suggested": "other", "queue": "pictures"})
w = shown(frame, queue)
w
"""
TABLES = """
from corpus import *
files = [[{"file": "a.py", "lines": 10}, {"file": "b.py", "lines": 20}]]
frame = pl.DataFrame({"item": ["1"], "files": files, "year": [2021], "share": [0.125]})
many = Taxonomy([*topics.labels, *(Label(f"topic {n}", f"number {n}") for n in range(20))], multilabel=True)
queue = pl.DataFrame({"item": ["1"], "suggested": [["other", "topic 17"]], "queue": "tables"})
w = shown(frame, queue, many)
w
"""


def test_pictures_and_tables(lab, notebook):
    _, root = lab
    tab = notebook(PICTURES, TABLES)
    asked = []
    tab.on("request", lambda request: asked.append(request.url) if ":9/" in request.url else None)
    view = begin(tab)
    image = view.get_by_role("img", name="photo of this item")
    assert image.evaluate("node => node.naturalWidth") == 1 and image.get_attribute("src").startswith(
        "data:image/png"
    )
    press(tab, "a")
    button = view.get_by_role("button", name="Show pictures from 127.0.0.1:9")
    assert asked == []  # nothing is fetched before somebody says so
    button.click()
    wait_for(lambda: asked == ["http://127.0.0.1:9/cat.png"])
    press(tab, "a")
    view.get_by_text("there is no file gone.png").wait_for()

    view = begin(tab, 1)
    assert view.locator(".mlw-item table").first.inner_text().split() == [
        "file",
        "lines",
        "a.py",
        "10",
        "b.py",
        "20",
    ]
    assert "2021" in view.locator(".mlw-item").inner_text()
    assert view.get_by_role("button", name="Accept other, topic 17").is_visible()
    press(tab, "4", "1", "/")  # off, on, and the list of all
    tab.keyboard.type("number 1")
    press(tab, "ArrowDown", "Enter", "Escape")
    picture(view, "multilabel")
    press(tab, "Enter")
    saved(view)
    wait_for(lambda: events(root, "tables").height == 1)
    assert events(root, "tables")["labels"].to_list() == [
        ["natural-language-processing", "topic 10", "topic 17"]
    ]


def test_it_is_readable_in_light_dark_and_narrow(notebook, axe):
    tab = notebook(
        "from corpus import *\nw = LabelReview(review('looks'))\nw",
        "from corpus import *\nw = LabelReview(review('looks2'))\nw",
    )
    view = begin(tab)
    for look in ("JupyterLab Light", "JupyterLab Dark"):
        theme(tab, look)
        for key in (None, "?", "c"):
            if key:
                view.locator(".mlw-top").click()
                press(tab, key)
            assert axe(tab, ".mlw-review") == [], (look, key)
            picture(view, f"{look.split()[1].lower()}-{ {None: 'item', '?': 'help', 'c': 'comment'}[key] }")
            press(tab, "Escape")
    tab.set_viewport_size({"width": 720, "height": 1100})
    assert axe(tab, ".mlw-review") == []
    assert view.evaluate("node => node.scrollWidth <= node.clientWidth")
    picture(view, "narrow")
    before = view.locator(".mlw-actions").bounding_box()
    view.locator(".mlw-top").click()
    press(tab, "2")
    saved(view)
    assert view.locator(".mlw-actions").bounding_box() == before  # nothing moves between two items


CHANGES = """
other = pl.when(pl.col("item") == "new-1").then(pl.lit("Other text")).otherwise("text")
new = w.review.items.frame.with_columns(text=other).filter(pl.col("item") != "new-2")
w.review.refresh(new)["message"].to_list()
"""


def test_items_that_change_meanwhile_are_told(notebook):
    tab = notebook("from corpus import *\nw = LabelReview(review('new'))\nw", CHANGES)
    view = begin(tab)
    press(tab, "2", "2")
    saved(view)
    run_cell(tab, 1)
    view.get_by_role("alert").get_by_text("1 items changed meanwhile; 1 of them were decided").wait_for()
    view.get_by_role("alert").get_by_text("1 items were deleted meanwhile").wait_for()
    view.get_by_text("Other text", exact=True).wait_for()
    view.get_by_text("Its content changed since this review began").wait_for()
    view.locator(".mlw-top").click()
    press(tab, "3")
    wait_for(lambda: title(view).endswith("number 3"))  # 2 is gone
