"Text models: Made With ML's hold-out, texts of every kind, one row as in a batch, tables of predictions."

import os
import subprocess
import sys
from copy import deepcopy
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import BundleError, DataError
from mlworkbench.core.store import Store
from mlworkbench.evaluate.multiclass import class_metrics
from mlworkbench.labels.rules import Rules, keyword, load_rules, regex
from mlworkbench.models.bundle import load_bundle
from mlworkbench.models.terms import word_spans
from mlworkbench.models.text import TextLogisticRegression, fit_text_bundle
from mlworkbench.models.text_network import TextNetwork
from mlworkbench.models.text_rules import TextRules
from mlworkbench.serve.batch import predict_batches

ROOT = Path(__file__).parents[1]
PROJECTS = ROOT.parent / "shared/data/madewithml"
ODD = {
    "empty": "",
    "right to left": "מודל שפה גדול عربي نموذج اللغة",
    "marks": "हिन्दी भाषा मॉडल, e\u0301cole, İstanbul, STRASSE und Straße",
    "emoji": "🤖 learns 👨‍👩‍👧 language 🖼️ of images 🇫🇷",
    "html": "<script>alert('language')</script><b onclick=\"x\">image</b> &amp; more",
    "no spaces": "言語モデルと画像認識" * 50,
    "control": "language\x00model\x1b[31m\u202eimage\ufeff",
    "one word": "x" * 5000,
}


def small_corpus():
    texts = ["a model of language", "language of texts", "objects in images", "pixels of an image", "serving"]
    frame = pl.DataFrame({"id": range(50), "title": texts * 10, "body": ["made in torch", None] * 25})
    tags = pl.Series(["nlp", "nlp", "vision", "vision", "ml ops; é"] * 10)
    lists = pl.Series([["nlp"], ["nlp", "text data"], ["vision"], [], ["ml ops; é"]] * 10)
    return frame.with_columns(tag=tags, tags=lists)


CORPUS = small_corpus()
MODELS = {
    "regression": TextLogisticRegression(),
    "network": TextNetwork(buckets=4096, width=8, device="cpu"),
    "rules": TextRules(
        Rules(
            [
                keyword("nlp", "language", "text*", column=["title", "body"]),
                keyword("vision", "image*", "pixels", column=["title", "body"]),
                regex("ml ops; é", "(?i)serv(ing|er)", column="title"),
            ]
        )
    ),
}


@pytest.fixture(scope="module")
def bundles():
    made = {}
    for name, model in MODELS.items():
        for target in ("tag", "tags"):
            made[f"{name} {target}"] = fit_text_bundle(
                name, deepcopy(model), CORPUS, ["title", "body"], target
            )
    return made


@pytest.mark.skipif(not PROJECTS.is_dir(), reason="Made With ML's projects are not here")
def test_made_with_ml():
    train, holdout = (pl.read_csv(PROJECTS / name) for name in ("dataset.csv", "holdout.csv"))
    bundle = fit_text_bundle("topics", TextLogisticRegression(), train, ["title", "description"], "tag")
    table = class_metrics(holdout["tag"], bundle.predict(holdout), bundle.classes)
    row = table.row(by_predicate=pl.col("metric") == "weighted_f1", named=True)
    assert row["value"] >= 0.92 and row["low"] < row["value"] < row["high"]
    calibration = bundle.model.state["calibration"]
    for name in ("expected_calibration_error", "log_loss"):
        assert calibration[f"{name}_after"] < calibration[f"{name}_before"]
    rules = load_rules(ROOT / "nbs/pipelines/topics/rules.toml")
    for model, least in ((TextNetwork(device="cpu", folds=2), 0.85), (TextRules(rules), 0.6)):
        other = fit_text_bundle("topics", model, train, ["title", "description"], "tag")
        table = class_metrics(holdout["tag"], other.predict(holdout), other.classes, n=10)
        found = table.row(by_predicate=pl.col("metric") == "weighted_f1", named=True)
        assert row["value"] > found["value"] >= least, model.kind


@pytest.mark.parametrize("name", [f"{name} {target}" for name in MODELS for target in ("tag", "tags")])
def test_one_row_is_as_in_a_batch_and_a_loaded_bundle_as_the_saved_one(bundles, name, tmp_path):
    bundle = bundles[name]
    bundle.save(tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    odd = pl.DataFrame({"title": [*ODD.values(), None], "body": [None, *ODD.values()]})
    rows = pl.concat([CORPUS.select("title", "body"), odd])
    probabilities = bundle.predict(rows)
    assert probabilities.shape == (rows.height, len(bundle.classes))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert bundle.model.multilabel or np.allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(loaded.predict(rows.lazy(), batch_rows=7), probabilities)
    one = np.array([loaded.predict_row(row) for row in rows.iter_rows(named=True)])
    assert np.array_equal(one, probabilities)
    assert (loaded.hash, loaded.classes) == (bundle.hash, bundle.classes)
    assert loaded.predict(rows.head(0)).shape == (0, len(bundle.classes))


PREDICT = """
import sys
import polars as pl
from mlworkbench.models.bundle import load_bundle
rows = pl.DataFrame({{"title": ["a language", "🖼 image"], "body": [None, "model"]}})
print(load_bundle({folder!r}).predict(rows).tobytes().hex())
print([name for name in ("sklearn", "torch") if name in sys.modules])
"""


@pytest.mark.parametrize("name", ["regression tag", "network tags", "rules tag"])
def test_prediction_needs_no_library_of_training(bundles, name, tmp_path):
    bundles[name].save(tmp_path / "bundle")
    script = PREDICT.format(folder=str(tmp_path / "bundle"))
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    rows = pl.DataFrame({"title": ["a language", "🖼 image"], "body": [None, "model"]})
    assert said.splitlines() == [bundles[name].predict(rows).tobytes().hex(), "[]"]


HASH = """
import sys
sys.path.insert(0, {tests!r})
from test_models_text import *
print(fit_text_bundle("topics", TextLogisticRegression(), CORPUS, ["title", "body"], "tag").hash)
print(fit_text_bundle("topics", MODELS["network"], CORPUS, ["title", "body"], "tags").hash)
"""


def test_the_same_rows_and_seed_give_the_same_hash_in_another_process(bundles):
    script = HASH.format(tests=str(Path(__file__).parent))
    environment = os.environ | {"PYTHONHASHSEED": "7", "POLARS_MAX_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert said.split() == [bundles["regression tag"].hash, bundles["network tags"].hash]


@pytest.mark.parametrize("kind", ODD)
def test_every_text_is_explained_where_its_words_stand(bundles, kind):
    text = ODD[kind]
    for name, bundle in bundles.items():
        spans = bundle.model.explain(text, "nlp", top=None)
        assert all(text[start:end].strip() for start, end, _ in spans), name
        assert [span[:2] for span in spans] == sorted({span[:2] for span in spans})
        assert all(end <= other for (_, end, _), (other, *_) in pairwise(spans))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(max_examples=150, deadline=None)
def test_words_stand_where_they_are_said_to(text):
    end = 0
    for start, stop, word in word_spans(text):
        assert end <= start < stop <= len(text)
        assert pl.Series([text[start:stop]]).str.to_lowercase()[0] == word
        end = stop


def test_weights_of_words_add_up_to_the_log_odds(bundles):
    text = "A language MODEL of images: images 🤖 and language!"
    empty, full = {"title": "", "body": ""}, {"title": "", "body": text}
    for name in ("regression tags", "network tags"):
        bundle = bundles[name]
        for place, label in enumerate(bundle.classes):
            odds = [np.log(p / (1 - p)) for p in (bundle.predict_row(row)[place] for row in (full, empty))]
            total = sum(weight for *_, weight in bundle.model.explain(text, label, top=None))
            assert total == pytest.approx(odds[0] - odds[1], abs=1e-6), (name, label)


def test_a_text_of_ten_megabytes_is_read_up_to_its_limit(bundles):
    text = "language of images " * 550_000
    rows = pl.DataFrame({"id": [0, 1], "title": ["serving", "serving"], "body": [text, "language of images"]})
    assert len(text) > 10_000_000
    for bundle in bundles.values():
        scored = predict_batches(bundle, rows, ["id"])
        assert len(list(scored)) == 1
        assert scored.findings["message"].to_list() == ["1 of 2 texts are read up to character 20,000 only"]
        cut = {"title": "serving", "body": text[:20_000]}
        assert np.array_equal(bundle.predict(rows)[0], bundle.predict_row(cut))
        spans = bundle.model.explain(text, "nlp")
        assert spans and max(end for _, end, _ in spans) <= 20_000


def test_half_an_emoji_is_a_question_mark(bundles):
    broken, asked = ({"title": text, "body": "language"} for text in ("\ud83e image", "? image"))
    assert np.array_equal(*(bundles["regression tag"].predict_row(row) for row in (broken, asked)))


def test_wrong_texts_are_named(bundles, tmp_path):
    bundle = bundles["regression tag"]
    with pytest.raises(DataError, match=r"column 'body' is missing.*Did you mean 'boddy'"):
        bundle.predict(CORPUS.rename({"body": "boddy"}))
    with pytest.raises(DataError, match="column 'title' is Int64"):
        bundle.predict(CORPUS.with_columns(title=pl.lit(5, pl.Int64)))
    with pytest.raises(DataError, match="column 'body' is missing"):
        bundle.predict_row({"title": "a text"})
    with pytest.raises(DataError, match="column 'title' is 5"):
        bundle.predict_row({"title": 5, "body": None})
    blank = CORPUS.head(2).with_columns(body=pl.lit(None))  # a column without values says nothing of its type
    assert bundle.predict(blank).shape == (2, 3)
    for target, message in [
        (["nlp"] * 50, "holds only 'nlp'"),
        ([None] * 50, "target has 50 nulls"),
        (["nlp"] * 49 + ["nlq"], "label 'nlq' is no class.*Did you mean 'nlp'"),
        ([["nlp", "nlq"]] * 50, "label 'nlq' is no class"),
        (["nlp", "vision"], "2 rows for 50 rows"),
    ]:
        with pytest.raises(DataError, match=message):
            TextLogisticRegression().fit(CORPUS.select("title"), target, classes=["nlp", "vision"])
    with pytest.raises(DataError, match="feature 'id' is Int64"):
        TextLogisticRegression().fit(CORPUS.select("id"), CORPUS["tag"])
    with pytest.raises(DataError, match="no word is in 2 of"):
        TextLogisticRegression().fit(pl.DataFrame({"text": ["", None] * 20}), ["a", "b"] * 20)
    bundle.save(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"holds .*'weights'"):
        (tmp_path / "bundle/model/vocabulary.json").write_text("[]")
        TextLogisticRegression.load(tmp_path / "bundle/model")


def test_rare_and_absent_classes_are_improbable_and_no_error():
    rows = CORPUS.with_row_index().with_columns(
        tag=pl.when(pl.col("index") == 3).then(pl.lit("rare")).otherwise("tag")
    )
    classes = ["absent", "nlp", "vision", "ml ops; é", "rare"]
    for model in (TextLogisticRegression(), TextNetwork(buckets=4096, width=8, epochs=5, device="cpu")):
        bundle = fit_text_bundle("topics", model, rows, ["title"], "tag", classes=classes)
        probabilities = bundle.predict(rows)
        assert bundle.classes == classes and np.isfinite(probabilities).all()
        assert probabilities[:, 0].max() < 0.2 and np.allclose(probabilities.sum(axis=1), 1)
    two = pl.DataFrame({"text": ["one text", "two texts"], "tag": ["a", "b"]})
    model = TextLogisticRegression(min_rows=1).fit(two.select("text"), two["tag"])
    assert np.isfinite(model.predict(two)).all()


def test_labels_are_written_to_a_table_with_a_probability_each(bundles, tmp_path):
    store, at = Store(tmp_path / "store"), datetime(2026, 1, 2, tzinfo=UTC)
    for name in ("regression tag", "regression tags"):
        bundle, table = bundles[name], name.replace(" ", "_")
        store.write(table, predict_batches(bundle, CORPUS.lazy(), ["id"], batch_rows=20, at=at))
        kept = store.read(table).collect()
        probabilities = kept.select(f"probability_{label}" for label in bundle.classes).to_numpy()
        assert np.array_equal(probabilities, bundle.predict(CORPUS))
        decided = kept["labels" if bundle.model.multilabel else "label"]
        assert decided.to_list() == bundle.labels(probabilities).to_list()
        assert kept["bundle_version"].unique().to_list() == [bundle.hash]
    assert np.array_equal(
        store.read("regression_tag").collect()["probability"],
        bundles["regression tag"].predict(CORPUS).max(axis=1),
    )
