"""Rules and the label model beside Snorkel's LabelModel: 1M items x 20 functions that abstain, some worse than chance.

Snorkel lies in an environment of its own, `.venv-peers-labels`, which is made when it is missing. Accuracies on the planted
truth come first, then times (of the clock and of the processor) and peak memory, each in a process of its own that makes
the same votes. `--quick` takes 100,000 items.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers-labels"
NEEDS = ["snorkel==0.10.0", "cleanlab[datalab]==2.9.0", "setuptools<81"]
ITEMS = 100_000 if "--quick" in sys.argv else 1_000_000
SETS = {  # classes by their shares
    "two equal classes": [0.5, 0.5],
    "two classes, 9 to 1": [0.9, 0.1],
    "four equal classes": [0.25] * 4,
    "four unequal classes": [0.7, 0.2, 0.07, 0.03],
}


def planted(shares, items, functions=20, seed=0):
    "Truth and votes: accuracies from 0.1 to 0.95, each function votes on 10 to 90 % of the items."
    rng, K = np.random.default_rng(seed), len(shares)
    truth = rng.choice(K, items, p=shares).astype(np.int16)
    votes = np.empty((items, functions), np.int16)
    for place, (accuracy, fires) in enumerate(
        zip(np.linspace(0.1, 0.95, functions), rng.uniform(0.1, 0.9, functions), strict=True)
    ):
        said = np.where(rng.random(items) < accuracy, truth, (truth + rng.integers(1, K, items)) % K)
        votes[:, place] = np.where(rng.random(items) < fires, said, -1)
    return truth, votes


def ours(votes, K):
    from mlworkbench.labels.label_model import LabelModel

    return LabelModel().fit(votes, K).predict_proba(votes)


def snorkel(votes, K):
    from snorkel.labeling.model import LabelModel

    model = LabelModel(cardinality=K, verbose=False)
    model.fit(votes, seed=0, progress_bar=False)
    return model.predict_proba(votes)


def peak():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def measured(who, name, items):
    "In a process of its own: accuracy, seconds, memory in MB beyond that of the votes."
    truth, votes = planted(SETS[name], items)
    work = {"ours": ours, "snorkel": snorkel}[who]
    work(votes[:1000], len(SETS[name]))  # imports
    before, start, processor = peak(), time.perf_counter(), time.process_time()
    chances = work(votes, len(SETS[name]))
    used = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    return {"accuracy": float((chances.argmax(1) == truth).mean()), **used, "memory": peak() - before}


def in_its_own_process(who, name):
    python = PEERS / "bin/python" if who == "snorkel" else sys.executable
    command = [python, __file__, "--one", who, name, str(ITEMS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def make_peers():
    if not (PEERS / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([PEERS / "bin/pip", "install", "--quiet", *NEEDS], check=True)


def keywords(items):
    "20 rules of 20 words each, on texts of about 140 characters: one pass for all words, and a pattern for each rule."
    import polars as pl
    from measure import seconds

    from mlworkbench.labels.rules import Rules, keyword

    rng = np.random.default_rng(0)
    parts = ("ar", "en", "io", "u", "ast", "il", "or", "ex", "um", "ond")
    vocabulary = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in parts for c in parts])
    often = 1 / np.arange(10, len(vocabulary) + 10)  # as words are: a few everywhere, most of them seldom
    texts = [" ".join(words) for words in rng.choice(vocabulary, (20_000, 22), p=often / often.sum())]
    frame = pl.DataFrame({"text": texts}).sample(items, with_replacement=True, seed=0)
    groups = [rng.choice(vocabulary[100:], 20, replace=False).tolist() for _ in range(20)]
    rules = Rules([keyword("a", *words, name=str(place)) for place, words in enumerate(groups)])
    patterns = [rf"(?i)\b(?:{'|'.join(words)})\b" for words in groups]

    def one_by_one():
        return frame.select(
            pl.col("text").str.contains(p).alias(str(n)) for n, p in enumerate(patterns)
        ).to_numpy()

    assert ((rules.apply(frame) >= 0) == one_by_one()).all()
    together, apart = seconds(lambda: rules.apply(frame), repeats=3), seconds(one_by_one, repeats=3)
    print(f"keywords: 20 rules x 20 words on {items:,} texts: {together:.2f} s; a pattern each {apart:.2f} s "
          f"({apart / together:.1f} times as long)")  # fmt: skip


def main():
    make_peers()
    print(f"label model, {ITEMS:,} items x 20 functions; fit and chances of all items")
    for name in SETS:
        found = {who: in_its_own_process(who, name) for who in ("ours", "snorkel")}
        us, them = found["ours"], found["snorkel"]
        assert us["accuracy"] > them["accuracy"] - 2e-4, f"{name}: {found}"
        ratio = ", ".join(f"{what} {them[what] / us[what]:.1f}" for what in ("seconds", "processor"))
        print(f"  {name} (Snorkel by ours: {ratio})", flush=True)
        for who, row in found.items():
            print(
                f"    {who}: accuracy {row['accuracy']:.4f}, {row['seconds']:.2f} s, of processor "
                f"{row['processor']:.2f} s, {row['memory']} MB beyond the votes",
                flush=True,
            )
    keywords(ITEMS // 10)


if __name__ == "__main__":
    if "--one" in sys.argv:
        who, name, items = sys.argv[-3:]
        print(json.dumps(measured(who, name, int(items))))
    else:
        main()
