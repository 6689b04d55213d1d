"""Twelve checks on ten columns: the workbench against a hand-written query, dataframely, pandera, pointblank.

Run `python bench_checks.py [rows] [repeats]`; each contender is a process of its own and reads the same file.
"""

import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from measure import peak

CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "9E", "VX"]
ORIGINS = ["JFK", "LGA", "EWR"]
FIRST, LAST = datetime(2013, 1, 1), datetime(2013, 12, 31, 23, 59, 59)
TAIL = r"^N\d{3}[A-Z0-9]{2}$"
BATCH = 500_000


def write_rows(path: Path, rows: int) -> None:
    "Ten columns of flights, the same on every machine; a known few rows break each rule."
    import pyarrow.parquet as parquet

    rng, writer = np.random.default_rng(11), None
    for start in range(0, rows, BATCH):
        table = _batch(rng, start, min(BATCH, rows - start)).to_arrow()
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def _batch(rng, start, n):
    departure = rng.integers(0, 86_400, n)
    carrier = pl.Series(CARRIERS).gather(rng.integers(0, 10, n))
    frame = pl.DataFrame(
        {
            "flight_id": np.arange(start, start + n) * 7919 % 1_000_000_007,
            "time": np.datetime64(FIRST, "us") + rng.integers(0, 365 * 86_400, n).astype("timedelta64[s]"),
            "carrier": carrier,
            "origin": pl.Series(ORIGINS).gather(rng.integers(0, 3, n)),
            "tailnum": "N" + pl.Series(rng.integers(100, 1000, n)).cast(pl.String) + carrier,
            "departure": departure,
            "arrival": departure + rng.normal(9000, 3000, n).clip(1200, 40_000).astype(np.int64),
            "distance": rng.gamma(2, 500, n),
            "delay": rng.normal(6, 40, n),
            "passengers": rng.integers(0, 400, n).astype(np.int32),
        }
    )
    i, c = pl.int_range(start, start + n), pl.col
    broken = {
        "distance": (i % 1000 == 7, -1.0),
        "delay": (i % 20 == 3, None),
        "carrier": (i % 5000 == 1, pl.lit("ZZ")),
        "tailnum": (i % 10_000 == 9, pl.lit("bad")),
        "arrival": (i % 2000 == 3, c("departure")),
        "flight_id": (i % 100_000 == 1, c("flight_id").shift(1)),
    }
    return frame.with_columns(
        pl.when(where).then(value).otherwise(c(name)).alias(name) for name, (where, value) in broken.items()
    )


def bare(path):
    c = pl.col
    bad = {
        "id_null": c("flight_id").is_null().sum(),
        "time_null": c("time").is_null().sum(),
        "time_range": (~c("time").is_between(FIRST, LAST)).sum(),
        "carrier": (~c("carrier").is_in(CARRIERS)).sum(),
        "origin": (~c("origin").is_in(ORIGINS)).sum(),
        "tailnum": (~c("tailnum").str.contains(TAIL)).sum(),
        "distance": (~c("distance").is_between(0, 20_000)).sum(),
        "passengers": (~c("passengers").is_between(0, 600)).sum(),
        "later": (~(c("arrival") > c("departure"))).sum(),
        "delay_null": c("delay").is_null().sum(),
        "rows": pl.len(),
        "unique": c("flight_id").n_unique(),  # cheaper than is_duplicated().sum(), but no row is known
    }
    found = pl.scan_parquet(path).select(**bad).collect(engine="streaming").row(0, named=True)
    found["unique"] = 2 * (found["rows"] - found["unique"])  # here each repeated number occurs twice
    return found


def mlworkbench(path):
    from mlworkbench.data.checks import check_frame
    from mlworkbench.data.schema import Column, Schema

    schema = Schema(
        min_rows=1,
        columns={
            "flight_id": Column(nullable=False, unique=True),
            "time": Column(nullable=False, min=FIRST, max=LAST),
            "carrier": Column(values=CARRIERS),
            "origin": Column(values=ORIGINS),
            "tailnum": Column(pattern=TAIL),
            "distance": Column(min=0, max=20_000),
            "passengers": Column(min=0, max=600),
            "delay": Column(max_null_share=0.01),
        },
        rules={"later": "arrival > departure"},
    )
    result = check_frame(pl.scan_parquet(path), schema)
    counts = {"rows": result.rows}
    for row in result.findings.iter_rows(named=True):
        name = row["subject"] if row["check"] != "unique" else "unique"
        name = "delay_null" if row["check"] == "null_share" else name
        counts[name] = json.loads(row["evidence"]).get("rows") or round(row["value"] * result.rows)
    return counts


def dataframely(path, lazy=False):
    import dataframely as dy

    class Flights(dy.Schema):
        flight_id = dy.Int64(primary_key=True)
        time = dy.Datetime(min=FIRST, max=LAST)
        carrier = dy.String(nullable=True, check=lambda c: c.is_in(CARRIERS))
        origin = dy.String(nullable=True, check=lambda c: c.is_in(ORIGINS))
        tailnum = dy.String(nullable=True, regex=TAIL)
        departure = dy.Int64(nullable=True)
        arrival = dy.Int64(nullable=True)
        distance = dy.Float64(nullable=True, min=0, max=20_000)
        delay = dy.Float64(nullable=True)
        passengers = dy.Int32(nullable=True, min=0, max=600)

        @dy.rule()
        def later(cls) -> pl.Expr:
            return pl.col("arrival") > pl.col("departure")

    lf = pl.scan_parquet(path)
    result = Flights.filter(lf if lazy else lf.collect())
    found = {rule.split("|")[0]: n for rule, n in result.failure.counts().items()}
    found["unique"] = found.pop("primary_key")
    more = lf.select(pl.len(), pl.col("delay").null_count()).collect().row(0)  # it has no check of these two
    return found | dict(zip(("rows", "delay_null"), more, strict=True))


def dataframely_lazy(path):
    "Its counts alone, without the good rows."
    return dataframely(path, lazy=True)


def pandera(path):
    import pandera.polars as pa

    c = pa.Column
    schema = pa.DataFrameSchema(
        {
            "flight_id": c(pl.Int64, unique=True),
            "time": c(pl.Datetime("us"), pa.Check.in_range(FIRST, LAST)),
            "carrier": c(pl.String, pa.Check.isin(CARRIERS), nullable=True),
            "origin": c(pl.String, pa.Check.isin(ORIGINS), nullable=True),
            "tailnum": c(pl.String, pa.Check.str_contains(TAIL), nullable=True),
            "distance": c(pl.Float64, pa.Check.in_range(0, 20_000), nullable=True),
            "passengers": c(pl.Int32, pa.Check.in_range(0, 600), nullable=True),
        },
        checks=pa.Check(lambda data: data.lazyframe.select(pl.col("arrival") > pl.col("departure"))),
    )
    frame = pl.read_parquet(path)
    found = {"rows": frame.height, "delay_null": frame["delay"].null_count()}
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            name = "unique" if "unique" in str(error.check) else error.schema.name or "later"
            found[name] = len(error.failure_cases)
    return found


def pointblank(path):
    import pointblank as pb

    frame = pl.read_parquet(path)
    steps = (
        pb.Validate(frame)
        .col_vals_not_null("flight_id")
        .col_vals_not_null("time")
        .col_vals_between("time", FIRST, LAST, na_pass=True)
        .col_vals_in_set("carrier", CARRIERS)
        .col_vals_in_set("origin", ORIGINS)
        .col_vals_regex("tailnum", TAIL, na_pass=True)
        .col_vals_between("distance", 0, 20_000, na_pass=True)
        .col_vals_between("passengers", 0, 600, na_pass=True)
        .col_vals_expr(pl.col("arrival") > pl.col("departure"))
        .col_vals_not_null("delay")
        .row_count_match(frame.height)
        .rows_distinct("flight_id")
        .interrogate(collect_extracts=False, collect_tbl_checked=False)
    )
    names = ["id_null", "time_null", "time_range", "carrier", "origin", "tailnum", "distance", "passengers"]
    names += ["later", "delay_null", "count", "unique"]
    found = dict(zip(names, steps.n_failed().values(), strict=True))
    return found | {"rows": frame.height}


WORK = (bare, mlworkbench, dataframely, dataframely_lazy, pandera, pointblank)
CONTENDERS = {work.__name__: work for work in WORK}


def contend(name: str, path: str) -> None:
    "Run one contender in this process and print what it found and used, the imports included."
    logging.disable()
    start = time.perf_counter()
    found = CONTENDERS[name](path)
    wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    facts = {"found": found, "wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": peak()}
    print(json.dumps(facts))


def measure(path: Path, repeats: int) -> pl.DataFrame:
    "Medians of interleaved runs; raises where two contenders count differently."
    runs = {name: [] for name in CONTENDERS}
    for _ in range(repeats):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "contend", name, str(path)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs[name].append(json.loads(out.splitlines()[-1]))
    expected = {check: n for check, n in runs["bare"][0]["found"].items() if n}
    for name, results in runs.items():
        found = {check: n for check, n in results[0]["found"].items() if n}
        assert found == expected, f"{name} counts {found}, the bare query {expected}"
    print("bad rows:", expected)
    keys = ("wall", "cpu", "peak")
    median = {name: {key: statistics.median(r[key] for r in rs) for key in keys} for name, rs in runs.items()}
    base = median["bare"]
    return pl.DataFrame(
        {
            "contender": name,
            "wall_s": round(m["wall"], 2),
            "cpu_s": round(m["cpu"], 2),
            "peak_mb": round(m["peak"]),
            **{f"{key}_ratio": round(m[key] / base[key], 2) for key in keys},
        }
        for name, m in median.items()
    )


def main(rows: int = 10_000_000, repeats: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder, pl.Config(tbl_hide_dataframe_shape=True, tbl_cols=10):
        path = Path(folder) / "flights.parquet"
        write_rows(path, rows)
        print(f"{rows:,} rows x 10 columns, 12 checks, median of {repeats}; ratios to the bare query")
        print(measure(path, repeats))


if __name__ == "__main__":
    if sys.argv[1:2] == ["contend"]:
        contend(*sys.argv[2:])
    else:
        main(*map(int, sys.argv[1:]))
