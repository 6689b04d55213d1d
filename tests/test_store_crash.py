"""A store survives what happens to the processes that write it: kills, races, full disks."""

import os
import random
import resource
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from mlworkbench.core.errors import StoreError
from mlworkbench.core.store import Store

# Each version holds whole batches only: a torn one would have another number of rows, or mixed numbers.
WRITE = """
import sys
import polars as pl
from mlworkbench.core.store import Store
store, mode = Store(sys.argv[1]), sys.argv[2]
number = store.version("numbers")
print("ready", flush=True)
while True:
    number += 1
    rows = pl.DataFrame({"id": range(20_000), "number": [number] * 20_000})
    store.write("numbers", rows, mode=mode, keys=["id"] if mode == "merge" else ())
"""

APPEND = """
import sys
import polars as pl
from mlworkbench.core.store import Store
store = Store(sys.argv[1])
for number in range(30):
    store.write("events", pl.DataFrame({"writer": [int(sys.argv[2])], "number": [number]}), mode="append")
"""


@pytest.mark.parametrize("mode", ["overwrite", "append", "merge"])
def test_a_killed_writer_leaves_the_last_version_readable(tmp_path, mode):
    store = Store(tmp_path)
    store.write("numbers", pl.DataFrame({"id": range(20_000), "number": [0] * 20_000}))
    chance = random.Random(7)
    seen = [0]
    for _ in range(15):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path), mode], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.0, 0.4))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        batches = store.read("numbers").group_by("number").len().sort("number").collect()
        assert batches["len"].unique().to_list() == [20_000]
        assert batches["number"].max() == store.version("numbers") >= seen[-1]
        assert batches.height == (store.version("numbers") + 1 if mode == "append" else 1)
        seen.append(batches["number"].max())
    assert seen[-1] > 0  # it did write in between
    assert store.profile("numbers")["rows"] == store.read("numbers").select(pl.len()).collect().item()


def test_vacuum_sweeps_up_what_a_killed_writer_left(tmp_path):
    store = Store(tmp_path)
    store.write("numbers", pl.DataFrame({"number": [1]}))
    left = tmp_path / "numbers/staged-of-a-killed-writer.parquet"
    at_work = tmp_path / "numbers/staged-of-one-at-work.parquet"
    for path in (left, at_work):
        path.write_bytes(b"rows")
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    store.vacuum("numbers", retention_days=0, dry_run=False)
    assert not left.exists() and at_work.exists()
    assert store.read("numbers").collect()["number"].to_list() == [1]


def test_two_processes_appending_at_once_lose_nothing(tmp_path):
    command = [sys.executable, "-c", APPEND, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(number)]) for number in range(2)
    ]  # both also race to create it
    assert [writer.wait(120) for writer in writers] == [0, 0]
    store = Store(tmp_path)
    assert store.read("events").collect().unique().height == 60
    assert store.version("events") == 59 and store.profile("events")["rows"] == 60


def _with_little_room(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = Store(folder)
    try:
        store.write(
            "numbers", pl.DataFrame({"number": range(1_000_000)}).sample(fraction=1.0, shuffle=True, seed=1)
        )
    except StoreError as error:
        print(error)
        os._exit(7)


def test_a_full_disk_is_called_so_and_nothing_is_lost(tmp_path):
    store = Store(tmp_path)
    store.write("numbers", pl.DataFrame({"number": [1]}))
    code = f"import test_store_crash as t; t._with_little_room({str(tmp_path)!r})"
    here = os.path.dirname(__file__)
    writer = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert (writer.returncode, "table 'numbers': the disk is full" in writer.stdout) == (7, True), writer
    assert "last version is untouched" in writer.stdout
    assert store.read("numbers").collect()["number"].to_list() == [1]
    assert not list(tmp_path.rglob("*.partial"))


MERGE = """
import sys
import polars as pl
from mlworkbench.core.store import Store
store = Store(sys.argv[1])
for number in range(15):
    store.write("merged", pl.DataFrame({"id": [100 * int(sys.argv[2]) + number]}), mode="merge", keys="id")
    store.tag(f"t{sys.argv[2]}", f"v{number}", version=0)
"""


def test_two_processes_merging_and_tagging_at_once_lose_nothing(tmp_path):
    store = Store(tmp_path)
    for table in ("t0", "t1"):
        store.write(table, pl.DataFrame({"a": [1]}))
    writers = [subprocess.Popen([sys.executable, "-c", MERGE, str(tmp_path), str(n)]) for n in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert store.read("merged").collect().unique().height == 30
    assert len(store.tags("t0")) == len(store.tags("t1")) == 15


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_types_do_not_change_behind_ones_back(tmp_path, mode):
    store = Store(tmp_path)
    store.write("delays", pl.DataFrame({"delay": [1]}))
    with pytest.raises(StoreError, match="column 'delay' is String, stored as Int64"):
        store.write("delays", pl.DataFrame({"delay": ["12"]}), mode=mode)
    if mode == "overwrite":
        store.write("delays", pl.DataFrame({"delay": ["12"]}), mode=mode, evolve=True)
        assert store.read("delays", version=0).collect()["delay"].to_list() == [1]
    else:
        store.write("delays", pl.DataFrame({"delay": [2], "gate": ["A1"]}), mode=mode, evolve=True)
        assert store.read("delays").sort("delay").collect().rows() == [(1, None), (2, "A1")]


@pytest.mark.parametrize("name", ["with spaces", "{braces} & ümläute", "[1-9]*"])
def test_folders_with_special_characters(tmp_path, name):
    store = Store(tmp_path / name)
    rows = pl.DataFrame({"id": [1, 2], "delay": [5.0, None]})
    store.write("delays", rows)
    store.write("delays", rows.with_columns(pl.col("id") + 1, gate=pl.lit("A")), "merge", ["id"], evolve=True)
    assert store.read("delays").sort("id").collect().rows() == [(1, 5.0, None), (2, 5.0, "A"), (3, None, "A")]
    assert store.read("delays", version=0).collect().equals(rows)
    store.tag("delays", "first", version=0)
    assert store.tags("delays") == {"first": 0} and store.profile("delays")["rows"] == 3
    store.write("delays", rows.clear(), evolve=True)
    assert store.read("delays").collect().equals(rows.clear())


def test_an_interrupt_right_after_the_commit_leaves_the_new_version(tmp_path, monkeypatch):
    from mlworkbench.core import store as module

    store = Store(tmp_path)
    add_file = module._add_file

    def interrupted(*arguments):
        add_file(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_add_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write("delays", pl.DataFrame({"id": [1]}))
    assert store.read("delays").collect()["id"].to_list() == [1]
