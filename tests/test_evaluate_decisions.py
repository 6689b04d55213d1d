"Calibration and value against stored answers, and against sums written the long way."

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mlworkbench.evaluate.calibration import calibration_error, calibration_table, wilson_interval
from mlworkbench.evaluate.value import best_threshold, value_curve, value_table

CASES = json.loads((Path(__file__).parent / "data" / "eval_cases.json").read_text())
Y, SCORE = np.array(CASES["inputs"]["y"]), np.array(CASES["inputs"]["score"])


@pytest.mark.parametrize("how", ["uniform", "quantile"])
def test_calibration_equals_stored_answer(how):
    table = calibration_table(Y, SCORE, how=how)
    expected = CASES["calibration"]
    assert table["rate"].to_list() == pytest.approx(expected[f"{how}_prob_true"], abs=1e-12)
    assert table["mean_score"].to_list() == pytest.approx(expected[f"{how}_prob_pred"], abs=1e-12)
    assert table["rows"].sum() == Y.size
    if how == "uniform":
        assert calibration_error(Y, SCORE)["expected"] == pytest.approx(expected["ece_10_uniform"], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts):
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert [float(end) for end in wilson_interval(*counts)] == pytest.approx(list(expected), abs=1e-12)


def test_best_threshold_equals_stored_answer():
    expected = CASES["cost_threshold_fp1_fn5"]
    best = best_threshold(Y, SCORE, false_negative=5, false_positive=1)
    assert (best["threshold"], best["cost"]) == (expected["threshold"], expected["cost"])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=40),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_value_curve_equals_counting(rows, miss, alarm):
    y, score = np.array(rows).T
    for row in value_curve(y, score, miss, alarm, points=0).iter_rows(named=True):
        flag = score >= row["threshold"]
        cost = miss * (y & ~flag).sum() + alarm * ((1 - y) & flag).sum()
        assert row["cost"] == cost and row["value"] == miss * y.sum() - cost
        assert row["flagged"] == pytest.approx(flag.mean())


def test_thinned_value_curve_keeps_its_best():
    rng = np.random.default_rng(1)
    y = rng.random(60_000) < 0.2
    score = np.clip(0.3 * y + 0.7 * rng.random(y.size), 0, 1)
    thin = value_curve(y, score, 120, 8, points=200)
    assert thin.height <= 203
    assert thin["cost"].min() == best_threshold(y, score, 120, 8)["cost"]
    assert thin["flagged"][0] == 1


def test_value_interval_covers():
    "The interval of the value of a policy, over many draws of the same world, holds its mean value."
    rng, covered = np.random.default_rng(8), 0
    truth = 500 * (0.2 * 0.7 * 120 - 0.8 * 0.3 * 8)
    for _ in range(300):
        y = rng.random(500) < 0.2
        flag = np.where(y, rng.random(500) < 0.7, rng.random(500) < 0.3)
        row = value_table(y, {"rule": flag}, 120, 8).row(by_predicate=pl.col("policy") == "rule", named=True)
        covered += row["value_low"] <= truth <= row["value_high"]
    assert 0.91 <= covered / 300 <= 0.98
