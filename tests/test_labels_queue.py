"""Queues and what they tell of the rest: unbiased draws, intervals that hold as often as they say, one item once."""

from collections import Counter
from math import comb

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.store import Store
from mlworkbench.labels.history import History, make_events
from mlworkbench.labels.issues import find_label_issues
from mlworkbench.labels.queue import confidence_split, make_queue, reviewed_items
from mlworkbench.labels.remaining import error_rate, rate_interval, remaining_errors, review_outcomes
from mlworkbench.labels.sampling import farthest_first, uncertainty

CLASSES = ["cv", "nlp", "other"]


def project(size, wrong_share, seed, skill=1.0):
    "Items with labels of which some are wrong, and a model that mostly sees which."
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, size)
    wrong = rng.random(size) < wrong_share
    labels = np.where(wrong, (truth + 1) % 3, truth)
    probs = rng.dirichlet([1, 1, 1], size) + skill * np.eye(3)[truth]
    probs /= probs.sum(1, keepdims=True)
    names = [CLASSES[code] for code in labels]
    items = pl.DataFrame({"item": [f"p{n}" for n in range(size)]})
    return items, items.with_columns(labels=pl.Series(names)), probs, wrong


def outcomes_of(queue, wrong):
    return queue.with_columns(
        error=pl.Series([bool(wrong[int(item[1:])]) for item in queue["item"]], dtype=pl.Boolean)
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 80),
    st.lists(st.integers(0, 5), min_size=6, max_size=6).filter(any),
    st.integers(0, 3),
    st.randoms(),
)
def test_shares_add_up_and_no_item_is_there_twice(count, size, weights, seed, chance):
    items, labels, probs, wrong = project(count, 0.2, seed)
    strategies = ["likely_error", "disagreement", "uncertainty", "diversity", "random", "gold"]
    shares = {name: weight / sum(weights) for name, weight in zip(strategies, weights, strict=True)}
    gold, reviewed = items["item"][:2], items["item"][2:4]
    votes = pl.DataFrame(
        {"item": items["item"].to_list() * 2, "label": [chance.choice("ab") for _ in range(2 * count)]}
    )
    inputs = {"given": labels, "votes": votes, "pred_probs": probs, "classes": CLASSES, "embeddings": probs}
    issues = pl.DataFrame({"row": range(count), "score": probs[:, 0], "is_issue": wrong})
    inputs |= {"issues": issues, "gold": gold, "reviewed": reviewed}
    queue, findings = make_queue(items, shares, size, seed, **inputs)
    assert queue["item"].is_unique().all() and queue.height <= size
    assert not set(queue["item"]) & set(reviewed) and set(queue.filter(strategy="gold")["item"]) <= set(gold)
    assert not set(queue.filter(pl.col("strategy") != "gold")["item"]) & set(gold)
    assert queue.height == size or "queue_short" in findings["check"]
    wanted = {name: share * size for name, share in shares.items()}
    if findings.is_empty():
        counts = Counter(queue["strategy"])
        shared = Counter(queue["also"].drop_nulls())  # of the random share, what others would have taken too
        lacking = sum(counts[name] <= value - 1 for name, value in wanted.items())
        assert all(counts[name] + shared[name] > value - 1 for name, value in wanted.items())
        assert not lacking or queue.filter(pl.col("chance").is_null(), strategy="random").height
    if shares["random"] and "queue_short" in findings["check"]:
        assert queue.filter(pl.col("strategy") != "gold").height == max(count - 4, 0)  # all that there are


def test_each_item_has_the_same_chance_in_the_random_share_whatever_else_is_asked_for():
    items, labels, probs, _ = project(60, 0.3, 0)
    issues = find_label_issues(labels["labels"], probs, CLASSES)
    drawn = Counter()
    for seed in range(600):
        queue, _ = make_queue(
            items, {"likely_error": 0.5, "random": 0.5}, 24, seed, given=labels, issues=issues,
        )  # fmt: skip
        drawn.update(queue.filter(pl.col("chance").is_not_null())["item"])
        assert queue.height == 24
        assert set(queue["chance"].drop_nulls()) == {12 / 60}
    from scipy.stats import chisquare

    counts = [drawn[item] for item in items["item"]]
    assert sum(counts) == 600 * 12 and chisquare(counts).pvalue > 0.001
    likely = issues.filter("is_issue")["row"].to_list()
    assert 0.8 < np.mean([counts[row] for row in likely]) / np.mean(counts) < 1.25


def test_random_and_gold_are_spread_over_the_queue():
    items, labels, probs, _ = project(2000, 0.2, 1)
    issues = find_label_issues(labels["labels"], probs, CLASSES)
    shares = {"likely_error": 0.5, "random": 0.4, "gold": 0.1}
    queue, _ = make_queue(items, shares, 200, given=labels, issues=issues, gold=items["item"][:100])
    for quarter in range(4):
        part = Counter(queue[50 * quarter : 50 * quarter + 50]["strategy"])
        assert 23 <= part["likely_error"] <= 27 and 18 <= part["random"] <= 22 and 3 <= part["gold"] <= 7
    errors = queue.filter(strategy="likely_error")["score"]
    assert errors.is_sorted(descending=True)


@pytest.mark.parametrize("population, checked", [(60, 20), (200, 40)])
@pytest.mark.parametrize("method, least", [("exact", 0.95), ("wilson", 0.75)])
def test_an_interval_covers_as_often_as_it_says(population, checked, method, least):
    "Not simulated: for each number of errors in the population, the chance of a sample whose interval holds it."
    intervals = [rate_interval(found, checked, population, method=method) for found in range(checked + 1)]
    coverage = []
    for wrong in range(population + 1):
        holds = [
            comb(wrong, found) * comb(population - wrong, checked - found)
            for found in range(checked + 1)
            if intervals[found][0] - 1e-12 <= wrong / population <= intervals[found][1] + 1e-12
        ]
        coverage.append(sum(holds) / comb(population, checked))
    assert min(coverage) >= least and np.mean(coverage) >= 0.945
    assert np.mean(coverage) < 0.985  # an interval that covers everything is no use


@pytest.mark.parametrize("found, checked", [(0, 30), (1, 30), (7, 25), (30, 30), (50, 1000)])
def test_intervals_are_those_of_statsmodels_and_scipy(found, checked):
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    for confidence in (0.8, 0.95):
        for ours, theirs, scipys in (("exact", "beta", "exact"), ("wilson", "wilson", "wilson")):
            low, high = rate_interval(found, checked, confidence=confidence, method=ours)
            peer = proportion_confint(found, checked, 1 - confidence, theirs)
            assert (low, high) == pytest.approx(peer, abs=1e-9)
            other = binomtest(found, checked).proportion_ci(confidence, scipys)
            assert (low, high) == pytest.approx((other.low, other.high), abs=1e-9)


@pytest.mark.parametrize("done", [300, 140])  # all of the queue; a person who went home
def test_the_estimate_of_what_remains_is_unbiased_and_its_interval_holds(done):
    truths, guesses, inside, widths, plain = [], [], 0, [], []
    for seed in range(120):
        items, labels, probs, wrong = project(1000, 0.12, seed, skill=0.2)
        own = probs[np.arange(1000), [CLASSES.index(name) for name in labels["labels"]]]
        issues = pl.DataFrame({"row": range(1000), "score": own})
        queue, _ = make_queue(
            items, {"likely_error": 0.5, "random": 0.5}, 300, seed, given=labels, issues=issues
        )
        outcomes = outcomes_of(queue, wrong).with_columns(
            error=pl.when(pl.col("position") < done).then("error")
        )
        left = remaining_errors(outcomes)
        true = int(wrong.sum()) - left.found
        truths.append(true)
        guesses.append(left.errors)
        inside += left.low <= true <= left.high
        widths.append(left.high - left.low)
        plain.append((left.before.high - left.before.low) * 1000)
    assert inside / 120 >= 0.93
    error = np.array(guesses) - truths
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(120)
    assert np.mean(widths) < 0.85 * np.mean(plain)  # what the queue says of its random items is worth it


def test_rows_drawn_with_different_chances_are_weighed():
    inside, rates, naive = 0, [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        wrong = np.concatenate([rng.permutation(np.arange(200) < 60), rng.permutation(np.arange(3000) < 150)])
        items = pl.DataFrame(
            {"item": [f"p{n}" for n in range(3200)], "kind": ["rare"] * 200 + ["common"] * 3000}
        )
        queue, _ = make_queue(items, {"random": 1.0}, 160, seed, strata="kind")
        told = error_rate(outcomes_of(queue, wrong))
        assert told.population == 3200 and set(queue["chance"]) == {80 / 200, 80 / 3000}
        inside += told.low <= 210 / 3200 <= told.high
        rates.append(told.rate)
        naive.append(told.errors / told.checked)
    assert abs(np.mean(rates) - 210 / 3200) < 3 * np.std(rates) / np.sqrt(300)
    assert np.mean(naive) > 2 * 210 / 3200  # what a plain mean would say
    assert 0.93 <= inside / 300 <= 0.995


def test_a_queue_is_reviewed_told_and_made_anew(tmp_path):
    items, labels, probs, wrong = project(400, 0.15, 4)
    history = History(Store(tmp_path))
    history.append(make_events(items["item"], labels["labels"], "crowd", "import"))
    issues = find_label_issues(labels["labels"], probs, CLASSES)
    inputs = {"issues": issues, "pred_probs": probs, "classes": CLASSES}
    shares = {"likely_error": 0.6, "random": 0.4}
    queue, _ = make_queue(items, shares, 50, name="monday", given=history.current(), **inputs)
    for row in queue.head(40).iter_rows(named=True):
        code = CLASSES.index(row["given"][0])
        truth = CLASSES[(code + 2) % 3] if wrong[int(row["item"][1:])] else row["given"]
        history.record(row["item"], truth, "ada", queue="monday")
    outcomes = review_outcomes(queue, history)
    checked = outcomes.filter(pl.col("error").is_not_null())
    assert checked.height == 40
    assert checked["error"].to_list() == [bool(wrong[int(item[1:])]) for item in checked["item"]]
    assert set(reviewed_items(history)) == set(queue["item"][:40])
    again, _ = make_queue(
        items, shares, 50, given=history.current(), reviewed=reviewed_items(history), **inputs
    )
    drawn = again["chance"].drop_nulls()
    assert not set(again["item"]) & set(queue["item"][:40]) and set(drawn) == {len(drawn) / 360}
    left = remaining_errors(outcomes)
    assert left.reviewed == 40 and left.unreviewed == 360 and left.found == int(checked["error"].sum())


def test_what_goes_to_people_and_what_the_model_may_suggest():
    items, _, probs, _ = project(1000, 0.1, 5)
    people, model = confidence_split(items, probs, CLASSES, 0.8)
    assert people.height + model.height == 1000 and not set(people["item"]) & set(model["item"])
    assert (
        model["probability"].min() >= 0.8 > people["probability"].max() and people.height > 0 < model.height
    )
    most = model.with_columns(row=pl.col("item").str.slice(1).cast(pl.Int64))
    assert most["suggested"].to_list() == [CLASSES[probs[row].argmax()] for row in most["row"]]


def test_doubt_is_scipys_entropy_and_variety_covers():
    from scipy.stats import entropy

    probs = np.random.default_rng(0).dirichlet([0.5] * 5, 200)
    assert np.allclose(uncertainty(probs), entropy(probs, axis=1, base=5))
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((40, 300))
    points = np.repeat(centres, 25, axis=0) + rng.normal(0, 0.05, (1000, 300))
    chosen, distances = farthest_first(points, 40)
    assert sorted(chosen // 25) == list(range(40))  # one of each group, through the projection too
    assert np.all(np.diff(distances[1:]) <= 1e-6)
    from scipy import sparse

    few = rng.random((200, 30)) * (rng.random((200, 30)) < 0.2)
    assert np.array_equal(farthest_first(few, 20)[0], farthest_first(sparse.csr_array(few), 20)[0])
