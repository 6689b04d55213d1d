"""The history of labels: nothing lost, nothing twice, whoever dies; the same answers as a slow reading of its rules."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from conftest import s3_server
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import ConfigError, DataError, StoreError
from mlworkbench.core.project import Project, Step, publish_work
from mlworkbench.core.store import Store
from mlworkbench.labels.history import (
    EVENTS,
    History,
    content_hash,
    current_labels,
    current_votes,
    make_events,
)
from mlworkbench.labels.migrations import merge_labels, migrate, rename_label
from mlworkbench.labels.taxonomy import Label, Taxonomy, load_taxonomy

RECORD = """
import itertools, sys
from mlworkbench.core.store import Store
from mlworkbench.labels.history import History
history = History(Store(sys.argv[1]))
for number in itertools.count():
    event = history.record(f"{sys.argv[2]}-{number}", "cat", annotator=sys.argv[2])
    print(event, flush=True)
    if number % 3 == 2:
        history.flush()
    if number + 1 == int(sys.argv[3]):
        break
"""

# The journal is in the table, and its file not yet gone.
DIE_BETWEEN = """
import os, signal, sys
from mlworkbench.core.journal import Journal
from mlworkbench.core.store import Store
from mlworkbench.labels.history import History
Journal.remove = lambda self, pages: os.kill(os.getpid(), signal.SIGKILL)
history = History(Store(sys.argv[1]))
for number in range(5):
    history.record(f"item-{number}", "cat", annotator="ada")
history.flush()
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kept(store):
    "The ids in the table itself, as often as they are there."
    return store.read("label_events").collect()["event"].to_list() if store.exists("label_events") else []


def test_a_kernel_that_is_killed_at_any_moment_loses_no_decision_and_none_is_there_twice(tmp_path):
    store, chance, told = Store(tmp_path), random.Random(5), []
    for number in range(6):
        writer = start(RECORD, tmp_path, f"writer{number}", 10**6)
        told.append(writer.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.5))
        writer.send_signal(signal.SIGKILL)
        told += writer.communicate()[0].split()
        assert set(told) <= set(History(store).events().collect()["event"])  # before anything is moved
    told = [event for event in told if len(event) == 32]  # a kill may have cut a printed line
    History(store).flush()
    ids = kept(store)
    assert set(told) <= set(ids) and len(ids) == len(set(ids))
    assert len(ids) - len(told) <= 6  # at most the one decision each that was kept and not told any more
    assert not list(tmp_path.rglob("*.jsonl"))


def test_killed_between_table_and_journal_each_event_is_there_once(tmp_path):
    writer = start(DIE_BETWEEN, tmp_path)
    assert writer.wait(60) == -signal.SIGKILL
    writer.stdout.close()
    store = Store(tmp_path)
    assert len(kept(store)) == 5 and list(tmp_path.rglob("*.jsonl"))
    assert History(store).current().height == 5
    assert History(store).flush().is_empty() and len(kept(store)) == 5
    assert not list(tmp_path.rglob("*.jsonl"))


def test_many_writers_at_once(tmp_path):
    writers = [start(RECORD, tmp_path, f"writer{number}", 24) for number in range(3)]
    told = [line for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0, 0] and len(told) == 72
    History(Store(tmp_path)).flush()
    assert sorted(kept(Store(tmp_path))) == sorted(told)
    assert History(Store(tmp_path)).current()["annotator"].value_counts()["count"].to_list() == [24] * 3


def test_who_reads_while_another_moves_the_journal_misses_nothing(tmp_path, monkeypatch):
    reader, writer = History(Store(tmp_path)), History(Store(tmp_path))
    writer.append(make_events("a", "cat", "ada"))
    writer.record("b", "cat", "ada")
    read = Store.read

    def moved_after(store, *more, **options):
        frame = read(store, *more, **options)
        if store is reader.tables:
            writer.flush()
        return frame

    monkeypatch.setattr(Store, "read", moved_after)
    assert reader.current()["item"].to_list() == ["a", "b"]
    monkeypatch.undo()
    assert len(kept(Store(tmp_path))) == 2  # it was moved indeed


def test_two_machines_with_a_journal_each(tmp_path):
    store = Store(tmp_path / "store")
    here, there = History(store, journal=tmp_path / "here"), History(store, journal=tmp_path / "there")
    here.record("a", "cat", "ada")
    there.record("b", "dog", "bob")
    assert here.current()["item"].to_list() == ["a"]
    here.flush()
    there.flush()
    assert here.current().equals(there.current()) and here.current()["item"].to_list() == ["a", "b"]


def test_half_a_last_line_is_told_and_costs_nothing_else(tmp_path):
    writer = start(RECORD, tmp_path, "ada", 2)
    told = writer.communicate()[0].split()
    [page] = tmp_path.rglob("*.jsonl")
    page.write_bytes(page.read_bytes() + b'{"event": "e9", "item": "x"')
    findings = History(Store(tmp_path)).flush()
    assert findings["check"].to_list() == ["journal", "torn_journal"]
    assert "1 lines" in findings["message"][1] and kept(Store(tmp_path)) == told


def test_a_full_disk_loses_no_other_decision(tmp_path, monkeypatch):
    history = History(Store(tmp_path))
    first = history.record("a", "cat", "ada")
    write = os.write

    def full(file, line):
        write(file, line[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left on device; this entry is not kept"):
        history.record("b", "cat", "ada")
    monkeypatch.undo()
    second = history.record("c", "cat", "ada")
    assert history.events().collect()["event"].to_list() == [first, second]
    history.flush()
    assert kept(Store(tmp_path)) == [first, second]


def test_record_reads_nothing(tmp_path, monkeypatch):
    history = History(Store(tmp_path))
    history.append(make_events(["a"], "cat", "ada"))

    def refuse(*_, **__):
        raise AssertionError("a decision must not wait for the history to be read")

    monkeypatch.setattr(Store, "read", refuse)
    monkeypatch.setattr(Store, "_delta", refuse)
    event = history.record("a", "dog", "ada")
    history.undo(event, "ada")


def test_a_label_that_is_none_is_no_decision(tmp_path):
    history = History(Store(tmp_path))
    with pytest.raises(DataError, match="1 labels are null"):
        history.record("a", None, "ada")
    assert history.events().collect().is_empty()


def test_a_forked_child_writes_a_journal_of_its_own(tmp_path):
    history = History(Store(tmp_path))
    history.record("a", "cat", "ada")
    assert subprocess.run([sys.executable, "-c", FORK, str(tmp_path)]).returncode == 0
    assert History(Store(tmp_path)).current()["item"].to_list() == ["a", "b", "child", "parent"]


FORK = """
import os, sys
from mlworkbench.core.journal import Journal
from mlworkbench.labels.events import event_line, make_events
journal = Journal(sys.argv[1] + "/_journal/label_events")
lines = {item: event_line(make_events(item, "cat", "ada")) for item in ("b", "child", "parent")}
journal.append(lines["b"])
if not (child := os.fork()):  # no query of polars in the child: its threads are the parent's
    journal.append(lines["child"])
    os._exit(0)
os.waitpid(child, 0)
journal.append(lines["parent"])
pages = journal.read()
assert sorted(page.lines.count(b"\\n") for page in pages if page.path.stat().st_size) == [1, 1, 2]
"""


def test_the_store_is_an_object_store_and_away_for_a_while(tmp_path):
    with s3_server() as server:
        options = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        options |= {"AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
        store = Store("s3://bench/history", options)
        with pytest.raises(ConfigError, match="journal='journal'"):
            History(store).record("a", "cat", "ada")
        history = History(store, journal=tmp_path)
        told = [history.record("a", "cat", "ada"), history.record("b", ["dog", "cat"], "ada")]
        history.flush()
        assert kept(store) == told and history.current()["labels"].to_list() == [["cat"], ["cat", "dog"]]
        away = {**options, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "max_retries": "0", "timeout": "1s"}
        told.append(history.record("c", "cat", "ada"))
        with pytest.raises(StoreError, match="label_events"):
            History(Store("s3://bench/history", away), journal=tmp_path).flush()
        assert History(store, journal=tmp_path).current()["item"].to_list() == ["a", "b", "c"]
        assert history.flush().height == 1 and sorted(kept(store)) == sorted(told)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "workbench.toml").write_text("""
[project]
name = "topics"
[[step]]
notebook = "10_import.ipynb"
writes = ["label_events"]
[[step]]
notebook = "20_review.ipynb"
reads = ["label_events"]
[[step]]
notebook = "30_review.ipynb"
writes = ["label_events"]
""")
    return Project(tmp_path)


def test_a_step_under_the_runner_publishes_with_its_success(project, tmp_path):
    work = tmp_path / "work"
    history = History(Step(project, "10_import", run="r1", pins={"label_events": None}, work=work))
    assert history.current().is_empty()
    history.append(make_events(["a", "b"], "cat", "ada", source="import"))
    history.record("a", "dog", "bob")
    assert history.current()["labels"].to_list() == [["dog"], ["cat"]]  # the step sees what it has written
    assert not project.store.exists("label_events") and not list(tmp_path.rglob("*.jsonl"))
    publish_work(project, work, "r1")
    assert History(project.store).current()["labels"].to_list() == [["dog"], ["cat"]]
    pinned = Step(project, "20_review", run="r2", pins={"label_events": 0}, work=tmp_path / "work2")
    History(project.store).append(make_events("c", "cat", "ada"))
    assert set(History(pinned).events().collect()["item"]) == {"a", "b"}  # no later version, no journal


def test_a_draft_sees_the_newest_and_decisions_are_no_draft(project, tmp_path):
    ingest, review = History(Step(project, "10_import")), History(Step(project, "30_review"))
    ingest.append(make_events(["a", "b"], "cat", "ada", source="import"))
    assert review.current()["labels"].to_list() == [["cat"], ["cat"]]  # another notebook's draft
    review.record("a", "dog", "bob")
    assert ingest.current()["labels"].to_list() == [["dog"], ["cat"]]  # the journal is the project's
    review.flush()
    assert History(project.store).current()["item"].to_list() == [
        "a"
    ]  # a decision is kept, the import is a draft
    review._step.discard()
    assert review.current()["labels"].to_list() == [["dog"]]
    only = History(Step(project, "20_review"))
    only.record("z", "dog", "bob")
    with pytest.raises(ConfigError, match="may not write 'label_events'"):
        only.flush()
    assert review.flush().height == 1 and review.current()["item"].to_list() == ["a", "z"]


def test_what_comes_back_is_what_was_written(tmp_path):
    events = make_events(
        ["a", "ב 🎉", "<script>"], [[], ["x", "ש"], ["y"]], "ada", source=["human", "model", "import"],
        confidence=[None, 0.5, 1.0], reason='say "hi"\n', time=datetime(2026, 1, 1, tzinfo=UTC), content="0" * 16,
    )  # fmt: skip
    history = History(Store(tmp_path))
    history.append(events)
    back = history.events().collect()
    assert back.schema == EVENTS and back.sort("item").equals(events.sort("item"))
    history.record("c 👩‍🔬", ["é"], "ada", reason="tab\tline\n", confidence=0.25, action="label")
    before = history.events().collect()
    history.flush()
    assert history.events().collect().equals(before)


def test_an_export_is_the_same_forever(tmp_path):
    store = Store(tmp_path)
    history = History(store)
    history.append(make_events(["a", "b"], ["cat", "dog"], "ada", time=datetime(2026, 1, 1), source="import"))
    labels, digest = history.export()
    version = history.version()
    event = history.record("a", "dog", "ada")
    history.flush()
    store.tag("label_events", "gold")
    second = history.export()
    history.undo(event, "ada")
    history.flush()
    migrate(history, rename_label(Taxonomy([Label("cat"), Label("dog")]), "cat", "feline"))
    assert history.export(version)[0].equals(labels) and history.export(version)[1] == digest
    assert history.export("gold")[1] == second[1] != digest
    assert history.export()[0]["labels"].to_list() == [["feline"], ["dog"]]
    code = "import sys; from mlworkbench.core.store import Store; from mlworkbench.labels.history import History; "
    code += "print(History(Store(sys.argv[1])).export(0)[1])"
    assert start(code, tmp_path).communicate()[0].strip() == digest
    assert digest == "e18a526a63607710821b01ee483a145f"  # must never change: released labels are told by it


def slow_labels(events, at):
    "The rules of the history, one event after the other."
    events = [e for e in events if e["time"] <= at]
    root = {e["event"]: (e["origin"] or "").partition("#")[2] or e["event"] for e in events}
    then = {e["event"]: e["time"] for e in events}

    def stands(event, seen=()):
        undone = [
            u
            for u in events
            if u["action"] == "undo" and root.get(u["undoes"], u["undoes"]) == root[event["event"]]
        ]
        return not any(u["event"] not in seen and stands(u, (*seen, u["event"])) for u in undone)

    rank = {"human": 2, "import": 1, "model": 0, "rule": 0}

    def key(e):
        return then.get(root[e["event"]], e["time"]), e["time"], [-ord(c) for c in e["event"]]

    standing = [e for e in events if e["action"] == "label" and stands(e)]
    current, votes = {}, {}
    for e in standing:
        best = current.get(e["item"])
        if best is None or (rank[e["source"]], *key(e)) > (rank[best["source"]], *key(best)):
            current[e["item"]] = e
        best = votes.get((e["item"], e["annotator"]))
        if best is None or key(e) > key(best):
            votes[e["item"], e["annotator"]] = e
    return {i: e["event"] for i, e in current.items()}, {pair: e["event"] for pair, e in votes.items()}


@st.composite
def histories(draw):
    events = []
    for number in range(draw(st.integers(1, 14))):
        earlier = [e for e in events if e["action"] != "comment"]
        labels = [e for e in earlier if e["action"] == "label"]
        kinds = [
            "label",
            "label",
            "comment",
            *(["undo", "undo"] if earlier else []),
            *(["move"] if labels else []),
        ]
        kind = draw(st.sampled_from(kinds))
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=draw(st.integers(0, 4)))
        event = {
            "event": f"e{number:02}",
            "time": moment,
            "item": draw(st.sampled_from("ab")),
            "action": kind,
        }
        event |= {
            "annotator": draw(st.sampled_from("xy")),
            "source": draw(st.sampled_from(["human", "import", "model"])),
        }
        event |= {"undoes": None, "origin": None}
        if kind == "undo":  # of what was there before: there are no circles
            event["undoes"] = draw(st.sampled_from(earlier))["event"]
        if kind == "move":
            old = draw(st.sampled_from(labels))
            root = (old["origin"] or "").partition("#")[2] or old["event"]
            event |= {name: old[name] for name in ("item", "annotator", "source")}
            event |= {"action": "label", "origin": f"migration:m#{root}"}
        events.append(event)
    return events


@settings(max_examples=300, deadline=None)
@given(histories(), st.integers(0, 4), st.randoms())
def test_current_labels_and_votes_follow_the_rules(events, day, chance):
    at = datetime(2026, 1, 1 + day, tzinfo=UTC)
    current, votes = slow_labels(events, at)
    chance.shuffle(events)
    rows = pl.DataFrame(events)
    frame = make_events(
        rows["item"], "x", rows["annotator"], rows["source"], rows["action"], rows["time"],
        undoes=rows["undoes"].cast(pl.String), origin=rows["origin"].cast(pl.String), event=rows["event"],
    )  # fmt: skip
    assert dict(current_labels(frame, at).select("item", "event").rows()) == current
    told = current_votes(frame.lazy(), at).select("item", "annotator", "event").rows()
    assert {(item, who): event for item, who, event in told} == votes


SIX = """
multilabel = true
priority = ["mlops", "natural-language-processing", "computer-vision", "other"]
[[label]]
name = "natural-language-processing"
[[label]]
name = "computer-vision"
[[label]]
name = "mlops"
[[label]]
name = "other"
raw = ["reinforcement-learning", "graph-learning", "time-series"]
"""


def test_six_raw_tags_become_four_labels_and_a_history(tmp_path):
    (tmp_path / "taxonomy.toml").write_text(SIX)
    taxonomy = load_taxonomy(tmp_path)
    raw = ["computer-vision", "natural-language-processing", "mlops"]
    raw += ["reinforcement-learning", "graph-learning", "time-series"]
    labels, findings = taxonomy.map(pl.Series(raw))
    assert findings.is_empty() and labels.to_list() == [*raw[:3], "other", "other", "other"]
    items = pl.DataFrame({"item": [str(n) for n in range(6)], "title": raw})
    several = pl.Series("tags", [[tag, "mlops"] for tag in raw])
    one, lost = taxonomy.to_multiclass(several, items["item"])
    assert one.unique().to_list() == ["mlops"] and lost.counts["items"].to_list() == [3, 1, 1]
    history = History(Store(tmp_path / "store"))
    facts = {"annotator": "tags.csv", "source": "import", "content": content_hash(items, ["title"])}
    assert history.append(make_events(items["item"], one, **facts)) == 6
    assert history.append(make_events(items["item"], one, **facts)) == 0  # the same file again
    done = migrate(history, merge_labels(taxonomy, ["mlops"], "other"))
    assert done.events.height == 6 and history.current()["labels"].to_list() == [["other"]] * 6
    assert json.loads(done.findings["evidence"][0]) == {}
    assert history.export(0)[0]["labels"].to_list() == [["mlops"]] * 6
