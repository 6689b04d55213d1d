"""What a history of a million label events and a queue of 100,000 items cost.

`record` is timed one decision at a time, each on the disk when it returns; current labels and votes are first held
against pandas.
"""

import statistics
import tempfile
import time
from datetime import UTC, datetime

import numpy as np
import polars as pl
from measure import peak_of, seconds

from mlworkbench.core.store import Store
from mlworkbench.labels.events import make_events
from mlworkbench.labels.history import History, current_labels, current_votes, export_labels
from mlworkbench.labels.queue import make_queue

RECORDS, EVENTS, ITEMS, SIZE = 500, 1_000_000, 100_000, 1_000
CLASSES = ["cv", "mlops", "nlp", "other"]


def a_history(count=EVENTS):
    "Labels by five people of a third as many items, one in a hundred undone."
    rng = np.random.default_rng(0)
    items = pl.Series([f"i{n}" for n in range(count // 3)]).gather(rng.integers(0, count // 3, count))
    start = np.datetime64("2026-01-01", "us")
    times = pl.Series(start + rng.permutation(count).astype("timedelta64[s]"))
    labels = pl.Series(CLASSES).gather(rng.integers(0, 4, count))
    people = pl.Series(list("abcde")).gather(rng.integers(0, 5, count))
    made = make_events(items, labels, people, time=times)
    undone = made.sample(count // 100, seed=1)
    undos = make_events(
        undone["item"], action="undo", undoes=undone["event"], time=datetime(2027, 1, 1, tzinfo=UTC)
    )
    return pl.concat([made, undos])


def newest(events, by):
    "The same answer from pandas; all of these are people's labels."
    frame = events.select("event", "item", "annotator", "time", "action", "undoes").to_pandas()
    frame = frame[(frame["action"] == "label") & ~frame["event"].isin(frame["undoes"].dropna())]
    return set(frame.sort_values("time").groupby(by)["event"].last())


def a_project(count=ITEMS):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([0.3] * 4, count)
    items = pl.DataFrame({"item": [f"i{n}" for n in range(count)]})
    given = items.with_columns(labels=pl.Series(CLASSES).gather(rng.integers(0, 4, count)))
    issues = pl.DataFrame(
        {"row": range(count), "score": rng.random(count), "is_issue": rng.random(count) < 0.1}
    )
    inputs = {"given": given, "issues": issues, "pred_probs": probs, "classes": CLASSES}
    return items, inputs | {"embeddings": rng.standard_normal((count, 128), dtype=np.float32)}


PLAIN = {"likely_error": 0.5, "uncertainty": 0.3, "random": 0.2}
DIVERSE = {"likely_error": 0.4, "uncertainty": 0.2, "diversity": 0.2, "random": 0.2}


def queue_of(shares):
    items, inputs = a_project()
    queue, findings = make_queue(items, shares, SIZE, **inputs)
    assert queue["item"].n_unique() == SIZE and findings.is_empty()
    return queue


def bench_record():
    with tempfile.TemporaryDirectory() as folder:
        history, times = History(Store(folder)), []
        for number in range(RECORDS):
            start = time.perf_counter()
            history.record(f"i{number}", "nlp", "ada", queue="monday")
            times.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        history.flush()
        flushed = time.perf_counter() - start
        assert Store(folder).read("label_events").collect()["item"].to_list() == [
            f"i{n}" for n in range(RECORDS)
        ]
    times.sort()
    median, p99 = statistics.median(times), times[int(0.99 * RECORDS)]
    print(f"record: median {median:.2f} ms, p99 {p99:.2f} ms; flush of {RECORDS}: {flushed:.2f} s")


def bench_history():
    events = a_history()
    assert set(current_labels(events)["event"]) == newest(events, "item")
    assert set(current_votes(events)["event"]) == newest(events, ["item", "annotator"])
    start = time.perf_counter()
    digest = export_labels(events)[1]
    took = time.perf_counter() - start
    assert digest == export_labels(events.sample(fraction=1, shuffle=True, seed=2))[1]
    print(f"export_labels of {events.height:,} events: {took:.2f} s")
    before = peak_of("bench_labels", "a_history()")
    for work in (current_labels, current_votes):
        memory = peak_of("bench_labels", f"{work.__name__}(a_history())") - before
        took = seconds(work, events, repeats=1)
        print(f"{work.__name__} of {events.height:,} events: {took:.2f} s, {memory:+} MB of peak memory")


def bench_queue():
    items, inputs = a_project()
    for name, shares in (("without diversity", PLAIN), ("with diversity", DIVERSE)):
        counts = dict(queue_of(shares).group_by("strategy").len().rows())
        took = seconds(lambda shares=shares: make_queue(items, shares, SIZE, **inputs), repeats=1)
        print(f"make_queue, {SIZE:,} of {ITEMS:,} items {name}: {took:.2f} s  {counts}")


def main():
    start = time.perf_counter()
    bench_record()
    bench_history()
    bench_queue()
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
