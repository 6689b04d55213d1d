"""A bundle that was saved predicts as before, whatever the order of its category columns."""

import numpy as np
import polars as pl
import pytest

from mlworkbench.features.encoders import category
from mlworkbench.features.spec import FeatureSpec
from mlworkbench.features.transforms import passthrough
from mlworkbench.models.boosting import LightGBM
from mlworkbench.models.bundle import Bundle, load_bundle
from mlworkbench.models.linear import LogisticRegression
from mlworkbench.models.neural import NeuralNetwork

MODELS = [LogisticRegression(), LightGBM(num_iterations=20), NeuralNetwork(epochs=1)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_categories_out_of_alphabetical_order(tmp_path, model):
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "zone": rng.choice(["a", "b", "c", "d", "e", "f", "g"], 600),
            "airport": rng.choice(["JFK", "LGA"], 600),
            "distance": rng.normal(size=600),
        }
    ).with_columns(late=((pl.col("zone") < "d") & (pl.col("distance") > 0)).cast(pl.Int8))
    features = FeatureSpec([category("zone"), category("airport"), passthrough("distance")]).fit(rows)
    model.fit(features.transform(rows), rows["late"].to_numpy(), categorical=features.categorical)
    bundle = Bundle("late", model, features, "late")
    bundle.save(tmp_path / "late")
    loaded = load_bundle(tmp_path / "late")
    np.testing.assert_array_equal(loaded.predict(rows), bundle.predict(rows))
    assert loaded.predict_row(rows.row(0, named=True)) == pytest.approx(bundle.predict(rows)[0], rel=1e-6)
