"""Label issues beside cleanlab 2.9, the whole report beside its Datalab, neighbours of 50,000 embeddings, and the ranking.

cleanlab's own find_label_issues runs in our environment: equal numbers are ordered by numpy's sort, which differs
between versions. Datalab lies in an environment of its own, `.venv-peers-labels`, which is made when it is missing.
Both sides are measured the same way: a process each that loads the same float64 arrays and does the work; told are
the median wall time, and by how much the peak memory rose in the first call above what arrays and libraries took.
Answers are compared before a line is printed.

    python bench_issues.py [issues] [report] [neighbours] [ranking] ["1M x 10"] ["50k x 1000"] ["100k x 50"]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers-labels"
NEEDS = ["cleanlab[datalab]==2.9.0"]
SIZES = {"1M x 10": (1_000_000, 10), "50k x 1000": (50_000, 1000), "100k x 50": (100_000, 50)}
TOPICS = ROOT.parent / "shared/data/madewithml/dataset.csv"

CHILD = r"""
import json, re, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
folder, what, who, repeats = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
codes, matrix = np.load(folder + "/codes.npy"), np.load(folder + "/matrix.npy")


def ours_issues():
    return find_label_issues(codes, matrix)["row"].to_list()


def theirs_issues():
    return cleanlab_issues(codes, matrix, return_indices_ranked_by="self_confidence").tolist()


def ours_report():
    return label_quality(codes, **{kind: matrix}).items["row"].len()


def theirs_report():
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()):
        lab = Datalab({"label": codes}, label_name="label", verbosity=0)
        lab.find_issues(**{given: matrix}, issue_types=TYPES)
    return len(lab.get_issues())


def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) / 1024


# of probabilities alone, Datalab's other checks would make a graph of neighbours of the probabilities: minutes
TYPES = {"label": {}, "outlier": {}, "class_imbalance": {}}
if what == "neighbours":
    TYPES = {"outlier": {}, "near_duplicate": {}}
kind = given = "embeddings" if what == "neighbours" else "pred_probs"
if who == "ours":
    from mlworkbench.labels.issues import find_label_issues
    from mlworkbench.labels.quality import label_quality
    find_label_issues([0, 0, 1, 1], np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]))
    import scipy.sparse.csgraph
else:
    given = "features" if what == "neighbours" else "pred_probs"
    from cleanlab.filter import find_label_issues as cleanlab_issues
    if what != "issues":
        from cleanlab import Datalab
work = globals()[who + "_" + ("issues" if what == "issues" else "report")]
before, times = peak(), []
for _ in range(repeats):
    start = time.perf_counter()
    answer = work()
    times.append(time.perf_counter() - start)
    if len(times) == 1:
        rose = peak() - before
print(json.dumps({"seconds": sorted(times)[len(times) // 2], "mb": rose, "answer": answer}))
"""


def make(folder, rows, size, seed=0):
    "Probabilities of a fair model, a tenth of the labels wrong."
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, size, rows)
    matrix = rng.random((rows, size)) ** (8 if size < 100 else 4)
    matrix[np.arange(rows), truth] += 3 * rng.random(rows) * matrix.sum(axis=1)
    matrix /= matrix.sum(axis=1, keepdims=True)
    wrong = rng.random(rows) < 0.1
    np.save(folder / "matrix.npy", matrix)
    np.save(folder / "codes.npy", np.where(wrong, rng.integers(0, size, rows), truth))


def make_embeddings(folder, rows=50_000, columns=384, seed=0):
    "Random directions; each of 2,500 has a near copy."
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns)).astype(np.float32)
    matrix[:2500] = matrix[2500:5000] + 0.02 * rng.normal(size=(2500, columns))
    np.save(folder / "matrix.npy", matrix)
    np.save(folder / "codes.npy", rng.integers(0, 5, rows))


def measured(folder, what, who, repeats):
    python = PEERS / "bin" / "python" if who == "theirs" and what != "issues" else sys.executable
    command = [python, "-c", CHILD, folder, what, who, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def beside(name, folder, what, repeats):
    ours, theirs = (measured(folder, what, who, repeats) for who in ("ours", "theirs"))
    assert ours["answer"] == theirs["answer"], f"{name}: the answers differ"
    count = f"{len(ours['answer']):,} issues, same order" if what == "issues" else f"{ours['answer']:,} items"
    print(
        f"{what:<10} {name:<12} ours {ours['seconds']:7.3f} s {ours['mb']:6.0f} MB   cleanlab {theirs['seconds']:7.3f} s "
        f"{theirs['mb']:6.0f} MB   {theirs['seconds'] / ours['seconds']:5.1f} x faster, "
        f"{theirs['mb'] / max(ours['mb'], 1):4.1f} x smaller   {count}",
        flush=True,
    )


def ranking(seeds):
    "Mean precision among the first 76: 10 % of the topics' labels flipped, symmetrically and by class."
    import polars as pl

    from mlworkbench.labels.issues import find_label_issues
    from mlworkbench.labels.probabilities import cross_validate
    from mlworkbench.labels.ranking import refine_probabilities, text_views

    frame = pl.read_csv(TOPICS)
    texts = frame.select(pl.concat_str("title", "description", separator=" ", ignore_nulls=True)).to_series()
    classes = sorted(frame["tag"].unique())
    truth = frame["tag"].replace_strict(classes, range(4)).to_numpy()
    for kind in ("symmetric", "class-dependent"):
        scores = {"ours": [], "one view, posterior": [], "one view, self-confidence": []}
        for seed in seeds:
            rng = np.random.default_rng(seed)
            rows = rng.choice(len(truth), 76, replace=False)
            labels = truth.copy()
            labels[rows] += 1 if kind == "class-dependent" else rng.integers(1, 4, 76)
            labels %= 4
            views = text_views(texts, labels)
            plain, refined = (
                cross_validate(views[0], len(labels), labels),
                refine_probabilities(views, labels),
            )
            for name, probs, by in (
                ("ours", refined, "posterior"),
                ("one view, posterior", plain, "posterior"),
                ("one view, self-confidence", plain, "self_confidence"),
            ):
                found = find_label_issues(labels, probs, rank_by=by, every_row=True)["row"].to_numpy()[:76]
                scores[name].append(np.isin(found, rows).mean())
        for name, values in scores.items():
            print(
                f"ranking    {kind:<16} {name:<26} precision@76 {np.mean(values):.3f} over {len(values)} seeds"
            )


def main():
    if not PEERS.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([PEERS / "bin" / "pip", "install", "-q", *NEEDS], check=True)
    parts = ["issues", "report", "neighbours", "ranking"]
    chosen = [part for part in sys.argv[1:] if part in parts] or parts
    sizes = [name for name in SIZES if name in sys.argv[1:]] or list(SIZES)
    for name in sizes:
        with tempfile.TemporaryDirectory() as place:
            make(Path(place), *SIZES[name])
            if "issues" in chosen:
                beside(name, place, "issues", 5)
            if "report" in chosen:
                beside(name, place, "report", 1)
    if "neighbours" in chosen:
        with tempfile.TemporaryDirectory() as place:
            make_embeddings(Path(place))
            beside("50k x 384", place, "neighbours", 1)
    if "ranking" in chosen and TOPICS.exists():
        ranking(range(500, 505))


if __name__ == "__main__":
    main()
