"""The topics template: its corpus, the demo from an empty folder to the summary, and the same on a CSV of one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import topics_corpus

from mlworkbench.cli.main import main
from mlworkbench.core.errors import StoreError
from mlworkbench.core.project import Project, Step
from mlworkbench.labels.history import History
from mlworkbench.labels.taxonomy import load_taxonomy
from mlworkbench.models.bundle import load_bundle

COMMAND = [str(Path(sys.executable).with_name("mlworkbench"))]
DATA = topics_corpus.DATA
MADE_WITH_ML = Path(__file__).parents[2] / "shared/data/madewithml/dataset.csv"
STEPS = [
    "10_ingest", "20_check", "30_rules", "40_agreement", "50_issues",
    "60_review", "70_gold", "80_train", "90_evaluate", "95_summary",
]  # fmt: skip


def run(*arguments, cwd):
    env = {k: v for k, v in os.environ.items() if k != "MLWORKBENCH_STEP"}
    done = subprocess.run([*COMMAND, *arguments, "--json"], cwd=cwd, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def statuses(record):
    return sorted((step["name"], step["status"]) for step in record["steps"])


def outputs(project, record, step):
    "What a person reads on the page of a step."
    cells = json.loads((project.runs / record["run"] / f"{step}.ipynb").read_text())["cells"]
    shown = [output for cell in cells for output in cell.get("outputs", ())]
    texts = [shown.get("text", "") or shown.get("data", {}).get("text/markdown", "") for shown in shown]
    return "\n".join("".join(text) for text in texts)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "topics"
    record = run("demo", "topics", "--dir", str(root), cwd=root.parent)
    return Project(root), record


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    "A project on a CSV with one column of labels, other names, `;` and no ids."
    folder = tmp_path_factory.mktemp("own")
    says = {
        "delivery": [
            "parcel is late",
            "courier lost my parcel",
            "delivery took weeks",
            "the driver never came",
        ],
        "billing": [
            "charged twice",
            "invoice is wrong",
            "refund is missing",
            "price on the invoice is too high",
        ],
        "login": ["cannot sign in", "password mail never came", "app crashes at login", "screen stays blank"],
    }
    rows = [f"{text}, {n} days;{kind}" for n in range(10) for kind, texts in says.items() for text in texts]
    rows[3] = rows[3].replace("delivery", "billing")
    (folder / "tickets.csv").write_text("\n".join(["message;kind", *rows, "no idea;", ""]))
    call = "init topics --data tickets.csv --text message --label kind"
    made = run(*call.split(), cwd=folder)
    return Project(folder / "topics"), made, run("run", cwd=folder / "topics")


def test_the_corpus_is_what_its_script_makes():
    for name, content in topics_corpus.make_files().items():
        assert (DATA / name).read_text(encoding="utf-8") == content, f"run tests/topics_corpus.py for {name}"


def test_the_corpus_is_as_its_readme_says():
    projects, gold = pl.read_csv(DATA / "projects.csv"), pl.read_csv(DATA / "gold.csv")
    planted, told = pl.read_csv(DATA / "planted.csv"), (DATA / "README.md").read_text()
    assert projects.height == gold.height >= 480 and projects["item"].is_unique().all()
    assert f"{projects.height} titles" in told
    several = gold["labels"].str.contains(";")
    assert f"{(~several).sum()} projects have one topic, {several.sum()} have two" in told
    assert all(f"`{what}`" in told for what in planted["what"].unique())
    wrong = planted.filter(pl.col("what").is_in(["tag_confused", "tag_random", "tag_conflict"]))
    assert 0.06 < wrong.height / projects.height < 0.1


def test_every_step_of_the_demo_succeeds_and_a_second_run_reuses_them(demo):
    project, record = demo
    assert statuses(record) == [(name, "succeeded") for name in STEPS]
    again = run("run", cwd=project.root)
    assert {step["status"] for step in again["steps"]} == {"cached"}


def test_likely_errors_are_the_planted_ones_far_more_often_than_chance(demo):
    project, _ = demo
    gold = pl.read_csv(DATA / "gold.csv").select("item", truth=pl.col("labels").str.split(";"))
    issues = project.store.read("issues").collect().join(gold, on="item", maintain_order="left")
    wrong = ~issues.select(pl.col("truth").list.contains(pl.col("given"))).to_series()
    assert wrong.head(30).mean() > 5 * wrong.mean() / 1.5
    assert wrong.filter(issues["is_issue"]).sum() > 0.5 * wrong.sum()


def test_the_consensus_is_better_than_the_tags_and_people_are_ranked(demo):
    project, record = demo
    taxonomy, gold = load_taxonomy(project.root), pl.read_csv(DATA / "gold.csv")
    truth = gold.with_columns(truth=taxonomy.to_multiclass(gold["labels"].str.split(";"))[0]).select(
        "item", "truth"
    )
    said = project.store.read("consensus").collect().join(truth, on="item")
    came = project.store.read("labels").collect().join(truth, on="item")
    agreed, tags = (said["label"] == said["truth"]).mean(), (came["label"] == came["truth"]).mean()
    assert agreed > tags + 0.01
    metrics = next(step["metrics"] for step in record["steps"] if step["name"] == "40_agreement")
    assert metrics["annotators"] == 3


def test_an_unattended_run_makes_no_human_decision(demo):
    project, _ = demo
    events = History(project.store).events().collect()
    assert set(events.filter(source="human")["annotator"]) == {"anna", "bela", "chidi"}
    assert set(project.store.read("accepted").collect()["source"].cast(pl.String)) <= {"model"}


def test_the_gold_set_is_kept_from_training(demo):
    project, _ = demo
    settings = project.step("80_train").model_copy(update={"reads": ["items", "gold"]})
    train = Step(project, "80_train")
    train.settings = settings
    with pytest.raises(StoreError, match="it is the gold hold-out"):
        train.read("gold")
    gold = project.store.read("gold", tag="gold").collect()
    assert not {*gold["item"]} & {*project.store.read("tune").collect()["item"]}


def test_copies_of_a_text_are_on_one_side_of_the_gold_split(demo):
    project, _ = demo
    near, parts = project.store.read("near").collect(), project.store.read("parts").collect()
    sides = near.join(parts, on="item").join(parts.rename({"item": "other"}), on="other", suffix="_other")
    assert sides.height == near.height >= 4 and (sides["part"] == sides["part_other"]).all()


def test_likely_errors_and_noise_are_findings(demo):
    project, record = demo
    assert "probably have a wrong label" in (project.runs / record["run"] / "50_issues.html").read_text()


def test_the_champion_beats_the_rules_and_is_not_perfect(demo):
    project, record = demo
    ladder = project.store.read("ladder").collect()
    score = dict(ladder.select("model", "value").iter_rows())
    assert score["tfidf"] > score["rules"] + 0.02
    rules = Step(project, "80_train").load_model("rules", load_bundle)
    assert set(rules.classes) == set(topics_corpus.TOPICS)
    champion = Step(project, "90_evaluate").load_model("champion", load_bundle)
    metrics = next(step["metrics"] for step in record["steps"] if step["name"] == "90_evaluate")
    assert metrics["gold"] and 0.7 < metrics["weighted_f1"] < 0.98  # measured about 0.8 on 150 gold items
    assert set(champion.classes) == set(topics_corpus.TOPICS)


def test_a_decision_in_the_review_counts_from_the_next_run_on(demo):
    project, _ = demo
    queue = project.store.read("queue").collect()
    item = queue.filter(pl.col("given").list.first() != "other")["item"][0]
    reviews = History(project.store, journal=project.root / "reviews")
    reviews.record(item, "other", annotator="ines", queue="review")
    again = run("run", "--until", "60_review", cwd=project.root)
    assert [step["status"] for step in again["steps"] if step["name"] == "10_ingest"] == ["succeeded"]
    assert item not in project.store.read("queue").collect()["item"].to_list()
    assert "ines" in project.store.read("label_events").collect()["annotator"].to_list()


def test_ones_own_csv_goes_through_all_steps(own):
    project, made, record = own
    assert made["template"] == "topics" and "data/tickets.csv" in made["written"]
    assert not any("projects.csv" in name for name in made["written"])
    assert statuses(record) == [(name, "succeeded") for name in STEPS]
    assert load_taxonomy(project.root).names == ["billing", "login", "delivery"]
    assert "no agreement can be measured" in outputs(project, record, "40_agreement")
    assert "no gold set yet" in outputs(project, record, "90_evaluate")
    assert project.store.read("queue").collect()["given"].null_count() == 1  # "no idea" has no label
    assert set(History(project.store).events().collect()["source"].cast(pl.String)) == {"import"}


def test_the_made_with_ml_data_starts_with_no_edit(tmp_path):
    if not MADE_WITH_ML.exists():
        pytest.skip("the Made With ML data are not here")
    call = f"init topics --data {MADE_WITH_ML} --text title --text description --label tag"
    run(*call.split(), cwd=tmp_path)
    assert load_taxonomy(tmp_path / "topics").names[0] == "natural-language-processing"
    record = run("run", "--until", "30_rules", cwd=tmp_path / "topics")
    assert {step["status"] for step in record["steps"]} == {"succeeded"}


BAD = {
    "nope.csv": (None, "No such file"),
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"text,label\n", "has no rows"),
    "other.csv": (b"txt,label\na,x\nb,y\n", "Did you mean 'txt'"),
    "one.csv": (b"text,label\na,x\nb,x\n", "every label in column 'label' is 'x'"),
    "blank.csv": (b"text,label\na,\nb,\n", "column 'label' is empty"),
    "latin.csv": ("text,label\nschön,x\nb,y\n".encode("latin-1"), "is not UTF-8 in line 2"),
    "wide.csv": ("text,label\na,x\n".encode("utf-16"), "is not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_told_before_anything_is_written(name, tmp_path, capsys):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    call = [
        "init",
        str(tmp_path / "topics"),
        "--data",
        str(tmp_path / name),
        "--text",
        "text",
        "--label",
        "label",
    ]
    assert main(call) in (1, 2)
    assert message in capsys.readouterr().err and not (tmp_path / "topics").exists()


def test_a_template_that_takes_no_data_says_which_one_does(tmp_path, capsys):
    (tmp_path / "my.csv").write_text("text,label\na,x\nb,y\n")
    call = [
        "init",
        str(tmp_path / "mine"),
        "--data",
        str(tmp_path / "my.csv"),
        "--text",
        "text",
        "--label",
        "label",
    ]
    assert main(call) == 2 and "--template topics" in capsys.readouterr().err
    assert main([*call, "--template", "topics"]) == 0 and (tmp_path / "mine/data/my.csv").exists()
    assert main(["init", str(tmp_path / "late"), "--label", "x"]) == 2
    assert "--label without --data" in capsys.readouterr().err


def test_pages_open_offline_and_run_no_script_of_a_text(demo, visit):
    project, record = demo
    for step in STEPS:
        page = visit(project.runs / record["run"] / f"{step}.html")
        assert page.locator("h1").first.inner_text()
        page.close()
