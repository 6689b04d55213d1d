"""Splits that stay put, near copies against an exact comparison, and the gold hold-out in a real project."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import StoreError
from mlworkbench.core.project import Project, Step
from mlworkbench.core.store import Store
from mlworkbench.data.overlap import check_splits, near_duplicates
from mlworkbench.data.splits import (
    content_digest,
    lock_gold,
    row_hash,
    split_grouped,
    split_random,
    split_stratified,
    split_temporal,
)

SHARES = {"train": 0.6, "tune": 0.15, "test": 0.25}
VALUES = {
    "text": st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
    "number": st.one_of(st.none(), st.floats()),
    "whole": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "moment": st.one_of(st.none(), st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))),
    "parts": st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=2)),
}
SCHEMA = {
    "text": pl.String,
    "number": pl.Float64,
    "whole": pl.Int64,
    "moment": pl.Datetime("us"),
    "parts": pl.List(pl.Int64),
}
TABLES = st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=20).map(
    lambda rows: pl.DataFrame(rows, SCHEMA)
)


@settings(max_examples=50, deadline=None)
@given(TABLES, TABLES, st.integers(0, 2**70))
def test_rows_keep_their_split_whatever_stands_around_them(frame, others, seed):
    alone = split_random(frame, SHARES, seed=seed)
    among = split_random(pl.concat([others, frame]).lazy(), SHARES, seed=seed).collect(engine="streaming")
    assert among.tail(frame.height).equals(alone)
    assert check_splits(alone).filter(pl.col("check") == "split_rows").is_empty()  # equal rows stay together
    assert content_digest(frame) == content_digest(frame.reverse()) == content_digest(frame[:, ::-1])
    assert (content_digest(frame) == content_digest(pl.concat([frame, frame]))) is False


def test_null_is_not_zero_and_minus_one():
    frame = pl.DataFrame({"x": [None, 0, -1], "t": [None, "", " "]})
    for column in ("x", "t"):
        assert frame.select(row_hash([column])).to_series().n_unique() == 3


def test_the_hash_is_even_and_the_same_in_another_process():
    frame = pl.DataFrame({"id": range(100_000)})
    counts = split_random(frame, SHARES)["split"].value_counts()
    for name, rows in counts.rows():
        share = SHARES[name]
        assert abs(rows - 100_000 * share) < 5 * np.sqrt(100_000 * share * (1 - share))
    one, two = (split_random(frame, {"a": 0.5, "b": 0.5}, seed=seed)["split"] == "a" for seed in (0, 1))
    assert abs((one & two).mean() - 0.25) < 0.01  # seeds are independent
    make = "pl.DataFrame({'a': ['Å', None], 'b': [0.5, -0.0]}).select(h=row_hash(['a', 'b']))['h'].to_list()"
    here = (
        pl.DataFrame({"a": ["Å", None], "b": [0.5, 0.0]}).select(row_hash(["a", "b"])).to_series().to_list()
    )
    code = f"import polars as pl; from mlworkbench.data.splits import row_hash; print({make})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(here)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 50)), min_size=1, max_size=60))
def test_strata_are_cut_at_the_shares(rows):
    frame = pl.DataFrame(rows, schema={"k": pl.String, "id": pl.Int64}, orient="row").with_row_index("n")
    out = split_stratified(frame, "k", SHARES, keys=["n"])
    for key, part in out.group_by("k"):
        for name, share in SHARES.items():
            assert abs((part["split"] == name).sum() - share * part.height) <= 1, key
    assert out.drop("split").equals(frame)


def test_groups_do_not_meet_and_new_rows_follow_their_group():
    old = pl.DataFrame({"who": [None, *range(500)], "v": range(501)})
    new = pl.concat([old, old.with_columns(v=pl.col("v") + 1000)])
    before = split_grouped(old, "who", SHARES, seed=4)
    after = split_grouped(new, "who", SHARES, seed=4)
    assert after.filter(pl.col("v") < 1000)["split"].to_list() == before["split"].to_list()
    assert check_splits(after, keys=["who"])["severity"].unique().to_list() == ["info"]


def test_boundaries_in_the_column_s_own_zone():
    start = datetime(2013, 6, 30, 22, tzinfo=UTC)
    frame = pl.DataFrame({"t": [start + timedelta(hours=i) for i in range(8)]})
    frame = frame.with_columns(pl.col("t").dt.convert_time_zone("America/New_York"))
    by_date = split_temporal(frame, "t", {"train": None, "test": date(2013, 7, 1)})
    by_moment = split_temporal(
        frame.lazy(), "t", {"train": None, "test": datetime(2013, 7, 1, 4, tzinfo=UTC)}
    )
    assert by_date.equals(by_moment.collect())
    assert by_date.filter(pl.col("split") == "test")["t"].min() == datetime(2013, 7, 1, 4, tzinfo=UTC)
    assert check_splits(by_date, on="t")["severity"].unique().to_list() == ["info"]


def exact_twins(texts, splits, threshold):
    padded = [text.lower() + "\0" * 4 for text in texts]
    shingles = [{text[i : i + 5] for i in range(len(text) - 4)} for text in padded]
    return {
        i
        for i, one in enumerate(shingles)
        for j, two in enumerate(shingles)
        if splits[i] != splits[j] and len(one & two) / len(one | two) >= threshold
    }


def test_near_duplicates_against_all_pairs():
    rng = np.random.default_rng(5)
    words = [
        "delay",
        "flight",
        "storm",
        "gate",
        "crew",
        "plane",
        "wind",
        "snow",
        "fuel",
        "queue",
        "late",
        "early",
    ]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    copies = [f"{text} {rng.choice(words)}" for text in texts[:40]] + [text.upper() for text in texts[40:60]]
    splits = ["train"] * 300 + ["test"] * 60
    frame = pl.DataFrame({"text": texts + copies, "split": splits})
    found = set(near_duplicates(frame, "text", threshold=0.75)["text"])
    certain = exact_twins(texts + copies, splits, 0.85)
    possible = exact_twins(texts + copies, splits, 0.6)
    names = frame["text"].to_list()
    assert len(certain) > 60
    assert {names[i] for i in certain} <= found <= {names[i] for i in possible}
    assert near_duplicates(frame.filter(pl.col("split") == "train"), "text").is_empty()


@pytest.mark.parametrize("texts", [["", "ab", "ÅÖ", "🛫🛬"], ["same"] * 4])
def test_short_texts(texts):
    frame = pl.DataFrame({"text": texts * 2, "split": ["a"] * len(texts) + ["b"] * len(texts)})
    twins = near_duplicates(frame, "text")
    assert set(twins["similarity"]) == {1.0}
    assert set(twins["text"]) <= set(texts) - {""}


SETTINGS = """
[project]
name = "p"
[[step]]
notebook = "notebooks/split.ipynb"
writes = ["gold", "train"]
[[step]]
notebook = "notebooks/train.ipynb"
reads = ["gold"]
[[step]]
notebook = "notebooks/evaluate.ipynb"
reads = ["gold"]
gold = true
"""


def test_training_steps_cannot_read_the_gold_hold_out(tmp_path):
    (tmp_path / "workbench.toml").write_text(SETTINGS)
    project = Project(tmp_path)
    rows = pl.DataFrame({"id": range(10)})
    split = Step(project, "split")
    lock_gold(split, "gold", rows)
    split.publish()
    with pytest.raises(StoreError, match="may not read 'gold': it is the gold hold-out"):
        Step(project, "train").read("gold")
    assert Step(project, "evaluate").read("gold").collect().equals(rows)


def test_a_lock_holds_against_other_rows_and_lets_a_rerun_pass(tmp_path):
    store = Store(tmp_path / "store")
    rows = pl.DataFrame({"id": range(100), "text": ["a", None] * 50})
    digest = lock_gold(store, "gold", rows.lazy())
    assert lock_gold(store, "gold", rows.sample(fraction=1.0, shuffle=True, seed=1)) == digest
    assert store.tags("gold") == {"gold": store.version("gold")}
    with pytest.raises(StoreError, match="other rows"):
        lock_gold(store, "gold", rows.with_columns(pl.col("id") + 1))
    assert store.read("gold").collect().sort("id").equals(rows)
