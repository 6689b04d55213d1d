"""Batch and one row at a time give the same features, to the last bit, for whatever a table can hold."""

import json
import math
import struct
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.features.spec import (
    FeatureSpec,
    FittedFeatures,
    bucket,
    category,
    clip,
    date_parts,
    passthrough,
    ratio,
    scale,
    target_mean,
    text_hash,
)
from mlworkbench.features.transforms import KINDS

PARTS = ["year", "quarter", "month", "week", "weekday", "day", "yearday"]
ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]

texts = st.one_of(
    st.sampled_from(["a", "b", "", " ", "Å", "A\u030a", "🛫", "\x00", "1", "true"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
doubles = st.one_of(
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7e308, -1.7e308, 0.1]), st.floats()
)
singles = st.floats(width=32)
integers = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
dates = st.dates(date(1900, 1, 1), date(2100, 12, 31))
times = st.datetimes(datetime(1970, 1, 1), datetime(2037, 1, 1))
moments = times.map(lambda time: time.replace(tzinfo=UTC))


def column(values):
    return st.lists(st.one_of(st.none(), values), min_size=12, max_size=12)


@st.composite
def tables(draw):
    zone = draw(st.sampled_from(ZONES))
    schema = {
        "double": pl.Float64,
        "single": pl.Float32,
        "whole": pl.Int64,
        "flag": pl.Boolean,
        "text": pl.String,
        "level": pl.Categorical(),
        "day": pl.Date,
        "time": pl.Datetime(draw(st.sampled_from(["ms", "us", "ns"]))),
        "moment": pl.Datetime("us", zone),
    }
    kinds = [doubles, singles, integers, st.booleans(), texts, texts, dates, times, moments]
    data = {name: draw(column(values)) for name, values in zip(schema, kinds, strict=True)}
    frame = pl.DataFrame(data, schema=schema)
    return frame.with_columns(y=pl.Series(draw(st.lists(st.booleans(), min_size=12, max_size=12))))


SPEC = FeatureSpec(
    [
        scale("double"),
        scale("single"),
        scale("whole"),
        scale("flag"),
        clip("double", tail=0.2),
        clip("single", low=-1.0),
        clip("whole", high=2),
        bucket("double", bins=4),
        bucket("single", edges=[-1, 0, 0.1, 2]),
        bucket("whole", bins=3),
        ratio("double", "single"),
        ratio("whole", "flag"),
        ratio("single", "whole"),
        category("text"),
        category("level", min_count=2),
        category("whole"),
        category("flag"),
        target_mean("text"),
        target_mean(["level", "flag"], prior=0),
        target_mean(["whole", "text", "flag"], prior=3),
        text_hash("text", buckets=7),
        text_hash("level"),
        date_parts("day", PARTS),
        date_parts("time", [*PARTS, "hour", "minute"]),
        date_parts("moment", [*PARTS, "hour"]),
        *[
            passthrough(name)
            for name in ("double", "single", "whole", "flag", "text", "level", "day", "time", "moment")
        ],
    ]
)


def bits(value):
    "A value that is equal only to the same type and the same bits; every NaN is one value."
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return (type(value), value)


def fitted_part(frame):
    "The features of the spec that this frame has values to fit on."

    def works(transform):
        numbers = [
            frame[name].cast(pl.Float64)
            for name in transform.columns
            if KINDS[transform.kind].role == "number"
        ]
        full = frame.select(pl.col(name).is_not_null() for name in transform.columns)
        enough = full.select(pl.all_horizontal(pl.all())).to_series().any()
        return (
            enough
            and all((s.is_finite() & (s.abs() < 1e150)).any() for s in numbers)
            and not (
                transform.kind == "scale"
                and any((s.abs().filter(s.is_finite()) >= 1e150).any() for s in numbers)
            )
        )

    return FeatureSpec([t for t in SPEC.transforms if works(t)] or [passthrough("y")]).fit(frame, target="y")


@settings(max_examples=40, deadline=None)
@given(tables(), tables())
def test_batch_and_rows_agree(seen, new):
    fitted = FittedFeatures.from_json(fitted_part(seen).to_json())
    new = new.with_columns(pl.col("moment").dt.convert_time_zone("Asia/Tokyo"))  # the zone of training counts
    for frame in (seen, new):
        batch = fitted.transform(frame)
        rows = [fitted.transform_row(row) for row in frame.iter_rows(named=True)]
        for name in fitted.names:
            in_batch = [bits(value) for value in batch[name].to_list()]
            assert in_batch == [bits(row[name]) for row in rows], (name, frame[list(fitted.columns)])
        assert fitted.transform(frame.lazy()).collect(engine="streaming").equals(batch)


@settings(max_examples=15, deadline=None)
@given(tables())
def test_order_and_chunks_of_training_rows_do_not_matter(frame):
    shuffled = pl.concat([frame.reverse()[:5], frame.reverse()[5:]], rechunk=False)
    assert fitted_part(frame).hash == fitted_part(shuffled).hash


def test_daylight_saving_hours_agree():
    starts = [datetime(2013, 3, 10, 4, tzinfo=UTC), datetime(2013, 11, 3, 3, tzinfo=UTC)]
    moments = [start + timedelta(minutes=15 * i) for start in starts for i in range(24)]
    frame = pl.DataFrame({"t": moments}).with_columns(pl.col("t").dt.convert_time_zone("America/New_York"))
    fitted = FeatureSpec(date_parts("t", ["hour", "day"])).fit(frame)
    rows = [fitted.transform_row({"t": moment}) for moment in moments]
    assert fitted.transform(frame).to_dicts() == rows
    zone = ZoneInfo("America/New_York")
    assert [row["t_hour"] for row in rows] == [moment.astimezone(zone).hour for moment in moments]


def test_empty_frame_has_the_same_columns_and_types():
    frame = pl.DataFrame({"c": ["a", "b"], "x": [1, 2], "y": [0, 1]})
    fitted = FeatureSpec([category("c"), scale("x"), target_mean(["c", "x"]), text_hash("c")]).fit(
        frame, target="y"
    )
    assert fitted.transform(frame.clear()).schema == fitted.transform(frame).schema
    assert fitted.transform_training(frame.clear().vstack(frame), folds=2).height == 2
    assert fitted.unknown_share(frame.clear()).is_empty()


def test_state_is_numbers_and_lists_and_survives_a_second_process(tmp_path):
    import subprocess
    import sys

    frame = pl.DataFrame({"c": ["ä", "b", "ä"], "x": [0.1, 0.2, None], "y": [0, 1, 1]})
    fitted = FeatureSpec([text_hash("c"), scale("x"), category("c"), target_mean("c")]).fit(frame, target="y")
    (tmp_path / "f.json").write_text(fitted.to_json(), encoding="utf-8")
    code = (
        "import sys; from mlworkbench.features.spec import FittedFeatures as F; "
        "f = F.from_json(open(sys.argv[1], encoding='utf-8').read()); "
        "print(f.hash, f.transform_row({'c': 'ä', 'x': 0.3}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "f.json"], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == f"{fitted.hash} {fitted.transform_row({'c': 'ä', 'x': 0.3})}"

    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        return (
            all(map(plain, value))
            if isinstance(value, list)
            else value is None or type(value) in (str, int, float)
        )

    assert plain(json.loads(fitted.to_json()))


def test_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.preprocessing")
    import numpy as np

    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"x": rng.normal(5, 3, 500), "k": rng.choice(["a", "b", "c"], 500), "y": rng.random(500)}
    )
    fitted = FeatureSpec([scale("x"), bucket("x", bins=5), target_mean("k", prior=7)]).fit(frame, target="y")
    out = fitted.transform(frame)
    peer = sklearn.StandardScaler().fit_transform(frame.select("x").to_numpy())[:, 0]
    assert np.allclose(out["x_scaled"], peer, rtol=1e-10)
    encoder = sklearn.TargetEncoder(target_type="continuous", smooth=7.0).fit(
        frame.select("k").to_numpy(), frame["y"]
    )
    assert np.allclose(out["k_mean"], encoder.transform(frame.select("k").to_numpy())[:, 0], rtol=1e-10)
    counts = out["x_bucket"].value_counts().sort("x_bucket")["count"]
    assert counts.len() == 5 and counts.max() - counts.min() <= 2


def test_out_of_fold_means_against_a_loop():
    import numpy as np

    rng = np.random.default_rng(3)
    frame = pl.DataFrame(
        {"a": rng.integers(0, 4, 60), "b": rng.choice(["x", "y", None], 60), "y": rng.random(60)}
    )
    fitted = FeatureSpec([target_mean(["a", "b"], prior=2)]).fit(frame, target="y")
    encoded = fitted.transform_training(frame, folds=4, seed=9)["a_b_mean"].to_list()
    fold = np.random.default_rng(9).permutation(60) % 4
    rows = frame.rows()
    for i, (a, b, _) in enumerate(rows):
        others = [row for j, row in enumerate(rows) if fold[j] != fold[i]]
        mean = sum(row[2] for row in others) / len(others)
        same = [row[2] for row in others if row[:2] == (a, b)] if b is not None else []
        assert encoded[i] == pytest.approx((sum(same) + 2 * mean) / (len(same) + 2))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_in_the_property(kind):
    assert any(transform.kind == kind for transform in SPEC.transforms)


def test_bucket_edges_rise_for_a_column_with_few_values():
    fitted = FeatureSpec([bucket("x", bins=10)]).fit(pl.DataFrame({"x": [1, 1, 1, 1, 2]}))
    edges = fitted.states[0]["edges"]
    assert all(low < high for low, high in pairwise(edges)) or len(edges) == 1
