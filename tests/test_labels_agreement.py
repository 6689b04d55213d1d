"""Agreement, consensus and annotators' quality against published tables, peer libraries and plain loops."""

from datetime import UTC, datetime

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from mlworkbench.core.findings import findings_html
from mlworkbench.labels.agreement import SCOPES, agreement, agreement_findings, agreement_report
from mlworkbench.labels.consensus import (
    annotator_findings,
    consensus,
    dawid_skene,
    gold_findings,
    gold_quality,
    majority_vote,
)
from mlworkbench.labels.events import make_events
from mlworkbench.labels.history import current_votes

# Fleiss 1971, table 1: 30 patients, six of a group of psychiatrists each, five diagnoses
FLEISS_1971 = [
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0],
    [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0],
    [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0],
    [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0],
    [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
]  # fmt: skip


def as_votes(ratings):
    "(items, annotators) numbers, NaN where missing, as a long frame."
    item, annotator = np.nonzero(~np.isnan(ratings))
    label = ratings[item, annotator].astype(int)
    return pl.DataFrame({"item": item, "annotator": annotator, "label": label})


def random_ratings(seed, items=60, annotators=4, labels=5, missing=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, items)[:, None]
    noise = rng.integers(-1, 2, (items, annotators))
    ratings = np.clip(truth + noise * (rng.random((items, annotators)) < 0.5), 0, labels - 1).astype(float)
    ratings[rng.random(ratings.shape) < missing] = np.nan
    return ratings


def test_fleiss_1971_psychiatric_diagnoses():
    rows = [
        (item, label)
        for item, line in enumerate(FLEISS_1971)
        for label, n in enumerate(line)
        for _ in range(n)
    ]
    votes = pl.DataFrame(rows, schema=["item", "label"], orient="row")
    votes = votes.with_columns(annotator=pl.int_range(pl.len()).over("item"))
    found = agreement(votes, measure="fleiss")
    assert found["value"][0] == pytest.approx(0.430, abs=5e-4) and found["items"][0] == 30
    by_label = agreement(votes, by="label", measure="fleiss", resamples=0)["value"].round(3).to_list()
    assert by_label == [0.245, 0.245, 0.520, 0.471, 0.566]


@pytest.mark.parametrize(
    "lines, expected",
    [  # Krippendorff 2011, sections A and B
        (["0100000010", "1110010000"], 0.095),
        (["aabbdcccedda", "babbbcccEddd".lower()], 0.692),
    ],
)
def test_krippendorff_2011_two_observers(lines, expected):
    rows = [(unit, who, value) for who, line in enumerate(lines) for unit, value in enumerate(line)]
    votes = pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row")
    for scope in ("overall", "annotator", "pair"):  # with two observers they are one number
        found = agreement(votes, by=scope, resamples=0)["value"].to_list()
        assert found == pytest.approx([expected] * len(found), abs=5e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_the_krippendorff_packages(seed, level):
    ratings = random_ratings(seed)
    expected = krippendorff.alpha(ratings.T, level_of_measurement=level)
    assert agreement(as_votes(ratings), level=level, resamples=0)["value"][0] == pytest.approx(
        expected, abs=1e-6
    )
    for row in agreement(as_votes(ratings), by="pair", level=level, resamples=0).iter_rows(named=True):
        two = ratings[:, [int(row["subject"]), int(row["other"])]]
        assert row["value"] == pytest.approx(krippendorff.alpha(two.T, level_of_measurement=level), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_alpha_per_label_is_that_of_the_label_against_the_rest(seed):
    ratings = random_ratings(seed)
    for row in agreement(as_votes(ratings), by="label", resamples=0).iter_rows(named=True):
        binary = np.where(np.isnan(ratings), np.nan, ratings == int(row["subject"]))
        assert row["value"] == pytest.approx(
            krippendorff.alpha(binary.T, level_of_measurement="nominal"), abs=1e-6
        )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "level, weights", [("nominal", None), ("linear", "linear"), ("quadratic", "quadratic")]
)
def test_cohen_is_statsmodels_and_scikit_learns(seed, level, weights):
    ratings = random_ratings(seed, annotators=2, missing=0)
    first, second = ratings.T.astype(int)
    table = np.zeros((5, 5))
    np.add.at(table, (first, second), 1)
    found = agreement(as_votes(ratings), measure="cohen", level=level, resamples=0)["value"][0]
    assert found == pytest.approx(cohen_kappa_score(first, second, weights=weights), abs=1e-6)
    apart = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) ** (2 if level == "quadratic" else 1)
    peer = cohens_kappa(table, weights=None if weights is None else apart, return_results=False)
    assert found == pytest.approx(peer, abs=1e-6)
    others = agreement(as_votes(ratings), by="annotator", measure="cohen", level=level, resamples=0)
    assert others["value"].to_list() == pytest.approx([found] * 2)


@pytest.mark.parametrize("seed", range(5))
def test_fleiss_is_statsmodels(seed):
    ratings = random_ratings(seed, missing=0)
    expected = fleiss_kappa(aggregate_raters(ratings.astype(int))[0])
    assert agreement(as_votes(ratings), measure="fleiss", resamples=0)["value"][0] == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("scope", ["overall", "label", "annotator", "pair"])
def test_the_bootstrap_is_that_of_rows_drawn_again(scope):
    ratings, rng = random_ratings(7), np.random.default_rng(1)
    found = agreement(as_votes(ratings), by=scope, resamples=4000).row(0, named=True)
    columns = [int(found[name]) for name in ("subject", "other") if scope == "pair"]
    data = (
        ratings[:, columns]
        if columns
        else np.where(np.isnan(ratings), np.nan, ratings == 0)
        if scope == "label"
        else ratings
    )
    if scope == "annotator":
        data = data[~np.isnan(data[:, 0])]  # the items that this annotator saw
    data = data[(~np.isnan(data)).sum(1) > 1]
    drawn = []
    for _ in range(300):
        rows = data[rng.integers(0, len(data), len(data))]
        frame = as_votes(rows)
        if scope == "annotator":
            drawn.append(agreement(frame, by=scope, resamples=0).filter(subject="0")["value"][0])
        else:
            drawn.append(krippendorff.alpha(rows.T, level_of_measurement="nominal"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["items"] == len(data)
    assert abs(found["low"] - low) < 0.3 * (high - low) and abs(found["high"] - high) < 0.3 * (high - low)
    assert 0.8 < (found["high"] - found["low"]) / (high - low) < 1.25


def test_intervals_cover_the_true_agreement():
    def draw(rng, items):  # two annotators who are right in 0.85 and else guess among the other two labels
        truth = rng.integers(0, 3, items)
        wrong = rng.random((items, 2)) > 0.85
        return ((truth[:, None] + wrong * rng.integers(1, 3, (items, 2))) % 3).astype(float)

    both = 0.85**2 + 0.15**2 / 2
    true = 1 - (1 - both) / (1 - 1 / 3)
    inside = 0
    for seed in range(200):
        row = agreement(as_votes(draw(np.random.default_rng(seed), 100)), resamples=300).row(0, named=True)
        inside += row["low"] <= true <= row["high"]
    assert 0.88 <= inside / 200 <= 0.99


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SCOPES), st.sampled_from(["percent", "fleiss", "krippendorff"]))
def test_the_order_of_votes_and_the_names_of_labels_do_not_matter(seed, scope, measure):
    votes = as_votes(random_ratings(seed, items=12, annotators=3, labels=3))
    names = {0: "שלום", 1: "🔥<b>", 2: "z"}
    renamed = votes.with_columns(label=pl.col("label").replace_strict(names, return_dtype=pl.String))
    shuffled = renamed.sample(fraction=1, shuffle=True, seed=seed)
    one, other = (agreement(frame, by=scope, measure=measure, resamples=0) for frame in (votes, shuffled))
    if scope == "label":
        one = one.with_columns(
            subject=pl.col("subject").cast(int).replace_strict(names, return_dtype=pl.String)
        )
        one, other = one.sort("subject"), other.sort("subject")
    assert one["subject"].to_list() == other["subject"].to_list() and one["items"].equals(other["items"])
    for first, second in zip(one["value"], other["value"], strict=True):
        assert (first is None and second is None) or first == pytest.approx(second)


def test_many_items_and_labels_need_no_square_of_either():
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(3000, 4))
    item, annotator = np.indices(ratings.shape)
    votes = pl.DataFrame({"item": item.ravel(), "annotator": annotator.ravel(), "label": ratings.ravel()})
    row = agreement(votes, level="interval", resamples=50).row(0, named=True)
    within, total = ratings.var(axis=1, ddof=1).mean(), ratings.var(ddof=1)
    assert row["value"] == pytest.approx(1 - within / total, abs=1e-9)  # what alpha is for full interval data


def test_findings_name_label_and_annotator_and_are_shown_as_text():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    bad = "<script>alert(1)</script>"
    given_labels = {"Ada": truth, "Bea": truth, bad: rng.integers(0, 3, 200)}
    votes = pl.concat(
        pl.DataFrame({"item": np.arange(200), "annotator": [name] * 200, "label": labels})
        for name, labels in given_labels.items()
    )
    found = agreement_findings(agreement_report(votes, resamples=100))
    assert bad in found.filter(check="annotator_agreement")["subject"].to_list()
    assert found.filter(check="pair_agreement", severity="warn").height == 2
    assert "<script>" not in findings_html(found)
    assert found.filter(pl.col("message").str.contains("below 0.667")).height > 0


def plain_dawid_skene(votes, items, annotators, classes, rounds):
    "The paper's formulas in loops."
    counts = np.zeros((items, annotators, classes))
    for item, annotator, label in votes:
        counts[item, annotator, label] += 1
    truth = counts.sum(1) / counts.sum((1, 2))[:, None]
    for _ in range(rounds):
        prior = truth.mean(0)
        confusion = np.einsum("ij,ikl->kjl", truth, counts)
        confusion /= np.maximum(confusion.sum(2, keepdims=True), 1e-300)
        for item in range(items):
            for true in range(classes):
                truth[item, true] = prior[true] * np.prod(confusion[:, true, :] ** counts[item])
        truth /= truth.sum(1, keepdims=True)
    return truth, prior


@pytest.mark.parametrize("seed", range(3))
def test_dawid_skene_is_the_papers_formulas(seed):
    ratings = random_ratings(seed, items=80, annotators=5, labels=3, missing=0.3)
    ratings = ratings[(~np.isnan(ratings)).any(1)]
    votes = as_votes(ratings)
    fit = dawid_skene(votes, smoothing=0, tolerance=0, iterations=40)
    truth, prior = plain_dawid_skene(votes.rows(), len(ratings), 5, 3, 40)
    order = np.argsort([int(item) for item in fit.items])
    assert fit.iterations == 40 and not fit.converged
    assert np.abs(fit.posterior[order] - truth).max() < 1e-6 and np.abs(fit.prior - prior).max() < 1e-6


def crowd(accuracies, items=2000, votes=3, labels=4, seed=0):
    rng = np.random.default_rng(seed)
    truth, item = rng.integers(0, labels, items), np.repeat(np.arange(items), votes)
    who = np.concatenate([rng.choice(len(accuracies), votes, replace=False) for _ in range(items)])
    right = rng.random(len(item)) < np.array(accuracies)[who]
    label = np.where(right, truth[item], (truth[item] + rng.integers(1, labels, len(item))) % labels)
    return truth, pl.DataFrame(
        {"item": item, "annotator": [f"w{w}" for w in who], "label": [f"c{x}" for x in label]}
    )


def test_dawid_skene_finds_the_annotators_that_were_planted():
    accuracies = [0.95, 0.9, 0.85, 0.8, 0.25, 0.6, 0.9, 0.02]
    truth, votes = crowd(accuracies, votes=4)
    fit = dawid_skene(votes)
    quality = fit.quality().sort("annotator")
    assert np.abs(quality["accuracy"].to_numpy() - accuracies).max() < 0.04
    assert (
        (quality["low"] - 0.02 < pl.Series(accuracies)) & (pl.Series(accuracies) < quality["high"] + 0.02)
    ).all()
    checks = dict(annotator_findings(fit, limit=0.7).select("subject", "check").rows())
    assert checks == {"w4": "annotator_guesses", "w7": "annotator_misleads", "w5": "annotator_accuracy"}
    right = (
        fit.labels().sort(pl.col("item").cast(int))["label"] == pl.Series([f"c{x}" for x in truth])
    ).mean()
    majority = majority_vote(votes).sort(pl.col("item").cast(int))["label"]
    assert right > (majority == pl.Series([f"c{x}" for x in truth])).fill_null(False).mean() + 0.05


def test_an_annotator_with_three_votes_is_not_judged_by_them():
    _, votes = crowd([0.9] * 4, items=300)
    few = pl.DataFrame({"item": [0, 1, 2], "annotator": ["new"] * 3, "label": ["c0"] * 3})
    fit = dawid_skene(pl.concat([votes, few.cast({"item": votes.schema["item"]})]))
    row = fit.quality().filter(annotator="new").row(0, named=True)
    assert row["high"] - row["low"] > 0.4 and "annotator_guesses" not in annotator_findings(fit)["check"]
    assert np.allclose(fit.confusion.sum(2), 1)


def test_ties_are_told_and_not_broken_by_order():
    votes = pl.DataFrame({"item": ["a"] * 4, "annotator": list("wxyz"), "label": ["n", "m", "m", "n"]})
    for frame in (votes, votes.reverse()):
        assert majority_vote(frame).row(0)[1:] == (None, 0.5, 4, True, ["m", "n"])
        assert consensus(frame)["label"].to_list() == [None] and consensus(frame)["tie"].to_list() == [True]
    assert "consensus_tie" in annotator_findings(dawid_skene(votes))["check"]


def test_one_class_one_annotator_and_labels_of_other_scripts():
    votes = pl.DataFrame({"item": ["א", "ב"], "annotator": ["🙂", "🙂"], "label": ["שלום"] * 2})
    assert consensus(votes)["label"].to_list() == ["שלום"] * 2
    fit = dawid_skene(votes)
    assert fit.posterior.tolist() == [[1.0], [1.0]] and fit.quality()["accuracy"].to_list() == [1.0]
    report = agreement_report(votes)
    assert report["value"].null_count() == report.height and report["reason"].null_count() == 0


def test_consensus_of_several_labels_is_taken_label_by_label():
    rng = np.random.default_rng(0)
    truth = rng.random((300, 3)) < [0.5, 0.3, 0.1]
    names = np.array(["a", "b", "c"])
    accuracy = {"Ada": 0.95, "Bea": 0.9, "Cid": 0.6, "Dan": 0.9}
    votes = pl.concat(
        pl.DataFrame({"item": np.arange(300), "annotator": [who] * 300, "labels": [list(names[row]) for row in seen]},
                     schema_overrides={"labels": pl.List(pl.String)})
        for who, share in accuracy.items()
        for seen in [np.where(rng.random(truth.shape) < share, truth, ~truth)]
    )  # fmt: skip
    found = consensus(votes)
    right = np.array([[name in labels for name in names] for labels in found["labels"]]) == truth
    assert right.mean() > 0.95 and found["probability"].is_between(0.5, 1).all()
    gold = pl.DataFrame({"item": np.arange(50), "labels": [list(names[row]) for row in truth[:50]]},
                        schema_overrides={"labels": pl.List(pl.String)})  # fmt: skip
    quality = gold_quality(votes, gold)
    assert (
        quality.filter(annotator="Cid")["accuracy"].max() < quality.filter(annotator="Ada")["accuracy"].min()
    )
    assert "'Cid'" in gold_findings(quality)["message"][0]


def test_votes_of_the_history_need_no_change_of_form():
    events = make_events(
        ["a", "a", "b", "b", "a"],
        labels=[["nlp"], ["mlops"], ["nlp"], ["nlp"], ["nlp"]],
        annotator=["Ada", "Bea", "Ada", "Bea", "Bea"],
        time=[datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 6)],
    )
    votes = current_votes(events)
    assert agreement(votes, measure="percent", resamples=0)["value"][0] == 1.0  # Bea has changed her mind
    assert consensus(votes, "majority").sort("item")["labels"].to_list() == [["nlp"], ["nlp"]]
