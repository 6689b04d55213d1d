"""The store on an S3-like server: the same promises as in a folder."""

import os
import subprocess
import sys

import polars as pl
import pytest
from conftest import s3_server

from mlworkbench.core.errors import StoreError
from mlworkbench.core.staging import take_back_run
from mlworkbench.core.store import Store

APPEND = """
import json, sys
import polars as pl
from mlworkbench.core.store import Store
store = Store(sys.argv[1], json.loads(sys.argv[2]))
for number in range(10):
    store.write("events", pl.DataFrame({"writer": [int(sys.argv[3])], "number": [number]}), mode="append")
"""


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as server:
        yield {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "env:MLW_TEST_S3_SECRET",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


@pytest.fixture
def store(bucket, monkeypatch, request):
    monkeypatch.setenv("MLW_TEST_S3_SECRET", "test")
    return Store(f"s3://bench/{request.node.name}", bucket)


def test_write_read_back_and_look_back(store):
    first = pl.DataFrame({"id": [2, 1], "delay": [5.0, None]})
    assert store.write("delays", first, note="first") == 0
    assert store.write("delays", first.with_columns(id=pl.col("id") + 1), mode="merge", keys=["id"]) == 1
    store.tag("delays", "first", version=0)
    assert store.read("delays", tag="first").collect().equals(first)
    assert store.diff("delays", 0, keys=["id"]).counts() == {"added": 1, "removed": 0, "changed": 1}
    assert store.tables() == ["delays"]
    assert store.history("delays")["note"].to_list() == ["", "first"]


def test_a_wrong_name_gets_the_nearest(store):
    store.write("delays", pl.DataFrame({"id": [1]}))
    with pytest.raises(StoreError, match="Did you mean 'delays'"):
        store.read("dleays")


def test_two_writers_lose_nothing(store, bucket):
    import json

    arguments = [store.root, json.dumps(bucket)]
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, *arguments, str(number)], env=os.environ.copy())
        for number in range(2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert store.read("events").collect().unique().height == 20


def test_vacuum_keeps_what_is_tagged(store):
    for number in range(3):
        store.write("delays", pl.DataFrame({"id": [number]}))
    store.tag("delays", "kept", version=0)
    assert store.vacuum("delays", retention_days=0, dry_run=False).height == 1
    assert store.read("delays", tag="kept").collect()["id"].to_list() == [0]


def test_secrets_are_not_shown(store):
    assert "test" not in repr(store).replace(store.root, "")


def test_what_a_run_has_published_is_taken_back(store):
    rows = pl.DataFrame({"id": [1, 2]})
    store.write("delays", rows)
    store.tag("delays", "reviewed")
    store.write("delays", rows, mode="append", run="r1")
    store.tag("delays", "reviewed")
    store.write("fresh", rows, run="r1")
    store.tag("fresh", "new")
    assert take_back_run(store, "r1", {"delays": 0, "fresh": None}) == (["delays", "fresh"], {})
    assert store.read("delays").collect().height == 2 and store.tags("delays") == {"reviewed": 0}
    assert not store.exists("fresh") and store.tags("fresh") == {} and "fresh" not in store.tables()
    assert store.write("fresh", rows) == 0
