"""Rules on texts of all kinds, their table, and the label model against plain loops and planted truth."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import DataError
from mlworkbench.core.findings import findings_html
from mlworkbench.labels.label_model import LabelModel, label_model_findings, pre_annotate
from mlworkbench.labels.rule_table import rule_findings, rule_table, similar_rules
from mlworkbench.labels.rules import Rules, condition, keyword, load_rules, regex, rule

MADE_WITH_ML = Path(__file__).parents[2] / "shared/data/madewithml"
PIECES = ["nlp", "NLP", "text", "Text-mining", "c++", "C", "🔥", "👩‍🔬", "שלום", "שלומות", "<b>nlp</b>", "&amp;",
          "機械翻訳", "ÉTÉ", "été", "_", "-", " ", "\n", ".", "x", "1", "", "data  set", "dataset", "data-set"]  # fmt: skip
WORDS = ["nlp", "text*", "c++", "🔥", "שלום", "*翻訳*", "été", "data set", "&amp;", "*set"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.none(), min_size=1, max_size=5)
)
def test_a_keyword_votes_exactly_where_it_is_highlighted(texts):
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    rules = Rules([keyword(f"label {place}", word, name=word) for place, word in enumerate(WORDS)])
    votes = rules.apply(frame)
    for number, text in enumerate(texts):
        spans = rules.matches({"text": text})
        assert {span[3] for span in spans} == {WORDS[place] for place in np.flatnonzero(votes[number] >= 0)}
        for _, start, end, word, _ in spans:
            inside = " ".join(re.findall(r"\w+", text[start:end].lower())) or text[start:end]
            assert word.strip("*").lower() in (inside, text[start:end].lower()) or "*" in word


@pytest.mark.parametrize(
    "word, text, fires",
    [
        ("nlp", "nlp", True), ("nlp", "(NLP)", True), ("nlp", "nlp2", False), ("nlp", "<b>nlp</b>", True),
        ("data set", "a data-\nset", True), ("data set", "data the set", False), ("c++", "in C++20", True),
        ("c++", "vitamin c", False), ("c", "vitamin C", True), ("segment*", "segmentation", True),
        ("segment*", "resegment", False), ("*set", "the dataset", True), ("🔥", "hot🔥hot", True),
        ("שלום", "אמר שלום.", True), ("שלום", "בשלום", False), ("strasse", "straße", False),
        ("ΟΔΟΣ", "η οδος", True), (".net", "asp.net", True), ("a|b", "a", False), ("$1", "$1", True),
    ],
)  # fmt: skip
def test_words_in_all_scripts_and_with_signs(word, text, fires):
    assert (Rules([keyword("yes", word)]).apply(pl.DataFrame({"text": [text]}))[0, 0] == 0).item() is fires


def test_rules_over_several_columns_and_a_stored_table(tmp_path):
    frame = pl.DataFrame(
        {
            "title": ["A deep net", None, "Serving", "x"] * 5000,
            "description": ["", "images 🔥 of cats", "nothing", None] * 5000,
            "stars": [5, None, 900, 1000] * 5000,
        }
    )
    frame.write_parquet(tmp_path / "items.parquet")
    rules = Rules(
        [
            keyword("vision", "image*", column=["title", "description"]),
            regex("mlops", "(?i)serv", name="serving", column="title"),
            condition("other", "stars >= 900", name="popular"),
            condition("other", pl.col("stars").is_null(), name="unknown"),
        ]
    )
    votes = rules.apply(frame)
    assert votes[:4].tolist() == [[-1] * 4, [0, -1, -1, 2], [-1, 1, 2, -1], [-1, -1, 2, -1]]
    assert votes.shape == (20_000, 4) and (votes.reshape(5000, 4, 4) == votes[:4]).all()
    assert (rules.apply(pl.scan_parquet(tmp_path / "items.parquet"), batch=777) == votes).all()
    assert rules.matches(frame.row(1, named=True)) == [("description", 0, 6, "vision: image*", "vision")]
    assert rules.apply(frame.clear()).shape == (0, 4)


def test_a_function_that_fails_far_down_names_its_row():
    @rule("late", columns=["n"])
    def fails(row):
        return 1 / (row["n"] - 6543) > 2

    frame = pl.DataFrame({"n": range(10_000)})
    for rows in (frame, frame.lazy()):
        with pytest.raises(DataError, match="rule 'fails' failed at row 6,543: ZeroDivisionError") as told:
            Rules([fails]).apply(rows, batch=1000)
        assert told.value.row == 6543 and told.value.rule == "fails"


def test_rules_of_a_file_vote_as_those_they_were_saved_from(tmp_path):
    given_rules = Rules(
        [
            keyword("nlp", "text", 'quo"te', "back\\slash", "🔥", column=["a", "b"]),
            regex("vision", r"(?i)\bimages?\b", column="a"),
            condition("mlops", "b LIKE '%docker%' AND n > 1", name="docker"),
        ],
        classes=["vision", "nlp", "mlops"],
    )
    given_rules.save(tmp_path / "rules.toml")
    again = load_rules(tmp_path / "rules.toml", classes=given_rules.classes)
    frame = pl.DataFrame(
        {"a": ["an image", 'quo"te', "🔥"], "b": ["text", "docker", "back\\slash"], "n": [1, 2, 3]}
    )
    assert again.rules == given_rules.rules and (again.apply(frame) == given_rules.apply(frame)).all()


def planted(accuracies, fires, prior, items=20_000, seed=0):
    rng, K = np.random.default_rng(seed), len(prior)
    truth, columns = rng.choice(K, items, p=prior), []
    for accuracy, share in zip(accuracies, fires, strict=True):
        said = np.where(rng.random(items) < accuracy, truth, (truth + rng.integers(1, K, items)) % K)
        columns.append(np.where(rng.random(items) < share, said, -1))
    return truth, np.column_stack(columns).astype(np.int16)


def fair_majority(votes, K, truth):  # a tie counts as the share of it that is right
    counts = np.stack([(votes == code).sum(1) for code in range(K)], axis=1)
    first = counts == counts.max(1, keepdims=True)
    return (first[np.arange(len(truth)), truth] / first.sum(1)).mean()


def test_the_rule_table_is_what_loops_count():
    truth, votes = planted([0.9, 0.6, 0.3], [0.5, 0.7, 0.2], [0.5, 0.3, 0.2], items=400)
    table = rule_table(votes, truth)
    for place, row in enumerate(table.iter_rows(named=True)):
        own = votes[votes[:, place] >= 0]
        given_labels = truth[votes[:, place] >= 0]
        others = [[v for p, v in enumerate(line) if p != place and v >= 0] for line in own]
        assert row["fired"] == len(own) and row["coverage"] == len(own) / 400
        assert row["overlap"] == sum(bool(line) for line in others) / 400
        against = sum(any(v != mine for v in line) for line, mine in zip(others, own[:, place], strict=True))
        assert row["conflict"] == against / 400
        assert row["accuracy"] == pytest.approx((own[:, place] == given_labels).mean())


def test_findings_name_what_rules_do_wrong():
    truth, votes = planted([0.95, 0.9, 0.9, 0.2], [0.9, 0.9, 0.9, 0.5], [0.6, 0.4])
    votes = np.column_stack([votes, votes[:, 0], np.full(len(votes), -1)])
    names = ["good", "fine", "too", "wrong", "<i>twin</i>", "silent"]
    found = rule_findings(rule_table(votes, truth, names), votes)
    assert dict(found.filter(pl.col("check") != "rule_coverage").select("subject", "check").rows()) == {
        "wrong": "rule_accuracy", "silent": "rule_fires", "<i>twin</i>": "rule_duplicate"
    }  # fmt: skip
    assert similar_rules(votes) == [(0, 4)] and "<i>" not in findings_html(found)
    lost = rule_findings(rule_table(votes), votes)  # without labels
    assert "rule_accuracy" not in lost["check"] and "rule 5" in lost["subject"]


def plain_em(votes, K, rounds, anchor):
    "The model's formulas in loops over dense tables; no sample, no patterns, no sparse products."
    fires = votes >= 0
    shares = np.stack([(votes == code).sum(1) for code in range(K)], axis=1).astype(float)
    truth = shares / np.maximum(shares.sum(1, keepdims=True), 1)
    truth[~fires.any(1)] = truth.sum(0) / truth.sum()
    seen = np.stack([(votes == code) for code in range(K)], axis=2).astype(float)  # item, rule, vote
    first = np.einsum("nk,njv->jvk", truth, seen) / truth.sum(0)
    for _ in range(rounds):
        counts = np.einsum("nk,njv->jvk", truth, seen)
        sizes = truth.sum(0)
        chances = (counts + counts.sum(2, keepdims=True) / sizes.sum() + anchor * first) / (
            sizes + 1 + anchor
        )
        chances, prior = np.clip(chances, 1e-9, 1 - 1e-6), (sizes + 1) / (sizes + 1).sum()
        silent = 1 - chances.sum(1)
        logs = np.log(prior) + np.einsum("njv,jvk->nk", seen, np.log(chances)) + (~fires) @ np.log(silent)
        truth = np.exp(logs - logs.max(1, keepdims=True))
        truth /= truth.sum(1, keepdims=True)
    truth[~fires.any(1)] = prior
    return truth


@pytest.mark.parametrize("anchor", [0, 50])
def test_the_label_model_is_its_formulas_also_over_counted_patterns(anchor):
    _, votes = planted([0.9, 0.8, 0.7, 0.6], [0.5, 0.6, 0.3, 0.7], [0.5, 0.3, 0.2], items=3000)
    model = LabelModel(anchor=anchor, tolerance=0, iterations=30).fit(votes, 3)  # 255 different rows at most
    expected = plain_em(votes, 3, 31, anchor)
    assert np.abs(model.predict_proba(votes) - expected).max() < 1e-5


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.9, 0.1], [0.7, 0.2, 0.07, 0.03]])
def test_it_finds_unequal_rules_also_worse_than_chance(prior):
    accuracies, fires = np.linspace(0.1, 0.95, 12), np.linspace(0.3, 0.7, 12)
    truth, votes = planted(accuracies, fires, prior, items=200_000)  # more than the sample
    model = LabelModel().fit(votes, len(prior))
    chances = model.predict_proba(votes)
    assert (chances.argmax(1) == truth).mean() > fair_majority(votes, len(prior), truth) + 0.05
    table = model.table()
    assert np.abs(table["accuracy"] - pl.Series(accuracies)).max() < 0.02
    assert np.abs(table["coverage"] - pl.Series(fires)).max() < 0.01
    assert np.abs(np.array(model.state["prior"]) - prior).max() < 0.02 and model.state["converged"]
    chosen = chances.max(1)
    for low, high in ((0.5, 0.8), (0.8, 0.95), (0.95, 1.01)):  # its chances are true
        part = (chosen >= low) & (chosen < high)
        assert abs((chances.argmax(1) == truth)[part].mean() - chosen[part].mean()) < 0.02
    wrong = label_model_findings(model)["subject"].to_list()
    assert wrong == [f"rule {place}" for place in np.flatnonzero(accuracies < 1 / len(prior))]


def test_rules_that_only_know_one_class_are_told_apart():
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 30_000, p=[0.5, 0.3, 0.2])
    columns = []
    for code in (0, 1, 2):
        for hit, false in ((0.3, 0.01), (0.2, 0.1), (0.25, 0.03)):  # how often on its class and on others
            fires = rng.random(len(truth)) < np.where(truth == code, hit, false)
            columns.append(np.where(fires, code, -1))
    votes = np.column_stack(columns).astype(np.int16)
    voted = (votes >= 0).any(1)
    model = LabelModel().fit(votes, 3)
    right = (model.predict_proba(votes).argmax(1) == truth)[voted].mean()
    assert right > fair_majority(votes[voted], 3, truth[voted]) + 0.02
    accuracy = model.table()["accuracy"].to_numpy().reshape(3, 3)
    assert (accuracy[:, 0] > accuracy[:, 2]).all() and (accuracy[:, 2] > accuracy[:, 1]).all()


def test_a_rule_that_is_said_five_times_counts_once():
    truth, votes = planted([0.9, 0.85, 0.8, 0.6], [0.7] * 4, [0.6, 0.4])
    again = np.column_stack([votes, *[votes[:, 3]] * 4])
    once, many = LabelModel().fit(votes, 2), LabelModel().fit(again, 2)
    assert many.table()["weight"].to_list() == [1, 1, 1, *[0.2] * 5]
    right = [
        (model.predict_proba(rows).argmax(1) == truth).mean()
        for model, rows in ((once, votes), (many, again))
    ]
    assert right[1] > right[0] - 0.005 > fair_majority(again, 2, truth)


def test_classes_keep_their_names_and_rules_their_order():
    truth, votes = planted([0.9, 0.8, 0.7, 0.3], [0.6] * 4, [0.5, 0.3, 0.2], items=2000)
    chances = LabelModel().fit(votes, 3).predict_proba(votes)
    renamed = np.array([2, 0, 1, -1])[votes]  # code 0 becomes 2, 1 becomes 0, 2 becomes 1
    assert np.allclose(LabelModel().fit(renamed, 3).predict_proba(renamed)[:, [2, 0, 1]], chances, atol=1e-4)
    order = [3, 1, 0, 2]
    assert np.allclose(
        LabelModel().fit(votes[:, order], 3).predict_proba(votes[:, order]), chances, atol=1e-4
    )
    assert (chances.argmax(1) == truth).mean() > 0.7


def test_known_labels_turn_a_majority_that_is_wrong():
    truth, votes = planted([0.2, 0.25, 0.3, 0.9], [0.8] * 4, [0.5, 0.5], items=5000)
    known = np.where(np.arange(5000) < 400, truth, -1)
    alone, helped = LabelModel().fit(votes, 2), LabelModel().fit(votes, 2, labels=known)
    rest = slice(400, None)
    right = [(model.predict_proba(votes).argmax(1) == truth)[rest].mean() for model in (alone, helped)]
    assert right[0] < 0.5 < 0.85 < right[1]


def test_one_class_no_items_and_few_items():
    assert (
        LabelModel().fit(np.zeros((4, 2), np.int16), 1).predict_proba(np.zeros((3, 2), int)).tolist()
        == [[1.0]] * 3
    )
    model = LabelModel().fit(np.array([[0, -1], [-1, 1], [0, 0]]), 2)
    assert model.predict_proba(np.empty((0, 2), int)).shape == (0, 2)
    assert np.isfinite(model.predict_proba(np.array([[1, 0], [-1, -1]]))).all()


def test_rules_as_a_classifier_of_projects():
    if not MADE_WITH_ML.exists():
        pytest.skip("the Made With ML data is not here")
    columns = ["title", "description", "tag"]
    frame = pl.concat(
        pl.read_csv(MADE_WITH_ML / f"{name}.csv", columns=columns) for name in ("dataset", "holdout")
    )
    words = {
        "natural-language-processing": [
            "nlp",
            "text",
            "language*",
            "bert",
            "translation",
            "sentiment",
            "word*",
        ],
        "computer-vision": [
            "image*",
            "vision",
            "object detection",
            "segment*",
            "gan*",
            "face*",
            "video*",
            "pose",
        ],
        "mlops": [
            "mlops",
            "deploy*",
            "docker",
            "kubernetes",
            "monitor*",
            "pipeline*",
            "production",
            "workflow*",
        ],
        "other": ["reinforcement", "graph*", "time series", "recommend*", "forecast*", "audio", "music"],
    }
    where = {"column": ["title", "description"]}
    rules = Rules(
        [keyword(label, word, name=word, **where) for label, few in words.items() for word in few],
        list(words),
    )
    items = frame.with_row_index("item")
    annotated, findings = pre_annotate(items, rules)
    truth = np.array([rules.classes.index(tag) for tag in frame["tag"]])
    said = annotated["label"].is_not_null().to_numpy()
    votes = rules.apply(frame)
    right = (annotated["label"] == frame["tag"]).filter(annotated["label"].is_not_null()).mean()
    assert said.mean() > 0.65 and right > fair_majority(votes[said], 4, truth[said]) and right > 0.88
    assert findings.filter(check="rule_coverage").height == 1
