"""The flights template on the real data, from an empty folder to the summary page, and again."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.errors import StoreError
from mlworkbench.core.project import Project, Step
from mlworkbench.evaluate.metrics import roc_auc
from mlworkbench.models.bundle import load_bundle

COMMAND = [str(Path(sys.executable).with_name("mlworkbench"))]
STEPS = [
    "10_ingest", "20_check", "30_features", "40_train",
    "50_evaluate", "60_predict", "70_monitor", "80_summary",
]  # fmt: skip
KNOWN_AFTER = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "departed_at", "arrived_by"}


def run(*arguments, cwd):
    env = {k: v for k, v in os.environ.items() if k != "MLWORKBENCH_STEP"}
    done = subprocess.run([*COMMAND, *arguments, "--json"], cwd=cwd, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    root = tmp_path_factory.mktemp("flights") / "project"
    run("init", str(root), "--template", "flights", cwd=root.parent)
    return Project(root), run("run", cwd=root)


@pytest.fixture(scope="module")
def champion(flights):
    return Step(flights[0], "50_evaluate").load_model("champion", load_bundle)


def test_every_step_succeeds_and_a_second_run_reuses_them(flights):
    project, record = flights
    assert [(step["name"], step["status"]) for step in record["steps"]] == [
        (name, "succeeded") for name in STEPS
    ]
    again = run("run", cwd=project.root)
    assert {step["status"] for step in again["steps"]} == {"cached"}


def test_runs_and_findings_are_tables(flights):
    project, record = flights
    runs = project.store.read("runs").filter(run=record["run"]).sort("step").collect()
    assert runs["step"].to_list() == STEPS and set(runs["status"]) == {"succeeded"}
    kept = project.store.read("findings").filter(run=record["run"]).collect()
    assert kept.height == sum(len(step["findings"]) for step in record["steps"]) > 0


def test_nothing_known_only_after_departure_is_used(flights, champion):
    project, _ = flights
    assert not KNOWN_AFTER & set(champion.features.inputs)
    assert not KNOWN_AFTER & set(project.store.read("to_score").collect_schema())
    assert "late" not in project.store.read("to_score").collect_schema()


def test_history_is_what_a_plain_filter_finds(flights):
    project, _ = flights
    store = project.store
    events = store.read("flights").collect()
    asked = store.read("features").collect().sample(60, seed=3)
    for row in asked.iter_rows(named=True):
        before, after = row["predict_at"], row["predict_at"] - timedelta(hours=2)
        departed = pl.col("departed_at")
        recent = events.filter(departed < before, departed > after, origin=row["origin"])
        if not recent.height:
            assert row["airport_delay"] is None
            continue
        assert row["airport_delay"] == pytest.approx(recent["dep_delay"].mean())
        assert row["airport_departures"] == recent.height


def test_training_cannot_read_the_hold_out(flights):
    project, _ = flights
    train = project.step("40_train").model_copy(update={"reads": ["features", "holdout"]})
    step = Step(project, "40_train")
    step.settings = train
    with pytest.raises(StoreError, match="it is the gold hold-out"):
        step.read("holdout")


def test_the_champion_ranks_flights_it_has_never_seen(flights, champion):
    project, record = flights
    holdout = project.store.read("holdout", tag="gold").collect()
    assert holdout["day"].min().isoformat() == "2013-08-01"
    auc = roc_auc(holdout["late"], champion.predict(holdout))
    evaluated = next(step for step in record["steps"] if step["name"] == "50_evaluate")
    assert auc == evaluated["metrics"]["roc_auc"]
    rule = Step(project, "50_evaluate").load_model("airline_rule", load_bundle)
    assert auc > roc_auc(holdout["late"], rule.predict(holdout)) + 0.08
    assert auc > 0.72  # measured 0.735 to 0.740; the rule 0.63


def test_batch_and_online_say_the_same(flights, champion):
    project, _ = flights
    scored = project.store.read("predictions").collect()
    key = ["carrier", "flight", "origin", "time_hour"]
    rows = (
        project.store.read("to_score")
        .collect()
        .join(scored.select(*key, "score"), on=key)
        .sample(200, seed=1)
    )
    assert scored.height == project.store.read("to_score").select(pl.len()).collect().item()
    online = [champion.predict_row(row) for row in rows.iter_rows(named=True)]
    np.testing.assert_allclose(online, rows["score"], rtol=1e-5)
    assert set(scored["bundle_version"]) == {champion.hash}


def test_a_model_names_the_versions_it_was_made_from(flights, champion):
    project, _ = flights
    assert champion.lineage["tables"] == {"features": 0}
    assert project.store.metadata("models/champion")["tables"] == {"features": 0}


def test_pages_open_offline_and_draw_every_figure(flights, browser):
    project, record = flights
    folder = project.runs / record["run"]
    for step in STEPS:
        page = browser.new_page()
        requests, errors = [], []
        page.on("request", lambda request, seen=requests: seen.append(request.url))
        page.on("pageerror", lambda error, seen=errors: seen.append(str(error)))
        page.goto((folder / f"{step}.html").as_uri())
        expected = (folder / f"{step}.ipynb").read_text().count('"application/vnd.plotly.v1+json"')
        for figure in page.locator(".mlw-figure").all():  # drawn when one comes near
            figure.scroll_into_view_if_needed()
            figure.locator(".main-svg").first.wait_for(state="attached")
        drawn = page.locator(".js-plotly-plot:has(.main-svg)")
        assert (drawn.count(), len(requests), errors) == (expected, 1, []), step
        assert (folder / f"{step}.html").stat().st_size < 1_600_000
        page.close()
