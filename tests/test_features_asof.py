"""Point-in-time joins against a plain loop, for unsorted input, nulls, ties and every option."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import DataError
from mlworkbench.features.asof import as_of

START = datetime(2013, 3, 9, tzinfo=UTC)
moments = st.one_of(st.none(), st.integers(0, 12).map(lambda n: START + timedelta(minutes=30 * n)))
keys = st.sampled_from(["JFK", "EWR", "Å", None])
lefts = st.lists(st.tuples(keys, moments), max_size=12)
rights = st.lists(st.tuples(keys, moments), max_size=12, unique=True)


def by_hand(left, right, delay, tolerance, exact):
    for key, moment in left:
        best = None
        for i, (other, time) in enumerate(right):
            if None in (key, moment, time) or key != other:
                continue
            known = time + delay
            if known < moment or (exact and known == moment):
                best = i if best is None or time > right[best][1] else best
        old = best is not None and tolerance is not None and moment - right[best][1] > tolerance
        yield None if old else best


@settings(max_examples=60, deadline=None)
@given(
    lefts, rights, st.sampled_from([0, 30, 45]), st.sampled_from([None, 60, 90]), st.booleans(), st.booleans()
)
def test_as_of_is_the_loop(left, right, delay, tolerance, exact, lazy):
    delay, tolerance = timedelta(minutes=delay), None if tolerance is None else timedelta(minutes=tolerance)
    schema = {"k": pl.String, "t": pl.Datetime("us", "America/New_York")}
    frame = pl.DataFrame(left, schema=schema, orient="row").with_row_index("n")
    other = pl.DataFrame(right, schema=schema, orient="row").with_row_index("i")
    joined = as_of(
        frame.lazy() if lazy else frame,
        other,
        on="t",
        by="k",
        tolerance=tolerance,
        available_after=delay,
        exact=exact,
    )
    joined = joined.collect(engine="streaming") if lazy else joined
    assert joined["i"].to_list() == list(by_hand(left, right, delay, tolerance, exact))
    assert joined.drop("i").equals(frame)


def test_dates_integers_and_mixed_precision():
    days = pl.DataFrame({"d": [date(2013, 1, 2)]})
    seen = pl.DataFrame({"d": [date(2013, 1, 1), date(2013, 1, 2)], "v": [1, 2]})
    assert as_of(days, seen, on="d")["v"].to_list() == [1]
    assert as_of(days, seen, on="d", available_after="30h")["v"].to_list() == [None]
    steps = pl.DataFrame({"n": [5, 9]}, schema={"n": pl.Int32})
    marks = pl.DataFrame({"n": [4, 5], "v": [1, 2]})
    assert as_of(steps, marks, on="n", tolerance=3)["v"].to_list() == [1, None]
    left = pl.DataFrame({"t": [datetime(2013, 1, 1)]}, schema={"t": pl.Datetime("ms")})
    right = pl.DataFrame({"t": [1356998399_999999999, 1356998400_000000001], "v": [1, 2]})
    assert as_of(left, right.with_columns(pl.col("t").cast(pl.Datetime("ns"))), on="t")["v"].to_list() == [1]


def test_time_zones_do_not_mix():
    frame = pl.DataFrame({"t": [START]})
    here = frame.with_columns(pl.col("t").dt.convert_time_zone("America/New_York"))
    with pytest.raises(DataError, match="one time zone for both"):
        as_of(frame, here.with_columns(v=1), on="t")


def test_a_lazy_result_refuses_the_future_whatever_is_selected_from_it():
    left = pl.LazyFrame({"n": [1, 5], "x": [1, 2]})
    right = pl.LazyFrame({"n": [0, 3], "known": [9, 4], "v": [1, 2]})
    joined = as_of(left, right, on="n", available_at="known", columns=["v"])
    for query in (joined.select("x"), joined.filter(pl.col("x") == 2), joined.head(1), joined.select("v")):
        with pytest.raises(DataError, match="1 of 2 rows would see the future"):
            query.collect()
