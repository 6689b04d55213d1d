"""A run that did not succeed is gone on with, at the versions and with the parameters it had."""

import polars as pl
import pytest
from flow_project import (
    begin,
    call,
    newest_record,
    statuses,
    step_of,
    wait_for,
    write_notebook,
    write_project,
)

from mlworkbench.core.errors import ConfigError, RunError, StoreError
from mlworkbench.core.project import Project
from mlworkbench.flow.records import list_runs
from mlworkbench.flow.runner import resume_run, run_project

INGEST = 'step.write("raw", pl.DataFrame({"x": range(rows)}))'
CLEAN = 'step.write("clean", step.read("raw").filter(pl.col("x") > 0))'
LOOK = 'step.record(rows=step.read("clean").collect().height, other=step.read("other").collect().height)'
FAIL = 'assert os.path.exists("mended"), "not yet"'


@pytest.fixture
def broken(tmp_path):
    """Three steps of which the last fails until a file is there; a table from outside, at version 0."""
    root = write_project(
        tmp_path,
        {
            "name": "1_ingest",
            "writes": ["raw"],
            "params": {"rows": 4},
            "params_cell": "rows = 1",
            "code": [INGEST],
        },
        {"name": "2_clean", "reads": ["raw"], "writes": ["clean"], "code": [CLEAN]},
        {"name": "3_look", "reads": ["clean", "other"], "code": [FAIL, LOOK]},
        {"name": "4_after", "code": ["1"]},
    )
    Project(root).store.write("other", pl.DataFrame({"x": [1, 2]}))
    record = run_project(root, until="3_look", params={"rows": 6})
    assert statuses(record) == {"1_ingest": "succeeded", "2_clean": "succeeded", "3_look": "failed"}
    assert record["pins"] == {"raw": 0, "clean": 0, "other": 0}
    (root / "mended").touch()
    return root, record


def test_what_succeeded_is_reused_at_the_versions_of_that_run_although_there_are_newer_ones(broken):
    root, first = broken
    store = Project(root).store
    for table in ("raw", "clean", "other"):
        store.write(table, pl.DataFrame({"x": [9]}))
    code, record, _ = call(root, "resume", first["run"][:13])
    assert code == 0 and record["resumed_from"] == first["run"] and record["trigger"] == {"kind": "resume"}
    assert statuses(record) == {"1_ingest": "cached", "2_clean": "cached", "3_look": "succeeded"}
    assert {step["from_run"] for step in record["steps"][:2]} == {first["run"]}
    look = step_of(record, "3_look")
    assert look["metrics"] == {"rows": 5, "other": 2} and look["reads"] == {"clean": 0, "other": 0}
    assert look["reason"] == f"Ran because in run {first['run']} it ended as failed."
    assert step_of(record, "1_ingest")["params"] == {"rows": 6}
    rows = store.read("runs").filter(pl.col("run") == record["run"]).collect()
    assert rows["resumed_from"].unique().to_list() == [first["run"]]
    later = run_project(root, until="3_look")  # a new run reads what is newest
    assert set(statuses(later).values()) == {"succeeded"}


def test_code_that_was_changed_in_between_runs_as_it_is_now(broken):
    root, first = broken
    write_notebook(root, "3_look", "step.record(rows=0)")
    record = resume_run(root, first["run"])
    look = step_of(record, "3_look")
    ended = f"in run {first['run']} it ended as failed"
    assert look["reason"] == f"Ran because {ended}, and its code has changed since run {first['run']}."
    assert statuses(record) == {"1_ingest": "cached", "2_clean": "cached", "3_look": "succeeded"}
    (root / "mended").unlink()
    write_notebook(root, "3_look", FAIL)
    failed = run_project(root, until="3_look", params={"rows": 6})
    write_notebook(root, "2_clean", CLEAN + "\nstep.record(again=1)")
    (root / "mended").touch()
    record = resume_run(root, failed["run"])
    assert statuses(record) == {"1_ingest": "cached", "2_clean": "succeeded", "3_look": "succeeded"}
    assert "its code has changed since run" in step_of(record, "2_clean")["reason"]
    assert step_of(record, "3_look")["reads"]["clean"] == 1


def test_a_run_that_is_resumed_twice(broken):
    root, first = broken
    (root / "mended").unlink()
    second = resume_run(root, first["run"])
    assert statuses(second)["3_look"] == "failed"
    (root / "mended").touch()
    third = resume_run(root)  # the newest
    assert third["resumed_from"] == second["run"] and third["status"] == "succeeded"
    assert step_of(third, "1_ingest")["from_run"] == first["run"]
    with pytest.raises(RunError, match=f"run {third['run']} succeeded: there is nothing to resume"):
        resume_run(root, third["run"])
    assert len(list_runs(root / "runs")) == 3


def test_pinned_versions_that_are_gone(broken):
    root, first = broken
    store = Project(root).store
    store.write("other", pl.DataFrame({"x": [9]}))
    store.vacuum("other", retention_days=0, dry_run=False)
    with pytest.raises(
        StoreError, match=r"pinned version 0 of 'other', which cannot be read any more.*vacuumed"
    ):
        resume_run(root, first["run"])
    code, _, err = call(root, "resume")
    assert code == 1 and "Start anew with `mlworkbench run`" in err and len(list_runs(root / "runs")) == 1


def test_a_step_that_is_gone_from_the_project(broken):
    root, first = broken
    text = (root / "workbench.toml").read_text()
    (root / "workbench.toml").write_text(text.replace("3_look", "3_see"))
    (root / "3_look.ipynb").rename(root / "3_see.ipynb")
    with pytest.raises(ConfigError, match="there is no step '3_look'"):
        resume_run(root, first["run"])


def test_a_run_that_goes_on_and_one_that_was_lost(broken):
    root, _ = broken
    write_notebook(
        root, "3_look", 'open("pid", "w").write("1")\nif not os.path.exists("go"): time.sleep(120)'
    )
    runner = begin(root, "run", "--until", "3_look")
    wait_for((root / "pid").exists)
    code, _, err = call(root, "resume")
    assert code == 1 and "is going on" in err
    runner.kill()
    runner.communicate()
    (root / "go").touch()
    lost = newest_record(root)
    code, record, _ = call(root, "resume", lost["run"])
    assert code == 0 and record["resumed_from"] == lost["run"]
    assert statuses(record) == {"1_ingest": "cached", "2_clean": "cached", "3_look": "succeeded"}
    assert step_of(record, "3_look")["reason"] == f"Ran because in run {lost['run']} it ended as lost."
