"""Reviews without a browser: what is kept when a process dies, many items, what a schedule does, what a page shows."""

import subprocess
import sys

import nbformat
import polars as pl
import pytest
from flow_project import wait_for
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.core.store import Store
from mlworkbench.labels.events import make_events
from mlworkbench.labels.history import History
from mlworkbench.labels.queue import make_queue
from mlworkbench.labels.review import Review
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.report.page import render_page
from mlworkbench.widgets.label_review import LabelReview

TAXONOMY = Taxonomy([Label("nlp"), Label("cv"), Label("mlops")])
WRITER = """
import sys
import polars as pl
from mlworkbench.core.store import Store
from mlworkbench.labels.history import History
from mlworkbench.labels.review import Review
from mlworkbench.labels.taxonomy import Label, Taxonomy
items = [str(n) for n in range(100_000)]
frame = pl.DataFrame({"item": items, "text": items})
queue = pl.DataFrame({"item": items}).with_columns(suggested=pl.lit("cv"))
review = Review(frame, queue, Taxonomy([Label("nlp"), Label("cv")]), History(Store(sys.argv[1])), annotator="me")
while True:
    review.accept()
    print(review.progress["done"], flush=True)
"""


def items_and_queue(count=200, queue="night"):
    names = [f"i{number}" for number in range(count)]
    frame = pl.DataFrame({"item": names, "text": [f"text {name}" for name in names]})
    strategies = pl.Series(["likely_error", "random"] * (count // 2))
    rows = pl.DataFrame({"item": names, "strategy": strategies, "queue": queue})
    return frame, rows.with_columns(
        suggested=pl.lit("cv"), probability=pl.Series([0.995, 0.7] * (count // 2))
    )


def test_no_decision_that_was_confirmed_is_lost_with_its_process(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout:
            if int(line) == 25:
                break
        writer.kill()
        told = [line for line in writer.stdout.read().splitlines() if line.isdigit()]
    kept = History(Store(tmp_path)).events().collect()
    assert kept.height >= int(told[-1] if told else 25) and kept["item"].is_unique().all()


@pytest.mark.parametrize("given", [None, ["mlops"], ["cv"]])
@pytest.mark.parametrize("source", ["import", "human"])
def test_a_schedule_accepts_only_what_nobody_contradicts(tmp_path, given, source):
    frame, queue = items_and_queue(20)
    history = History(Store(tmp_path))
    if given:
        history.append(make_events(frame["item"], given[0], "ann", source=source))
    review = Review(frame, queue.with_columns(strategy=pl.lit("likely_error")), TAXONOMY, history)
    found = review.accept_above(0.99, model="tfidf")
    accepted = history.events().filter(pl.col("annotator") == "tfidf").collect()
    assert found["value"].to_list() == ([0, 20] if given == ["mlops"] else [10, 10])
    assert accepted.height == found["value"][0] and set(accepted["source"]) <= {"model"}
    assert accepted["confidence"].eq(0.995).all()
    before = history.current()["labels"].to_list()
    assert given is None or all(
        labels == given for labels in before
    )  # no label of a person or an import moved
    if accepted.height:
        review.undo()
        assert review.progress["done"] == 0 and (given or history.current().is_empty())


def test_a_queue_of_shares_is_reviewed_and_its_gold_items_look_like_any(tmp_path):
    frame, _ = items_and_queue(60)
    gold = frame["item"].head(10)
    queue, _ = make_queue(frame, {"random": 0.75, "gold": 0.25}, 20, gold=gold, name="mixed")
    review = Review(frame, queue, TAXONOMY, History(Store(tmp_path)), annotator="me")
    assert {item["strategy"] for item in review.page(0, 200)} == {"Random"}
    assert len(review.page(0, 500)) == 20
    for _ in range(20):
        review.relabel("nlp")
    assert review.view is None and review.progress["left"] == 0
    assert set(review.decisions["strategy"]) == {"random", "gold"}


def test_a_page_of_a_large_queue_is_bounded(tmp_path):
    frame, queue = items_and_queue(1_000)
    long = frame.with_columns(text=pl.lit("word " * 100_000))
    review = Review(long, queue, TAXONOMY, History(Store(tmp_path)))
    assert len(review.page(0, 10_000)) == 200
    assert len(str(LabelReview(review).page(0, 200))) < 4_000_000


def executed(folder, *cells):
    "A notebook that ran without a browser, as a page."
    notebook = new_notebook(cells=[*map(new_code_cell, cells)])
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    nbformat.write(notebook, folder / "w.ipynb")
    return render_page(folder / "w.ipynb", folder / "w.html")


PAGE = """
import polars as pl
from mlworkbench.core.store import Store
from mlworkbench.labels.history import History
from mlworkbench.labels.review import Review
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.widgets.label_review import LabelReview
items = [f"i{n}" for n in range(1_000)]
titles = ["<script>window.hacked = 1</script>", "بحث دلالي", *(f"Title {n}" for n in range(998))]
frame = pl.DataFrame({"item": items, "title": titles})
queue = pl.DataFrame({"item": [*items, "gone"], "strategy": ["random", *["likely_error"] * 1_000]})
queue = queue.with_columns(suggested=pl.lit("cv"), probability=pl.lit(0.9), queue=pl.lit("week 47"))
issues = pl.DataFrame({"item": ["i5"], "check": ["outlier"], "message": ["Unlike all others"]})
review = Review(frame, queue, Taxonomy([Label("nlp"), Label("cv")]), History(Store("store")), issues=issues)
review.accept(); review.relabel("nlp")
LabelReview(review)
"""


@pytest.mark.filterwarnings("default")  # the kernel's own
def test_the_page_of_a_run_lets_one_click_through_the_queue(tmp_path, visit, axe):
    page = executed(tmp_path, PAGE)
    assert page.stat().st_size < 3_000_000
    tab = visit(page)
    frame = next(one for one in tab.frames if one.parent_frame)
    wait_for(lambda: frame.locator("[role=option]").count() == 300)
    assert "The first 300 of 1,000 items are in this page" in frame.locator(".mlw-foot").inner_text()
    assert "2 of 1,000 decided" in frame.locator(".mlw-top").inner_text()
    frame.get_by_text("1 of 1,001 items are no longer there").wait_for()
    assert frame.locator(".mlw-words").inner_text() == "<script>window.hacked = 1</script>"
    assert frame.evaluate("window.hacked") is None
    frame.locator("[role=listbox]").click(position={"x": 40, "y": 20})
    for key in "jjk":
        tab.keyboard.press(key)
    assert frame.locator(".mlw-words").inner_text() == "بحث دلالي"
    frame.get_by_label("All findings").select_option("outlier")
    frame.locator(".mlw-note", has_text="Unlike all others").wait_for()
    frame.get_by_text("1 of 300", exact=True).wait_for()
    frame.get_by_label("All findings").select_option("")
    frame.get_by_label("All strategies").select_option("Random")
    frame.get_by_text("1 of 300", exact=True).wait_for()
    frame.get_by_label("All strategies").select_option("")
    frame.get_by_label("All states").select_option("decided")
    frame.get_by_text("2 of 300", exact=True).wait_for()
    frame.get_by_label("Search").fill("بحث")
    frame.get_by_text("1 of 300", exact=True).wait_for()
    assert axe(tab) == []
    tab.get_by_role("button", name="Switch between light and dark").click()
    wait_for(lambda: frame.evaluate("document.documentElement.style.colorScheme") == "dark")
    assert axe(tab) == []
