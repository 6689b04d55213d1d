"A real PostgreSQL: types, batches, incremental loads, and errors that keep the password to themselves."

import sqlite3
import traceback
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import adbc_driver_postgresql.dbapi as adbc
import polars as pl
import pytest

from mlworkbench.core.errors import DataError, WorkbenchError
from mlworkbench.core.store import Store
from mlworkbench.data.sources import load, load_new, read_sql

pytestmark = pytest.mark.postgres


@pytest.fixture
def run(postgres_url):
    "Run statements, each in its own transaction."

    def execute(*statements):
        with closing(adbc.connect(postgres_url, autocommit=True)) as connection:
            for statement in statements:
                with closing(connection.cursor()) as cursor:
                    cursor.execute(statement)

    return execute


def test_types(postgres_url, monkeypatch):
    monkeypatch.setenv("PG", postgres_url)
    query = """SELECT 1::int2 AS small, 2::bigint AS big, 1.50::numeric(10, 2) AS price,
        1::numeric / 4 AS share, timestamptz '2024-07-01 10:00+02' AS at,
        timestamp '2024-07-01 10:00' AS local, date '2024-07-01' AS day, 'x' AS word,
        true AS yes, '{"a": 1}'::jsonb AS doc,
        ARRAY[1, 2] AS list, NULL::float8 AS nothing,
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS id"""
    frame = pl.concat(read_sql("env:PG", query))
    assert frame.row(0, named=True) == {
        "small": 1, "big": 2, "price": Decimal("1.50"), "share": 0.25,
        "at": datetime(2024, 7, 1, 8, tzinfo=UTC), "local": datetime(2024, 7, 1, 10), "day": date(2024, 7, 1),
        "word": "x", "yes": True, "doc": '{"a": 1}', "list": [1, 2], "nothing": None,
        "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    }  # fmt: skip
    assert frame.schema["price"] == pl.Decimal(10, 2) and frame.schema["nothing"] == pl.Float64


def test_batches_and_an_empty_answer(postgres_url):
    rows = read_sql(
        postgres_url, "SELECT i, repeat('x', 90) AS s FROM generate_series(1, 100000) AS i", 10_000
    )
    heights = [frame.height for frame in rows]
    assert sum(heights) == 100_000 and max(heights) <= 12_000
    empty = pl.concat(read_sql(postgres_url, "SELECT 1::int8 AS i, 'a' AS s WHERE false"))
    assert empty.schema == {"i": pl.Int64, "s": pl.String} and empty.height == 0
    next(iter(rows))  # leaving early closes the connection without a complaint


def test_incremental(postgres_url, run, tmp_path):
    run(
        "DROP TABLE IF EXISTS sales",
        "CREATE TABLE sales (id int PRIMARY KEY, paid float8, changed timestamptz)",
        "INSERT INTO sales SELECT i, i, timestamptz '2024-03-31 00:00Z' + i * interval '1 minute' "
        "FROM generate_series(1, 500) AS i",
    )
    store, sales = Store(tmp_path), read_sql(postgres_url, "sales")
    how = {"watermark": "changed", "keys": ["id"], "overlap": timedelta(minutes=10)}
    first = load_new(store, "sales", sales, **how)
    assert first.rows == 500 and first.mark == datetime(2024, 3, 31, 8, 20, tzinfo=UTC)
    assert load_new(store, "sales", sales, **how).rows == 0 and store.version("sales") == 0
    run(
        "UPDATE sales SET paid = -1, changed = '2024-03-31 09:00Z' WHERE id = 7",
        "INSERT INTO sales VALUES (501, 501, '2024-03-31 08:15Z'), (502, 502, NULL)",  # late; no time
    )
    second = load_new(store, "sales", sales, **how)
    assert second.rows == 3 and second.version == 1
    there = pl.concat(sales).sort("id").with_columns(pl.col("changed").cast(pl.Datetime("us", "UTC")))
    assert store.read("sales").sort("id").collect().equals(there)


def test_a_query_that_fails_half_way_leaves_the_table(postgres_url, tmp_path):
    store = Store(tmp_path)
    load(store, "t", read_sql(postgres_url, "SELECT 1 AS a"))
    with pytest.raises(DataError, match="division by zero"):
        load(
            store,
            "t",
            read_sql(postgres_url, "SELECT 1 / (i - 900000) AS a FROM generate_series(1, 1000000) AS i"),
        )
    assert store.read("t").collect()["a"].to_list() == [1]


def test_a_server_that_goes_away_leaves_the_table(postgres_url, run, tmp_path):
    store = Store(tmp_path)
    load(store, "t", read_sql(postgres_url, "SELECT 1 AS a"))

    def cut():
        rows = iter(read_sql(postgres_url, "SELECT i AS a FROM generate_series(1, 5000000) AS i", 10_000))
        yield next(rows)
        yield next(rows)
        run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND state = 'active'"
        )
        yield from rows

    with pytest.raises(DataError):
        load(store, "t", cut())
    assert store.version("t") == 0


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("SELECT * FROM orderz", "Did you mean 'orders'"),
        ("SELECT payed FROM orders", "Did you mean 'paid'"),
        ("SELECT interval '1 day' AS length", "column 'length' .* Cast it in the query"),
        ("SELECT 1 AS a, 2 AS a", "two columns named 'a'"),
        ("SELECT 'NaN'::numeric(5, 2) AS price", "column 'price'"),
        ("SELEC 1", "syntax error"),
    ],
)
def test_what_the_database_refuses(postgres_url, run, query, hint):
    run("CREATE TABLE IF NOT EXISTS orders (id int, paid float8)")
    with pytest.raises(DataError, match=hint) as caught:
        list(read_sql(postgres_url, query))
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "change",
    [
        ("p%40ss", "p@ss"),
        ("p%40ss", "p ss"),
        ("tester:", "nobody:"),
        ("/postgres", "/nothing"),
        ("127.0.0.1:", "127.0.0.1:1"),
    ],
)
def test_no_password_in_errors_notes_or_records(postgres_url, change, tmp_path, monkeypatch):
    url = postgres_url.replace(*change)
    monkeypatch.setenv("SALES_DB", url)
    for source in (read_sql(url, "SELECT 1 AS a"), read_sql("env:SALES_DB", "SELECT 1 AS a")):
        assert "sesame" not in repr(source)
        with pytest.raises(WorkbenchError) as caught:
            load(Store(tmp_path), "t", source)
        assert "sesame" not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__cause__ is None


def test_nothing_secret_is_kept_with_the_table(postgres_url, tmp_path):
    load_new(Store(tmp_path), "t", read_sql(postgres_url, "SELECT 1 AS a"), watermark="a")
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept and not any(b"sesame" in content for content in kept)


def test_connectorx_serves_the_others(postgres_url, tmp_path, monkeypatch):
    from mlworkbench.data import sql

    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("CREATE TABLE t (id INTEGER, s TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"s{n}") for n in range(1000)])
    rows = read_sql(f"sqlite://{tmp_path}/a.db", "t", batch_rows=300)
    expected = pl.concat(rows)
    monkeypatch.setattr(
        sql, "_driver", lambda url: sql._connectorx
    )  # no MySQL here: the same way, to a database we have
    frames = list(rows)
    assert max(frame.height for frame in frames) <= 300 and pl.concat(frames).equals(expected)
    times = pl.concat(
        read_sql(postgres_url, "SELECT timestamptz '2024-07-01 10:00+02' AS at, 1.5::numeric AS n")
    )
    assert times["at"][0] == datetime(2024, 7, 1, 8, tzinfo=UTC)
    with pytest.raises(DataError, match="no such table"):
        list(read_sql(f"sqlite://{tmp_path}/a.db", "SELECT * FROM u"))


def test_an_unknown_database_is_an_error():
    with pytest.raises(DataError, match="not supported"):
        list(read_sql("foo://user:hush-hush@127.0.0.1/x", "SELECT 1"))
