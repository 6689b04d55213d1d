"Loads: whole or not at all, also when killed; streams that go on where the table ends; flat memory."

import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import ConfigError, DataError, StoreError
from mlworkbench.core.project import Project, Step, publish_work
from mlworkbench.core.store import Store
from mlworkbench.data.sources import load, load_new, load_stream, read_csv, read_jsonl, read_mark, read_sql

SALES = """CREATE TABLE sales (id INTEGER, amount REAL, customer TEXT, at TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
INSERT INTO sales SELECT i, CASE WHEN i % 10 THEN i / 7.0 END, 'customer ' || (i * 7919 % 100003),
datetime('2024-01-01', i || ' seconds') FROM n"""


def make_sales(folder, rows):
    with closing(sqlite3.connect(folder / "sales.db")) as database, database:
        database.executescript(SALES.format(rows=rows))
    return f"sqlite:///{folder}/sales.db"


LOAD = """
import resource, sys
from mlworkbench.core.store import Store
from mlworkbench.data.sources import load, read_sql
print("ready", flush=True)
load(Store(sys.argv[2]), "sales", read_sql(sys.argv[1], "sales"), evolve=True)
try:  # Linux keeps the parent's peak in ru_maxrss
    status = open("/proc/self/status").read()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1e3)
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def test_a_million_rows_in_250_mb(tmp_path):
    url = make_sales(tmp_path, 1_000_000)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, url, str(tmp_path / "store")],
        env=os.environ | {"POLARS_MAX_THREADS": "2"},  # each thread keeps its own buffers: the bound is for two cores
        capture_output=True,
        text=True,
        check=True,
    )
    sums = pl.col("id", "amount").sum().round(2)
    with closing(sqlite3.connect(tmp_path / "sales.db")) as database:
        expected = database.execute("SELECT sum(id), round(sum(amount), 2) FROM sales").fetchone()
    assert Store(tmp_path / "store").read("sales").select(sums).collect().row(0) == expected
    assert float(done.stdout.split()[-1]) <= 250


def test_a_load_killed_at_any_moment_leaves_the_old_or_the_new_version(tmp_path):
    url = make_sales(tmp_path, 200_000)
    store = Store(tmp_path / "store")
    store.write("sales", pl.DataFrame({"id": [0]}))
    for wait in (0.05, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3):
        before = store.version("sales")
        process = subprocess.Popen(
            [sys.executable, "-c", LOAD, url, str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows = store.read("sales").select(pl.len()).collect().item()
        assert store.version("sales") in (before, before + 1)
        assert rows == (1 if store.version("sales") == 0 else 200_000)


def test_a_source_that_breaks_off_changes_nothing(tmp_path):
    store = Store(tmp_path)
    store.write("t", pl.DataFrame({"a": [1]}))

    def source(mark=None):
        yield pl.DataFrame({"a": [2]})
        raise ConnectionError("gone")

    for broken in (lambda: load(store, "t", source()), lambda: load_new(store, "t", source, watermark="a")):
        with pytest.raises(ConnectionError):
            broken()
    assert store.version("t") == 0 and store.read("t").collect()["a"].to_list() == [1]


def test_files_end_to_end(tmp_path):
    (tmp_path / "a.csv").write_text("id,at,x\n1,2024-01-01,\nx,2024-01-02,\n3,2024-02-30,\n")
    store = Store(tmp_path / "store")
    schema = {"id": pl.Int64, "at": pl.Date}
    for version in range(2):  # a second load of the same file replaces both tables
        done = load(store, "t", read_csv(tmp_path / "a.csv", schema), quarantine="bad")
        assert (done.version, done.rows, done.rejected) == (version, 1, 2)
    assert store.read("bad").collect().select("line", "column").rows() == [(3, "id"), (4, "at")]
    assert store.read("t").collect().rows() == [(1, date(2024, 1, 1), None)]
    (tmp_path / "b.csv").write_text("id,at,x\nx,2024-01-01,\n")
    with pytest.raises(DataError, match=r"gave no rows, 1 were rejected, the first: .*'x' is not") as caught:
        load(store, "t", read_csv(tmp_path / "b.csv", schema), quarantine="bad")
    assert caught.value.rejected["file"][0].endswith("b.csv")
    (tmp_path / "c.csv").write_text("id,at,x\nx,2024-01-01,\n7,2024-01-01,\n7,2024-01-01,\n")
    with pytest.raises(DataError, match="more than once"):
        load(store, "t", read_csv(tmp_path / "c.csv", schema), keys="id", quarantine="bad")
    # the quarantine that is left belongs to the rows that are left
    assert store.version("t") == 1 and store.read("bad").collect()["file"][0].endswith("a.csv")


def test_a_column_that_is_empty_this_time_keeps_its_type(tmp_path):
    store = Store(tmp_path / "store")
    load(store, "t", pl.DataFrame({"a": [1], "x": [0.5]}))
    (tmp_path / "a.csv").write_text("a,x\n1,\n2,\n")
    done = load(store, "t", read_csv(tmp_path / "a.csv"))
    assert store.read("t").collect_schema()["x"] == pl.Float64
    assert done.findings.select("check", "subject", "severity").rows() == [("all_null", "t.x", "warn")]
    (tmp_path / "a.jsonl").write_text('{"a": 1, "x": 2}\n')  # JSON writes 2.0 as 2
    load(store, "t", read_jsonl(tmp_path / "a.jsonl"))
    assert store.read("t").collect().rows() == [(1, 2.0)]


def test_time_zones_do_not_mix(tmp_path):
    store = Store(tmp_path / "store")
    load(store, "t", pl.DataFrame({"at": [datetime(2024, 1, 1, tzinfo=UTC)]}))
    with pytest.raises(StoreError, match="'at'"):
        load(store, "t", pl.DataFrame({"at": [datetime(2024, 1, 1)]}))
    with pytest.raises(DataError, match=r"'at' is Datetime\[us\], then Datetime\[us, UTC\]"):
        load(store, "t", [pl.DataFrame({"at": [datetime(2024, 1, 1, tzinfo=tz)]}) for tz in (None, UTC)])


@pytest.mark.parametrize("bad", [7, "rows", {"a": 1}, None])
def test_what_is_no_source(tmp_path, bad):
    with pytest.raises(DataError, match=r"read_csv, read_sql"):
        load(Store(tmp_path), "t", bad)
    with pytest.raises(DataError, match="cannot be asked for new rows"):
        load_new(Store(tmp_path), "t", bad, watermark="a")


CHANGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 999), st.integers(0, 3)), max_size=8)


@given(st.lists(CHANGES, min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_incremental_loads_end_where_a_full_load_would(tmp_path_factory, rounds):
    "Rows change or appear, some with a time up to three ticks late; the overlap is three."
    store, there, now = Store(tmp_path_factory.mktemp("store")), {0: (0, 0)}, 0
    for changes in [[], *rounds]:
        for key, value, late in changes:
            now += 1
            there[key] = (value, max(now - late, 0))
        rows = [(key, value, changed) for key, (value, changed) in there.items()]
        source = pl.DataFrame(
            rows, schema={"id": pl.Int64, "value": pl.Int64, "changed": pl.Int64}, orient="row"
        )
        load_new(store, "t", source, watermark="changed", keys=["id"], overlap=3)
        assert store.read("t").sort("id").collect().equals(source.sort("id"))


def test_watermarks(tmp_path):
    store = Store(tmp_path)
    rows = pl.DataFrame({"id": [1, 2], "day": [date(2024, 1, 1), date(2024, 1, 2)], "x": [0.5, 1.5]})
    assert load_new(store, "days", rows, watermark="day").mark == date(2024, 1, 2)
    more = pl.DataFrame({"id": [3], "day": [date(2024, 1, 3)], "x": [2.5]})
    appended = load_new(store, "days", pl.concat([rows, more]).lazy(), watermark="day")
    assert appended.rows == 1 and store.read("days").collect()["id"].sort().to_list() == [1, 2, 3]
    assert read_mark(store, "days", "day") == date(2024, 1, 3)
    with pytest.raises(DataError, match="a column of whole numbers, times or text"):
        load_new(store, "other", rows, watermark="x")
    with pytest.raises(DataError, match="Did you mean 'day'"):
        load_new(store, "other", rows, watermark="days")
    with pytest.raises(DataError, match="1 rows for table 'days' have no 'day'"):
        load_new(store, "days", more.with_columns(day=pl.lit(None, pl.Date)), watermark="day")
    with pytest.raises(DataError, match="one type"):
        load_new(store, "days", lambda mark: more.with_columns(day=pl.lit("2025")), watermark="day")
    with pytest.raises(ConfigError, match="cannot be taken"):
        load_new(store, "words", pl.DataFrame({"id": [1], "w": ["a"]}), watermark="w", keys=["id"])
        load_new(store, "words", pl.DataFrame({"id": [1], "w": ["a"]}), "w", ["id"], timedelta(1))
    load(store, "days", rows)  # a full load forgets the mark, so that nothing is appended to it twice
    assert read_mark(store, "days", "day") is None


def test_a_name_alone_is_one_key(tmp_path):
    store, rows = Store(tmp_path), pl.DataFrame({"id": [1, 2], "i": [0, 0], "d": [0, 0]})
    load(store, "a", rows, keys="id")
    load_new(store, "b", rows, watermark="id", keys="id")
    load_stream(store, "c", lambda offset: [(rows, 1)], keys="id")
    assert load_new(store, "b", rows.with_columns(i=1), watermark="id", keys="id").rows == 1
    assert [store.read(table).collect().height for table in "abc"] == [2, 2, 2]
    with pytest.raises(ConfigError, match="commit_rows=0"):
        load_stream(store, "c", lambda offset: [], commit_rows=0)


def test_a_watermark_that_is_gone_or_of_another_kind(tmp_path):
    url, store = make_sales(tmp_path, 10), Store(tmp_path / "store")
    rows = pl.DataFrame({"id": [1, 2], "at": [datetime(2024, 1, 1), datetime(2024, 1, 2)]})
    for keys in ([], "id"):
        table = f"t{len(keys)}"
        load_new(store, table, rows, "at", keys)
        for gone in (rows.rename({"at": "att"}), rows.lazy().rename({"at": "att"})):
            with pytest.raises(DataError, match=r"no column 'at'.*Did you mean 'att'"):
                load_new(store, table, gone, "at", keys)
        zoned, text = pl.col("at").dt.replace_time_zone("UTC"), pl.col("at").cast(pl.String)
        for other in (zoned, text, pl.col("id").alias("at"), pl.col("at").cast(pl.Date)):
            for source in (rows.with_columns(other), lambda mark, other=other: rows.with_columns(other)):
                with pytest.raises(DataError, match="one type"):
                    load_new(store, table, source, "at", keys)
        for nothing in (rows.with_columns(at=None), rows.with_columns(at=pl.lit(None, pl.Int64))):
            with pytest.raises(DataError, match="every value of 'at' for table 'new' is missing"):
                load_new(store, "new", nothing, "at", keys)
    load_new(store, "sales", read_sql(url, "sales"), "at")
    with pytest.raises(DataError, match=r"no (such )?column"):
        load_new(store, "sales", read_sql(url, "SELECT id, at AS time FROM sales"), "at")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", None])
def test_times_of_any_zone_and_unit_are_loaded_once(tmp_path, unit, zone):
    hours = [datetime(2024, 10, 27, hour) for hour in range(4)]  # when clocks go back
    rows = pl.DataFrame({"id": range(4), "at": hours}).with_columns(pl.col("at").dt.replace_time_zone("UTC"))
    dtype = pl.Datetime(unit, zone)
    rows = rows.with_columns(pl.col("at").cast(dtype))
    store = Store(tmp_path)
    for keys in ([], "id"):
        new = rows.tail(1).with_columns(id=pl.lit(9, pl.Int64), at=(pl.col("at") + timedelta(1)).cast(dtype))
        table, more = f"t{len(keys)}", rows.vstack(new)
        assert load_new(store, table, rows, "at", keys).rows == 4
        assert load_new(store, table, rows, "at", keys).rows == 0 and store.version(table) == 0
        done = load_new(store, table, more.lazy(), "at", keys)
        assert done.rows == 1 and done.findings.is_empty()
        stored = store.read(table).select("id", pl.col("at").cast(dtype)).sort("id").collect()
        assert stored.equals(more)


def test_late_rows_at_the_mark_are_counted(tmp_path):
    store, url = Store(tmp_path / "store"), make_sales(tmp_path, 10)
    day = pl.DataFrame({"id": [1, 2, 3], "day": [1, 2, 2]})
    late = day.vstack(pl.DataFrame({"id": [4, 5], "day": [2, 2]}))
    load_new(store, "t", day, "day")
    assert load_new(store, "t", day, "day").findings.is_empty()
    done = load_new(store, "t", late.vstack(pl.DataFrame({"id": [6], "day": [3]})), "day")
    assert done.rows == 1 and done.findings.select("check", "severity", "value").rows() == [
        ("late_rows", "warn", 2)
    ]
    assert "2 rows came late, at the mark 2 of 'day'" in done.findings["message"][0]
    load_new(store, "sales", read_sql(url, "sales"), "at")
    with closing(sqlite3.connect(tmp_path / "sales.db")) as database, database:
        database.execute("INSERT INTO sales SELECT 11, amount, customer, at FROM sales WHERE id = 10")
    done = load_new(store, "sales", read_sql(url, "sales"), "at")
    assert (done.rows, done.findings["value"].to_list()) == (0, [1]) and store.version("sales") == 0


def test_several_rows_of_a_key_in_one_load(tmp_path):
    store = Store(tmp_path)
    rows = pl.DataFrame({"id": [1, 1, 2], "at": [5, 4, 1], "v": ["new", "old", "x"]})
    done = load_new(store, "t", rows, watermark="at", keys=["id"])
    assert store.read("t").sort("id").collect()["v"].to_list() == ["new", "x"]
    assert done.findings["check"].to_list() == ["duplicate_keys"]
    with pytest.raises(DataError, match="null in the key column 'id'"):
        load_new(store, "u", pl.DataFrame({"id": [None, 1], "at": [1, 2]}), watermark="at", keys=["id"])
    with pytest.raises(DataError, match="no key column 'ids'"):
        load_new(store, "u", rows, watermark="at", keys=["ids"])


STREAM = """
import sys, time
from mlworkbench.core.store import Store
from mlworkbench.data.sources import load_stream
def numbers(offset):
    for number in range(offset or 0, 400):
        time.sleep(0.0005)
        yield [{"n": number}], number + 1
print("ready", flush=True)
load_stream(Store(sys.argv[1]), "numbers", numbers, commit_rows=20)
"""


def test_a_stream_killed_again_and_again_loses_nothing_and_doubles_nothing(tmp_path):
    store = Store(tmp_path)
    for wait in (0.15, 0.3, 0.5, 0.7, None):
        process = subprocess.Popen([sys.executable, "-c", STREAM, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        if wait:
            time.sleep(wait)
            process.kill()
        process.communicate(timeout=60)
        if store.exists("numbers"):
            there = store.read("numbers").sort("n").collect()["n"].to_list()
            assert there == list(range(int(store.metadata("numbers")["offset"])))
    assert there == list(range(400))


def test_streams_commit_after_some_seconds_and_update_by_key(tmp_path):
    store = Store(tmp_path)

    def slow(offset):
        assert offset is None
        yield pl.DataFrame({"id": [1], "v": [1]}), {"partition": 0, "at": 1}
        time.sleep(0.2)
        yield [], {"partition": 0, "at": 2}  # a tick without rows lets the waiting ones be committed
        assert store.metadata("t") == {"offset": '{"partition": 0, "at": 2}'}
        yield [{"id": 1, "v": 2}, {"id": 1, "v": 3}, {"id": 2, "v": 4}], {"partition": 0, "at": 3}

    done = load_stream(store, "t", slow, keys=["id"], commit_s=0.1)
    assert store.read("t").sort("id").collect().rows() == [(1, 3), (2, 4)]
    assert done.mark == {"partition": 0, "at": 3} and done.version == 1


def test_a_step_is_a_target_too(tmp_path):
    (tmp_path / "workbench.toml").write_text(
        '[project]\nname = "p"\n[[step]]\nnotebook = "notebooks/10_ingest.ipynb"\nwrites = ["sales"]\n'
    )
    project = Project(tmp_path)
    sales = read_sql(make_sales(tmp_path, 100), "sales")
    how = {"watermark": "at", "keys": ["id"], "overlap": timedelta(seconds=5)}
    for number, rows in enumerate([100, 1]):
        work, pins = tmp_path / f"work{number}", {"sales": 0} if number else {}
        context = {"project": str(tmp_path), "run": "r", "step": "10_ingest", "pins": pins, "work": str(work)}
        step = Step.under_runner(context)
        assert load_new(step, "sales", sales, **how).rows == rows
        assert number or not project.store.exists("sales")  # nothing is seen before the step has succeeded
        assert publish_work(project, work, "r") == {"sales": number}
        with closing(sqlite3.connect(tmp_path / "sales.db")) as database, database:
            database.execute("INSERT INTO sales VALUES (101, 1.5, 'late', '2024-01-01 00:01:38')")
    assert project.store.read("sales").collect().height == 101
    with pytest.raises(ConfigError, match="may not write 'bad'"):
        (tmp_path / "a.csv").write_text("id\nx\n1\n")
        load(step, "sales", read_csv(tmp_path / "a.csv", {"id": pl.Int64}), quarantine="bad", evolve=True)


PROGRESS = """
import time, polars as pl
from mlworkbench.core.store import Store
from mlworkbench.data import sources
def slow():
    for _ in range(26):
        yield pl.DataFrame({"a": [1] * 1000})
        time.sleep(0.1)
sources.load(Store(__import__("sys").argv[1]), "t", slow())
"""


def test_progress_is_shown_in_a_terminal_only(tmp_path):
    command = [sys.executable, "-c", PROGRESS, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
        assert process.wait() == 0
    os.close(ours)
    assert b"loading t" in shown and b",000 rows" in shown
