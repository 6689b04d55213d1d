"Ingestion: seconds and peak memory of loads into a table, each in a new process, beside bare libraries."

import argparse
import csv
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from measure import peak


def make_rows(rows):
    "Rows like those of a shop: id, amount with gaps, word, time as text."
    start = datetime(2024, 1, 1)
    for number in range(rows):
        amount = None if number % 10 == 0 else number % 9_973 / 100
        at = (start + timedelta(seconds=number)).isoformat(" ")
        yield number, amount, f"customer {number * 7_919 % 100_003}", number % 24, at


def make_sources(folder: Path, rows: int):
    names = ["id", "amount", "customer", "hour", "at"]
    with closing(sqlite3.connect(folder / "rows.db")) as database, database:
        database.execute("CREATE TABLE rows (id INTEGER, amount REAL, customer TEXT, hour INTEGER, at TEXT)")
        database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", make_rows(rows))
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(make_rows(rows))
    with (folder / "rows.jsonl").open("w") as file:
        for row in make_rows(rows):
            file.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")


def measure(what, folder):
    "Load one source; print rows, a sum to compare, seconds and peak memory in MB."
    import time

    folder = Path(folder)
    started = time.perf_counter()
    lazy = LOADS[what](folder, folder / f"store-{what.replace(' ', '-')}")
    seconds = time.perf_counter() - started
    peak_mb = peak()
    import polars as pl

    sums = lazy.select(pl.len(), pl.col("id", "amount").sum().round(2).name.suffix("_sum")).collect().row(0)
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "answer": sums}))


def ours(read):
    def run(folder, store):
        from mlworkbench.core.store import Store
        from mlworkbench.data.sources import load

        load(Store(store), "rows", read(folder))
        return Store(store).read("rows")

    return run


def read_sqlite(folder):
    from mlworkbench.data.sources import read_sql

    return read_sql(f"sqlite:///{folder}/rows.db", "rows")


def read_csv_typed(folder):
    import polars as pl

    from mlworkbench.data.sources import read_csv

    schema = {
        "id": pl.Int64,
        "amount": pl.Float64,
        "customer": pl.String,
        "hour": pl.Int64,
        "at": pl.Datetime("us"),
    }
    return read_csv(folder / "rows.csv", schema)


def read_csv_inferred(folder):
    from mlworkbench.data.sources import read_csv

    return read_csv(folder / "rows.csv")


def read_json_lines(folder):
    from mlworkbench.data.sources import read_jsonl

    return read_jsonl(folder / "rows.jsonl")


def bare_sqlite(folder, store):
    import polars as pl

    frame = pl.read_database(
        "SELECT * FROM rows", sqlite3.connect(folder / "rows.db"), infer_schema_length=None
    )
    frame.write_delta(store)
    return pl.scan_delta(str(store))


def bare_csv(folder, store):
    import polars as pl

    pl.read_csv(folder / "rows.csv", try_parse_dates=True).write_delta(store)
    return pl.scan_delta(str(store))


def duckdb_csv(folder, store):
    import duckdb
    from deltalake import write_deltalake

    query = "SELECT * FROM read_csv(?, store_rejects = true)"
    write_deltalake(store, duckdb.execute(query, [str(folder / "rows.csv")]).to_arrow_reader(100_000))
    import polars as pl

    return pl.scan_delta(str(store))


def bare_json_lines(folder, store):
    import polars as pl

    pl.read_ndjson(folder / "rows.jsonl").write_delta(store)
    return pl.scan_delta(str(store))


LOADS = {
    "SQLite": ours(read_sqlite), "SQLite, bare polars": bare_sqlite,
    "CSV, types given": ours(read_csv_typed), "CSV, types inferred": ours(read_csv_inferred),
    "CSV, bare polars": bare_csv, "CSV, bare duckdb": duckdb_csv,
    "JSON lines": ours(read_json_lines), "JSON lines, bare polars": bare_json_lines,
}  # fmt: skip


def main(rows=1_000_000, repeats=3):
    with tempfile.TemporaryDirectory() as folder:
        make_sources(Path(folder), rows)
        results = {what: [] for what in LOADS}
        for _ in range(repeats):
            for what in LOADS:
                for store in Path(folder).glob("store-*"):
                    subprocess.run(["rm", "-rf", str(store)], check=True)
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", what, folder], capture_output=True, text=True
                )
                if done.returncode:
                    sys.exit(f"{what}: {done.stderr}")
                results[what].append(json.loads(done.stdout))
        answers = {what: tuple(runs[0]["answer"]) for what, runs in results.items()}
        assert len(set(answers.values())) == 1, answers
        print(f"{rows:,} rows, median of {repeats}\n{'load':28}{'seconds':>10}{'rows/s':>12}{'peak MB':>10}")
        for what, runs in results.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = statistics.median(run["peak_mb"] for run in runs)
            print(f"{what:28}{seconds:10.2f}{rows / seconds:12,.0f}{peak:10.0f}")
        return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    measure(*given.measure) if given.measure else main(given.rows, given.repeats)
