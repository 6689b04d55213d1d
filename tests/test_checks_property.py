"check_frame against a row-by-row reading of the same schema, for frames of every shape."

import math
import re
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.data import checks
from mlworkbench.data.checks import REASONS, check_frame
from mlworkbench.data.schema import Column, Schema

CARRIERS = ["UA", "AA", "DL"]
SCHEMA = Schema(
    key=["flight", "carrier"],
    max_bad_share=1.0,
    columns={
        "flight": Column(dtype="Int64", min=1, max=6),
        "carrier": Column(dtype="String", values=CARRIERS, pattern="^[A-Z]"),
        "tail": Column(dtype="String", unique=True, min_length=1, max_length=2),
        "distance": Column(dtype="Float64", min=0),
    },
    rules={"far": "distance > flight"},
)
ROW = st.tuples(
    st.one_of(st.none(), st.integers(0, 7)),
    st.sampled_from([*CARRIERS, "??", "", None]),
    st.sampled_from(["a", "bb", "ccc", "", None]),
    st.sampled_from([-1.0, 0.0, 3.5, 9.0, math.nan, math.inf, None]),
)


def reasons_by_row(rows: list[dict]) -> list[set[str]]:
    "What is wrong with each row, in plain Python."
    keys = Counter((row["flight"], row["carrier"]) for row in rows)
    tails = Counter(row["tail"] for row in rows)
    return [_reasons(row, keys, tails) for row in rows]


def _reasons(row, keys, tails):
    flight, carrier, tail, distance = row.values()
    known = {name: value is not None for name, value in row.items()}
    broken = {
        "flight.null": not known["flight"],
        "carrier.null": not known["carrier"],
        "flight.range": known["flight"] and not 1 <= flight <= 6,
        "carrier.values": known["carrier"] and carrier not in CARRIERS,
        "carrier.pattern": known["carrier"] and not re.search("^[A-Z]", carrier),
        "tail.length": known["tail"] and not 1 <= len(tail) <= 2,
        "tail.unique": known["tail"] and tails[tail] > 1,
        "distance.range": known["distance"] and not distance >= 0,
        "key": known["flight"] and known["carrier"] and keys[flight, carrier] > 1,
        "far": known["distance"] and known["flight"] and not (distance > flight or math.isnan(distance)),
    }
    return {name for name, is_broken in broken.items() if is_broken}


def as_frame(rows):
    types = {"flight": pl.Int64, "carrier": pl.String, "tail": pl.String, "distance": pl.Float64}
    return pl.DataFrame(rows, schema=types, orient="row")


def assert_as_expected(frame, result):
    expected = reasons_by_row(frame.to_dicts())
    bad = [reasons for reasons in expected if reasons]
    assert [set(reasons) for reasons in result.quarantine[REASONS]] == bad
    good = pl.Series([not reasons for reasons in expected], dtype=pl.Boolean)
    assert result.good.equals(frame.filter(good))
    assert result.quarantine.drop(REASONS).equals(frame.filter(~good))
    assert (result.rows, result.bad_rows) == (frame.height, len(bad))
    rules = result.findings.filter(pl.col("check") != "all_null")
    assert rules.height == len({reason for reasons in expected for reason in reasons})


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, max_size=30))
def test_every_row_gets_exactly_its_reasons(rows):
    frame = as_frame(rows)
    eager = check_frame(frame, SCHEMA)
    assert_as_expected(frame, eager)
    lazy = check_frame(frame.lazy(), SCHEMA)
    assert lazy.good.collect().equals(eager.good) and lazy.quarantine.collect().equals(eager.quarantine)
    assert lazy.findings.equals(eager.findings)


def test_keys_that_share_a_hash_are_told_apart(monkeypatch):
    weak, asked = [], checks.key_values

    def key_values(columns, dtypes, salt=0):
        if salt == 0 and len(columns) > 1:  # every key has the same number the first time
            weak.append(columns)
            return pl.col(columns[0]) * 0
        return asked(columns, dtypes, salt)

    monkeypatch.setattr(checks, "key_values", key_values)
    frame = as_frame([(1, "UA", "a", 9.0), (2, "UA", "bb", 9.0), (2, "UA", None, 9.0), (3, "DL", None, 9.0)])
    assert_as_expected(frame, check_frame(frame, SCHEMA))
    assert weak == [["flight", "carrier"]]


TYPES = [pl.Int32, pl.Float64, pl.String, pl.Categorical, pl.Date, pl.Datetime("us", "UTC")]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_repeated_values_of_every_type_are_found_over_many_batches(dtype):
    numbers = pl.int_range(1, 600_001, eager=True).scatter([10, 599_990], 7)
    values = (numbers.cast(pl.String) if dtype == pl.Categorical else numbers).cast(dtype)
    frame = pl.LazyFrame({"id": values})
    result = check_frame(frame, Schema(columns={"id": Column(unique=True)}))
    assert result.bad_rows == 3 and result.quarantine.collect()["id"].to_list() == [values[6]] * 3
