"Intervals, drift and slices on many rows: the workbench against the usual way with scikit-learn and SciPy."

import numpy as np
import polars as pl
from measure import peak_of, seconds


def scored_rows(rows: int) -> tuple[np.ndarray, np.ndarray]:
    "Outcomes with a quarter of positives and scores with an AUC of about 0.75."
    rng = np.random.default_rng(0)
    y = (rng.random(rows) < 0.25).astype(int)
    return y, np.clip(rng.normal(0.35 + 0.15 * y, 0.16), 0, 1)


def resample_with_sklearn(y: np.ndarray, score: np.ndarray, n: int) -> list[float]:
    "The usual bootstrap: draw rows, sort again."
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    draws = (rng.integers(0, y.size, y.size) for _ in range(n))
    values = [roc_auc_score(y[rows], score[rows]) for rows in draws]
    return np.quantile(values, [0.025, 0.975]).tolist()


def auc_interval(y: np.ndarray, score: np.ndarray, n: int) -> list[float]:
    from mlworkbench.evaluate.metrics import bootstrap_interval

    interval = bootstrap_interval("roc_auc", y, score, n=n)
    return [interval["low"], interval["high"]]


def drift_with_scipy(reference: np.ndarray, current: np.ndarray) -> list[float]:
    from scipy import stats

    tested = stats.ks_2samp(reference, current, method="asymp")
    return [tested.statistic, stats.wasserstein_distance(reference, current)]


def drift(reference: np.ndarray, current: np.ndarray) -> list[float]:
    from mlworkbench.monitor.drift import number_drift

    found = number_drift(reference, current)
    return [found["ks"], found["wasserstein"]]


def peak_megabytes(rows: int) -> int:
    "Peak memory of a process that scores the interval of `rows` rows."
    return peak_of("bench_evaluate", f"auc_interval(*scored_rows({rows}), 20)")


def main() -> None:
    y, score = scored_rows(50_000)
    half = score[:25_000], score[25_000:]
    pairs = [
        ("AUC interval, 300 x 50,000 rows", auc_interval, resample_with_sklearn, (y, score, 300)),
        ("KS and Wasserstein, 2 x 25,000 rows (ours: and PSI, JS)", drift, drift_with_scipy, half),
    ]
    lines = []
    for name, ours, usual, inputs in pairs:
        np.testing.assert_allclose(ours(*inputs), usual(*inputs), rtol=1e-6)  # the same answers first
        mine, theirs = seconds(ours, *inputs, repeats=3), seconds(usual, *inputs, repeats=3)
        lines.append({"what": name, "mlworkbench_s": mine, "usual_s": theirs, "ratio": mine / theirs})
    with pl.Config(fmt_str_lengths=80, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(pl.DataFrame(lines))
    small, large = peak_megabytes(50_000), peak_megabytes(1_000_000)
    print(f"peak memory of an AUC interval: {small} MB for 50,000 rows, {large} MB for 1,000,000")


if __name__ == "__main__":
    main()
