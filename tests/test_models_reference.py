"The models against the libraries that fitted them, and one row against a batch."

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.models.base import MODEL_KINDS, model_class
from mlworkbench.models.baselines import AverageRule, Majority
from mlworkbench.models.boosting import LightGBM
from mlworkbench.models.linear import LogisticRegression
from mlworkbench.models.neural import NeuralNetwork
from mlworkbench.models.text import TextModel
from mlworkbench.models.trees import DecisionTree

CODES = {"carrier": 5, "origin": 4}


def example(rows=1500, seed=3):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({
        "hour": rng.integers(5, 24, rows),
        "wind": np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2, 5, rows)),
        "carrier": rng.integers(1, 5, rows).astype(np.int32),
        "origin": rng.integers(1, 4, rows).astype(np.int32),
    })  # fmt: skip
    odds = 0.2 * (frame["hour"].to_numpy() - 16) + np.array([0, 0.5, -1, 0.3, 0])[frame["carrier"].to_numpy()]
    return frame, (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)


@pytest.fixture(scope="module")
def fitted():
    features, late = example()
    models = [
        Majority(),
        AverageRule(by=["carrier", "hour"]),
        LogisticRegression(),
        DecisionTree(max_depth=6, min_samples_leaf=20),
        LightGBM(num_iterations=30, min_data_in_leaf=20, num_threads=1),
        NeuralNetwork(hidden=(16, 8), epochs=2, batch_rows=256),
    ]
    return {model.kind: model.fit(features, late, categorical=CODES) for model in models}


def test_every_kind_of_the_workbench_is_tried_here(fitted):
    own = {kind: model_class(kind) for kind, place in MODEL_KINDS.items() if isinstance(place, str)}
    texts = {kind for kind, model in own.items() if issubclass(model, TextModel)}  # in test_models_text
    assert own.keys() - texts == set(fitted) and len(texts) == 4
    assert all(type(model) is own[kind] for kind, model in fitted.items())


def test_logistic_regression_equals_a_scikit_learn_pipeline(fitted):
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression as Peer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features, late = example()
    later, _ = example(400, seed=4)
    # mean and spread of what is present, then the mean for what is missing, then the flags
    numbers = make_pipeline(
        StandardScaler(), SimpleImputer(strategy="constant", fill_value=0, add_indicator=True)
    )
    codes = OneHotEncoder(categories=[range(size) for size in CODES.values()], sparse_output=False)
    design = ColumnTransformer([("numbers", numbers, [0, 1]), ("codes", codes, [2, 3])])
    peer = make_pipeline(design, Peer(max_iter=5000, tol=1e-12)).fit(features.to_numpy(), late)
    model = fitted["logistic_regression"]
    assert (
        np.abs(model.predict(later) - peer.predict_proba(later.to_numpy())[:, 1]).max() < 1e-3
    )  # another tolerance

    from mlworkbench.models.base import code_matrix, feature_matrix
    from mlworkbench.models.linear import _design

    state = model.state
    numeric, missing = state["numeric"], [state["numeric"].index(name) for name in state["missing"]]

    def designed(frame):
        arrays = feature_matrix(frame, numeric), code_matrix(frame, CODES)
        return _design(*arrays, state["mean"], state["deviation"], missing, list(CODES.values()))

    assert np.allclose(designed(later).toarray(), peer[0].transform(later.to_numpy()), atol=1e-12)
    same = Peer(max_iter=model.iterations).fit(designed(features), late)
    assert np.abs(model.predict(later) - same.predict_proba(designed(later))[:, 1]).max() < 1e-12


def test_decision_tree_equals_scikit_learn_with_missing_values(fitted):
    from sklearn.tree import DecisionTreeClassifier

    features, late = example()
    later, _ = example(400, seed=4)
    later = later.with_columns(
        hour=pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise("hour"),  # new
        wind=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("wind"),
    )
    peer = DecisionTreeClassifier(max_depth=6, min_samples_leaf=20, random_state=0).fit(
        features.to_numpy(), late
    )
    expected = peer.predict_proba(later.cast(pl.Float64).to_numpy())[:, 1]
    assert np.array_equal(fitted["decision_tree"].predict(later), expected)


def test_lightgbm_equals_bare_lightgbm_and_its_text_reads_back(fitted, tmp_path):
    import lightgbm

    features, late = example()
    later, _ = example(400, seed=4)
    model = fitted["lightgbm"]
    data = lightgbm.Dataset(
        features.to_numpy(),
        late,
        feature_name=features.columns,
        categorical_feature=[2, 3],
        params=model.settings,
    )
    peer = lightgbm.train(model.settings, data)
    assert np.array_equal(model.predict(later), peer.predict(later.to_numpy()))
    model.save(tmp_path)
    bare = lightgbm.Booster(model_file=tmp_path / "model.txt")  # the file is LightGBM's own format
    assert np.array_equal(bare.predict(later.to_numpy()), model.predict(later))
    assert LightGBM.load(tmp_path).text == model.text


def test_neural_network_equals_its_weights_in_numpy(fitted, tmp_path):
    from safetensors.numpy import load_file

    later, _ = example(400, seed=4)
    model = fitted["neural_network"]
    model.save(tmp_path)
    weights, state = (
        load_file(tmp_path / "model.safetensors"),
        json.loads((tmp_path / "model.json").read_text())["state"],
    )
    matrix = later.select(state["numeric"]).cast(pl.Float64).to_numpy()
    numbers = np.nan_to_num((matrix - state["mean"]) / state["deviation"]).clip(-10, 10)
    vectors = [weights[f"embeddings.{i}.weight"][later[name]] for i, name in enumerate(state["codes"])]
    hidden = np.hstack([*vectors, numbers, np.isnan(matrix[:, state["missing"]])])
    for layer in (0, 3):
        hidden = np.maximum(hidden @ weights[f"body.{layer}.weight"].T + weights[f"body.{layer}.bias"], 0)
    score = hidden @ weights["body.6.weight"].T + weights["body.6.bias"]
    assert np.allclose(model.predict(later), 1 / (1 + np.exp(-score[:, 0])), atol=1e-6)


NUMBER = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(-50, 50))
CODE = st.one_of(st.none(), st.integers(-3, 12))
ROW = st.fixed_dictionaries(
    {"hour": st.one_of(st.none(), st.integers(-30, 60)), "wind": NUMBER, "carrier": CODE, "origin": CODE}
)
SCHEMA = {"hour": pl.Int64, "wind": pl.Float64, "carrier": pl.Int32, "origin": pl.Int32}


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(ROW, min_size=1, max_size=8))
def test_one_row_gives_what_a_batch_gives(fitted, rows):
    frame = pl.DataFrame(rows, schema=SCHEMA)
    for kind, model in fitted.items():
        batch = model.predict(frame)
        assert batch.shape == (len(rows),) and batch.dtype == np.float64
        assert ((batch >= 0) & (batch <= 1)).all(), kind
        one = [model.predict_row(row) for row in rows]
        tolerance = 1e-6 if kind == "neural_network" else 1e-12  # float32: a batch is summed in another order
        assert np.allclose(one, batch, rtol=0, atol=tolerance), kind


def test_files_are_safe_formats_and_json_models_load_without_their_library(fitted, tmp_path):
    for kind, model in fitted.items():
        model.save(tmp_path / kind)
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".json", ".txt", ".safetensors"}
    script = (
        "import sys, polars\n"
        "from mlworkbench.models.base import model_class\n"
        "row = {'hour': 8, 'wind': None, 'carrier': 1, 'origin': 9}\n"
        "for kind in ('majority', 'average_rule', 'logistic_regression', 'decision_tree'):\n"
        f"    model = model_class(kind).load({str(tmp_path)!r} + '/' + kind)\n"
        "    model.predict(polars.DataFrame([row])), model.predict_row(row)\n"
        "heavy = {'sklearn', 'scipy', 'lightgbm', 'torch', 'pandas', 'pickle5'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
