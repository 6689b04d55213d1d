"""Text models on Made With ML: weighted F1 on the hold-out with its interval, calibration, time and memory.

    python tests/benches/bench_text.py [model ...]     # regression, rules, network, sentences

Each model is fitted in a process of its own. Settings were chosen by cross-validation on the training part.
"""

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from measure import peak

ROOT = Path(__file__).parents[2]
PROJECTS = ROOT.parent / "shared/data/madewithml"
MODELS = ("regression", "rules", "network", "sentences")


def make_model(name):
    if name == "rules":
        from mlworkbench.labels.rules import load_rules
        from mlworkbench.models.text_rules import TextRules

        return TextRules(load_rules(ROOT / "nbs/pipelines/topics/rules.toml"))
    if name == "network":
        from mlworkbench.models.text_network import TextNetwork

        return TextNetwork(device="cpu")
    if name == "sentences":
        from mlworkbench.models.sentences import SentenceLogisticRegression

        return SentenceLogisticRegression(device="cpu")
    from mlworkbench.models.text import TextLogisticRegression

    return TextLogisticRegression()


def measure(name):
    import polars as pl

    from mlworkbench.evaluate.multiclass import class_metrics
    from mlworkbench.models.text import fit_text_bundle

    train, holdout = (pl.read_csv(PROJECTS / file) for file in ("dataset.csv", "holdout.csv"))
    model, started = make_model(name), perf_counter()
    bundle = fit_text_bundle(name, model, train, ["title", "description"], "tag")
    seconds = perf_counter() - started
    table = class_metrics(holdout["tag"], bundle.predict(holdout), bundle.classes)
    found = {row["metric"]: row for row in table.iter_rows(named=True)}
    calibration = model.state["calibration"]
    return {
        "model": name,
        **{key: round(found["weighted_f1"][key], 3) for key in ("value", "low", "high")},
        "log_loss": round(found["log_loss"]["value"], 3),
        "ece_before": round(calibration["expected_calibration_error_before"], 3),
        "ece_after": round(calibration["expected_calibration_error_after"], 3),
        "fit_s": round(seconds, 1),
        "peak_mb": peak(),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    elif not PROJECTS.is_dir():
        print("Made With ML's projects are not here")
    else:
        for name in sys.argv[1:] or MODELS:
            done = subprocess.run(
                [sys.executable, __file__, "--one", name], check=True, capture_output=True, text=True
            )
            print(done.stdout.strip().splitlines()[-1], flush=True)
