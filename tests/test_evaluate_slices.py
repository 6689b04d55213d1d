"Slices and explanations against scikit-learn, brute-force Shapley values and chance."

from itertools import combinations
from math import factorial

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

from mlworkbench.core.errors import DataError
from mlworkbench.evaluate.explain import BASELINE, shap_values
from mlworkbench.evaluate.slices import slice_findings, slice_metrics
from mlworkbench.models.boosting import LightGBM


def test_slices_equal_sklearn_on_each_group():
    rng = np.random.default_rng(2)
    frame = pl.DataFrame(
        {
            "carrier": rng.choice(["AA", "DL", None], 3000).tolist(),
            "hub": rng.random(3000) < 0.5,
            "score": rng.random(3000).round(2),
        }
    ).with_columns(late=pl.Series(rng.random(3000)) < pl.col("score"))
    table = slice_metrics(frame.lazy(), ["carrier", "hub"], "late", threshold=0.6)
    assert table["level"].to_list() == ["all", "AA", "DL", "(null)", "false", "true"]
    groups = [
        pl.lit(True),
        *(pl.col("carrier").eq_missing(pl.lit(level)) for level in ("AA", "DL", None)),
        ~pl.col("hub"),
        pl.col("hub"),
    ]
    for row, group in zip(table.iter_rows(named=True), groups, strict=True):
        part = frame.filter(group)
        flag = part["score"] >= 0.6
        assert (row["rows"], row["positives"]) == (part.height, part["late"].sum())
        assert row["roc_auc"] == pytest.approx(sk.roc_auc_score(part["late"], part["score"]))
        assert row["precision"] == pytest.approx(sk.precision_score(part["late"], flag))
        assert row["recall"] == pytest.approx(sk.recall_score(part["late"], flag))
        for name in ("rate", "precision", "recall", "roc_auc"):
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_equal_slices_are_rarely_called_weak():
    rng, called = np.random.default_rng(4), 0
    for _ in range(60):
        score = rng.random(4000)
        late = rng.random(4000) < score
        frame = pl.DataFrame({"group": rng.integers(0, 12, 4000), "score": score, "late": late})
        called += slice_findings(slice_metrics(frame, ["group"], "late"), "m", gap=0).height > 0
    assert called <= 8  # 5 % of 60 are 3


def test_a_broken_score_is_an_error_in_any_slice():
    frame = pl.DataFrame({"group": ["a", "b"], "late": [0, 1], "score": [0.5, None]})
    with pytest.raises(DataError, match="score has 1 nulls"):
        slice_metrics(frame, ["group"], "late")


def test_shap_equals_the_definition():
    "For one tree, a coalition's value follows known features and averages over others by training rows."
    rng = np.random.default_rng(0)
    matrix = rng.random((400, 3))
    y = (rng.random(400) < 0.2 + 0.6 * (matrix[:, 0] > 0.5) * (matrix[:, 1] > 0.4)).astype(float)
    features = pl.DataFrame(matrix, schema=["a", "b", "c"])
    model = LightGBM(num_iterations=1, num_leaves=6, min_data_in_leaf=20, num_threads=1).fit(features, y)
    tree = model.booster.dump_model()["tree_info"][0]["tree_structure"]

    def value(node, row, known):
        if "leaf_value" in node:
            return node["leaf_value"]
        left, right = node["left_child"], node["right_child"]
        if node["split_feature"] in known:
            return value(left if row[node["split_feature"]] <= node["threshold"] else right, row, known)
        sizes = [child.get("internal_count", child.get("leaf_count")) for child in (left, right)]
        return np.average([value(left, row, known), value(right, row, known)], weights=sizes)

    shap = shap_values(model, features[:20])
    for index in range(20):
        for feature, name in enumerate("abc"):
            others = [other for other in range(3) if other != feature]
            part = 0.0
            for size in range(3):
                for known in combinations(others, size):
                    weight = factorial(size) * factorial(2 - size) / factorial(3)
                    with_it = value(tree, matrix[index], {*known, feature})
                    part += weight * (with_it - value(tree, matrix[index], {*known}))
            assert shap[name][index] == pytest.approx(part, abs=1e-9)
        assert shap[BASELINE][index] == pytest.approx(value(tree, matrix[index], set()), abs=1e-9)
