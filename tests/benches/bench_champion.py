"""The flights champion beside a LightGBM tuned for 100 trials on the same features: AUC on the hold-out.

Needs the demo project: `make demo` first. Takes some minutes; `bench_champion.py 20` tries 20 trials.
"""

import sys
import time
from pathlib import Path

import lightgbm
import numpy as np
import optuna
import polars as pl

from mlworkbench.core.project import Project, lay_directory
from mlworkbench.evaluate.metrics import delong_test, roc_auc
from mlworkbench.models.base import feature_matrix
from mlworkbench.models.bundle import load_bundle

LIMIT = 0.01  # how far the champion may lie below the tuned model


def tuned_booster(train, tune, names, categorical, trials):
    "The best of some trials by AUC on the tuning rows (TPE sampler, seed 0)."
    codes = [names.index(name) for name in categorical]
    data = lightgbm.Dataset(
        train[0], train[1], feature_name=names, categorical_feature=codes, free_raw_data=False
    )
    later = lightgbm.Dataset(tune[0], tune[1], reference=data)
    best = {"auc": 0.0, "booster": None}

    def objective(trial):
        params = {
            "objective": "binary", "metric": "auc", "verbosity": -1, "seed": 0, "feature_pre_filter": False,
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 7, 255, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 20, 2000, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 1.0), "bagging_freq": 1,
            "lambda_l1": trial.suggest_float("lambda_l1", 1e-3, 30, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 30, log=True),
            "cat_smooth": trial.suggest_float("cat_smooth", 1, 200, log=True),
        }  # fmt: skip
        stop = lightgbm.early_stopping(40, verbose=False)
        booster = lightgbm.train(params, data, 1500, valid_sets=[later], callbacks=[stop])
        auc = booster.best_score["valid_0"]["auc"]
        if auc > best["auc"]:
            best.update(auc=auc, booster=booster)
        return auc

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials, show_progress_bar=sys.stderr.isatty())
    return best["booster"], best["auc"]


def slowest_ms(champion, flights):
    took = []
    for row in flights.to_dicts():
        started = time.perf_counter()
        champion.predict_row(row)
        took.append(1e3 * (time.perf_counter() - started))
    return float(np.quantile(took, 0.99))


def main():
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    root = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parents[2] / "demo/flights"
    project = Project(root)
    folder = lay_directory(
        project.store.read("models/champion").collect(), project.private / "models/champion"
    )
    champion = load_bundle(folder)
    features = project.store.read("features")
    train, tune = (features.filter(pl.col("split") == name).collect() for name in ("train", "tune"))
    holdout = project.store.read("holdout", tag="gold").collect()
    fitted, names = champion.features, champion.features.names
    rows = [fitted.transform_training(train), fitted.transform(tune), fitted.transform(holdout)]
    matrices = [feature_matrix(frame, names) for frame in rows]
    late = [frame["late"].to_numpy().astype(np.float64) for frame in (train, tune, holdout)]
    started = time.perf_counter()
    pairs = list(zip(matrices, late, strict=True))
    booster, tune_auc = tuned_booster(pairs[0], pairs[1], names, fitted.categorical, trials)
    seconds = time.perf_counter() - started
    ours, theirs = champion.predict(holdout), booster.predict(matrices[2])
    test = delong_test(late[2], ours, theirs)
    print(
        f"{holdout.height:,} flights of the hold-out, {len(names)} features, "
        f"{trials} trials in {seconds:.0f} s"
    )
    print(f"{'champion (' + champion.name + ')':<28} AUC {roc_auc(late[2], ours):.4f}")
    print(f"{'LightGBM, tuned':<28} AUC {roc_auc(late[2], theirs):.4f}   on the tuning month {tune_auc:.4f}")
    print(
        f"difference {test['difference']:+.4f} "
        f"(95 % {test['low']:+.4f} to {test['high']:+.4f}), allowed -{LIMIT}"
    )
    print(f"one prediction, 99th percentile of 1,000: {slowest_ms(champion, holdout.head(1_000)):.2f} ms")
    if test["difference"] < -LIMIT:
        sys.exit("the champion lies too far below the tuned model")


if __name__ == "__main__":
    main()
