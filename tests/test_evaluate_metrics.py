"Metrics against scikit-learn's and SciPy's stored answers, and against scikit-learn on generated rows."

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlworkbench.core.errors import DataError
from mlworkbench.evaluate import metrics

CASES = json.loads((Path(__file__).parent / "data" / "eval_cases.json").read_text())
Y, SCORE, CHALLENGER, WEIGHT = (np.array(values) for values in CASES["inputs"].values())


def test_stored_answers():
    expected = CASES["binary"]
    assert metrics.roc_auc(Y, SCORE) == pytest.approx(expected["auc"], abs=1e-12)
    assert metrics.roc_auc(Y, SCORE, WEIGHT) == pytest.approx(expected["auc_weighted"], abs=1e-12)
    for name in ("average_precision", "brier", "log_loss"):
        assert metrics.score_metric(name, Y, SCORE) == pytest.approx(expected[name], abs=1e-12)
    decided = metrics.threshold_metrics(Y, SCORE, 0.5)
    for name in ("f1", "precision", "recall", "mcc", "balanced_accuracy"):
        assert decided[name] == pytest.approx(expected[f"{name}_at_0_5"], abs=1e-12)
    assert [[decided["tn"], decided["fp"]], [decided["fn"], decided["tp"]]] == expected["confusion_at_0_5"]


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_equals_scipy(method):
    interval = metrics.bootstrap_interval("roc_auc", Y, SCORE, n=2000, seed=0, method=method)
    expected = CASES[f"bootstrap_auc_{method}_2000"]
    assert [interval["low"], interval["high"]] == pytest.approx(expected, abs=1e-9)


def test_delong_equals_stored_answer():
    expected = CASES["delong_champion_challenger"]
    found = metrics.delong_test(Y, SCORE, CHALLENGER)
    names = {"auc": "auc_a", "auc_other": "auc_b", "difference": "diff", "standard_error": "se", "z": "z"}
    for ours, theirs in (names | {"p_value": "p"}).items():
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-10)
    assert metrics.delong_interval(Y, SCORE)["standard_error"] == pytest.approx(expected["se_a"], abs=1e-12)


scored = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=n, max_size=n),  # few values: many ties
        st.lists(st.integers(1, 4), min_size=n, max_size=n),
    )
)


@settings(max_examples=60, deadline=None)
@given(scored)
def test_ties_and_weights_against_sklearn(rows):
    y, score, weight = rows
    if len(set(y)) == 1:
        with pytest.raises(DataError, match="not defined"):
            metrics.roc_auc(y, score)
        return
    for ours, theirs in (
        (metrics.roc_auc, sk.roc_auc_score),
        (metrics.average_precision, sk.average_precision_score),
        (metrics.brier, sk.brier_score_loss),
        (metrics.log_loss, sk.log_loss),
    ):
        assert ours(y, score, weight) == pytest.approx(theirs(y, score, sample_weight=weight), abs=1e-10)
    repeated = np.repeat(y, weight), np.repeat(score, weight)  # a weight of 3 is the row three times
    assert metrics.roc_auc(y, score, weight) == pytest.approx(metrics.roc_auc(*repeated), abs=1e-12)


def test_full_curves_equal_sklearn():
    curve = metrics.roc_curve(Y, SCORE, points=0)
    false_positive, true_positive, thresholds = sk.roc_curve(Y, SCORE, drop_intermediate=False)
    np.testing.assert_allclose(curve["false_positive_rate"], false_positive)
    np.testing.assert_allclose(curve["true_positive_rate"], true_positive)
    np.testing.assert_array_equal(curve["threshold"], thresholds)
    curve = metrics.precision_recall_curve(Y, SCORE, points=0)
    precision, recall, _ = sk.precision_recall_curve(Y, SCORE)
    np.testing.assert_allclose(curve["precision"], precision[::-1])
    np.testing.assert_allclose(curve["recall"], recall[::-1])


@pytest.mark.parametrize("draw", ["roc_curve", "precision_recall_curve"])
def test_thinning_keeps_the_shape(draw):
    rng = np.random.default_rng(3)
    y = rng.random(100_000) < 0.2
    score = rng.random(y.size) * 0.7 + 0.3 * y
    full, thin = getattr(metrics, draw)(y, score, points=0), getattr(metrics, draw)(y, score, points=400)
    assert thin.height <= 402 and full.height == y.size + 1
    assert thin.row(0) == full.row(0) and thin.row(-1) == full.row(-1)
    x, z = full.columns[1:] if draw == "roc_curve" else ("recall", "precision")
    length = (full[x].diff().abs() + full[z].diff().abs()).sum()
    area = [np.trapezoid(frame[z], frame[x]) for frame in (full, thin)]
    assert area[0] == pytest.approx(area[1], abs=length / 400)
    kept = np.searchsorted(-full["threshold"].to_numpy(), -thin["threshold"].to_numpy())
    before = kept[np.searchsorted(kept, np.arange(full.height), side="right") - 1]
    gap = (full[x] - full[x][before]).abs() + (full[z] - full[z][before]).abs()
    assert gap.max() <= length / 399 + 1e-9


def test_paired_bootstrap_agrees_with_delong():
    paired = metrics.bootstrap_difference("roc_auc", Y, SCORE, CHALLENGER, n=1000)
    delong = metrics.delong_test(Y, SCORE, CHALLENGER)
    assert paired["value"] == pytest.approx(delong["difference"], abs=1e-12)
    assert [paired["low"], paired["high"]] == pytest.approx([delong["low"], delong["high"]], abs=0.012)


def test_delong_covers_the_true_auc():
    "Normal scores one standard deviation apart have AUC Phi(1 / sqrt 2) = 0.7602."
    rng, truth, hits = np.random.default_rng(5), 0.7602499389, 0
    y = np.repeat([0, 1], [120, 60])
    for _ in range(400):
        interval = metrics.delong_interval(y, rng.normal(size=180) + y)
        hits += interval["low"] <= truth <= interval["high"]
    assert 0.92 <= hits / 400 <= 0.98
