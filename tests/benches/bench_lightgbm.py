"Training LightGBM through the workbench against bare LightGBM on the same matrix: CPU, memory, equal models."

import hashlib
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import polars as pl
from measure import peak

ROWS, CODES = 170_000, {"carrier": 17, "origin": 4, "dest": 106}


def training_rows() -> tuple[pl.DataFrame, np.ndarray]:
    "About the flights of half a year: 20 numbers, three of them with gaps, and three categories."
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(ROWS, 20))
    numbers[:, :3][rng.random((ROWS, 3)) < 0.1] = np.nan
    frame = pl.DataFrame(numbers, schema=[f"number_{i}" for i in range(20)])
    frame = frame.with_columns(pl.Series(name, rng.integers(1, size, ROWS)) for name, size in CODES.items())
    score = numbers[:, 5] + numbers[:, 6] * (frame["carrier"].to_numpy() % 3) + rng.normal(size=ROWS) - 1.5
    return frame, (score > 0).astype(float)


def with_workbench(frame: pl.DataFrame, target: np.ndarray) -> str:
    from mlworkbench.models.boosting import LightGBM

    model = LightGBM(num_iterations=100, num_threads=1)
    return model.fit(frame, target, categorical=CODES).text


def with_lightgbm(frame: pl.DataFrame, target: np.ndarray) -> str:
    import lightgbm

    from mlworkbench.models.boosting import LightGBM, model_text  # for the same settings and the same writing

    settings = LightGBM(num_iterations=100, num_threads=1).settings
    categories = [frame.columns.index(name) for name in CODES]
    names = frame.columns
    data = lightgbm.Dataset(
        frame.to_numpy(), target, feature_name=names, categorical_feature=categories, params=settings
    )
    return model_text(lightgbm.train(settings, data))


def measure(how: str) -> dict:
    "CPU and wall seconds of one training in this process, which has done nothing else."
    import lightgbm  # noqa: F401  its import is not counted

    frame, target = training_rows()
    cpu, wall = time.process_time(), time.perf_counter()
    text = {"workbench": with_workbench, "lightgbm": with_lightgbm}[how](frame, target)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "peak": peak(), "model": hashlib.sha256(text.encode()).hexdigest()}


def main(repeats: int = 5):
    results = {"workbench": [], "lightgbm": []}
    for _ in range(repeats):  # in turns, so that a busy moment of the machine meets both
        for how, found in results.items():
            command = [sys.executable, __file__, how]
            found.append(
                json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            )
    models = {each["model"] for found in results.values() for each in found}
    assert len(models) == 1, "the two did not train the same model"
    print(f"{ROWS:,} rows, {20 + len(CODES)} features, 100 trees, one thread; all {2 * repeats} models equal")
    print(f"{'':<12}{'CPU s':>8}{'wall s':>8}{'peak MB':>9}")
    medians = {}
    for how, found in results.items():
        medians[how] = {
            key: statistics.median(each[key] for each in found) for key in ("cpu", "wall", "peak")
        }
        print("{:<12}{cpu:>8.2f}{wall:>8.2f}{peak:>9.0f}".format(how, **medians[how]))
    ratios = {key: medians["workbench"][key] / medians["lightgbm"][key] for key in medians["workbench"]}
    print("{:<12}{cpu:>8.2f}{wall:>8.2f}{peak:>9.2f}   (CPU at most 1.10)".format("ratio", **ratios))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1]))) if len(sys.argv) > 1 else main()
