"Batch prediction into the store: memory flat in the rows, lineage in each row, nothing half written."

import os
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.errors import DataError
from mlworkbench.core.store import Store
from mlworkbench.features.spec import FeatureSpec, category, ratio, scale
from mlworkbench.models.boosting import LightGBM
from mlworkbench.models.bundle import Bundle, load_bundle
from mlworkbench.serve.batch import PREDICTION_COLUMNS, predict_batches

SCORE_IN_A_PROCESS = """
import re, resource, sys
from pathlib import Path
import polars as pl
from mlworkbench.core.store import Store
from mlworkbench.models.bundle import load_bundle
from mlworkbench.serve.batch import predict_batches
folder, source = Path(sys.argv[1]), sys.argv[2]
bundle = load_bundle(folder / "late")
predictions = predict_batches(bundle, pl.scan_parquet(source), ["id"], batch_rows=25_000)
Store(str(folder / Path(source).stem)).write("predictions", predictions)
status = Path("/proc/self/status")  # Linux keeps the parent's peak in ru_maxrss; macOS counts it in bytes
found = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()) if status.exists() else None
peak = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(predictions.rows, peak)
"""


def make_rows(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(rows)
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "carrier": rng.choice(["AA", "DL", "UA", "WN"], rows),
            "distance": rng.integers(100, 2500, rows),
            "hours": rng.random(rows) * 5 + 1,
            "remark": rng.choice(["a long text that no feature needs", "and another one"], rows),
        }
    )
    chance = pl.when(pl.col("carrier") == "UA").then(0.4).otherwise(0.1)
    return frame.with_columns(late=pl.Series(rng.random(rows)) < chance)


@pytest.fixture(scope="module")
def bundle():
    rows = make_rows(4000)
    features = FeatureSpec([category("carrier"), scale("distance"), ratio("distance", "hours")])
    fitted = features.fit(rows, target="late")
    model = LightGBM(num_iterations=20, num_leaves=7, num_threads=1)
    model.fit(fitted.transform(rows), rows["late"].to_numpy().astype(float), fitted.categorical)
    return Bundle("late", model, fitted, target="late", threshold=0.2)


def test_predictions_in_the_store(bundle, tmp_path):
    rows, store = make_rows(3000), Store(str(tmp_path / "store"))
    at = datetime(2026, 11, 21, 4, tzinfo=UTC)
    store.write("predictions", predict_batches(bundle, rows.lazy(), ["id"], batch_rows=700, at=at))
    kept = store.read("predictions").sort("id").collect()
    assert kept.columns == ["id", *PREDICTION_COLUMNS] and kept["id"].to_list() == rows["id"].to_list()
    np.testing.assert_array_equal(kept["score"], bundle.predict(rows))
    assert (kept["decision"] == (kept["score"] >= 0.2)).all() and kept["decision"].n_unique() == 2
    lineage = kept.select("model", "bundle_version", "feature_hash", "predicted_at").unique().rows()
    assert lineage == [("late", bundle.hash, bundle.features.hash, at)]


def test_a_bundle_from_disk_predicts_the_same(bundle, tmp_path):
    rows = make_rows(1000)
    bundle.save(tmp_path / "late")
    loaded = load_bundle(tmp_path / "late")
    scored = pl.concat(predict_batches(loaded, rows, ["id", "carrier"], batch_rows=300))
    np.testing.assert_array_equal(scored["score"], bundle.predict(rows))
    assert scored["bundle_version"][0] == bundle.hash and scored["carrier"].equals(rows["carrier"])


def test_a_source_that_breaks_midway_leaves_the_last_version(bundle, tmp_path):
    store, rows = Store(str(tmp_path / "store")), make_rows(2000)
    store.write("predictions", predict_batches(bundle, rows.head(500), ["id"]))
    numbers = pl.col("distance").cast(pl.String)
    broken = rows.lazy().with_columns(
        distance=pl.when(pl.col("id") == 1500).then(pl.lit("far")).otherwise(numbers).str.to_integer()
    )
    with pytest.raises(Exception, match="far"):
        store.write("predictions", predict_batches(bundle, broken, ["id"], batch_rows=100))
    assert store.read("predictions").select(pl.len()).collect().item() == 500


def test_unknown_categories_are_counted_over_all_batches(bundle):
    rows = make_rows(1000).with_columns(
        carrier=pl.when(pl.col("id") % 4 == 0).then(pl.lit("ZZ")).otherwise(pl.col("carrier"))
    )
    predictions = predict_batches(bundle, rows, ["id"], batch_rows=130)
    assert pl.concat(predictions).height == 1000
    found = predictions.findings.row(0, named=True)
    assert (found["check"], found["severity"], found["value"]) == ("unknown_share", "warn", 0.25)
    assert "ZZ" in found["evidence"]


def test_wrong_input_is_an_error_before_any_row(bundle):
    rows = make_rows(10).lazy()
    with pytest.raises(DataError, match="'hours' is missing"):
        predict_batches(bundle, rows.drop("hours"), ["id"])
    with pytest.raises(DataError, match="String"):
        predict_batches(bundle, rows.cast({"hours": pl.String}), ["id"])


def test_memory_is_flat_in_the_number_of_rows(bundle, tmp_path):
    bundle.save(tmp_path / "late")
    peaks = []
    part = make_rows(100_000).lazy()
    for rows in (500_000, 4_000_000):  # below that, buffers of the parquet writer are still filling
        source = tmp_path / f"rows_{rows}.parquet"
        pl.concat([part] * (rows // 100_000)).sink_parquet(source, row_group_size=50_000)
        command = [sys.executable, "-c", SCORE_IN_A_PROCESS, str(tmp_path), str(source)]
        environment = os.environ | {"POLARS_MAX_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        scored, kilobytes = map(int, done.stdout.split())
        assert scored == rows
        peaks.append(kilobytes / 1024)
    assert peaks[1] < peaks[0] + 100, peaks  # 3.5 million more rows are 140 MB of inputs alone
