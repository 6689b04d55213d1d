"""Sweeps and backfills through the command line: kept apart, resumable, stopped and killed."""

import copy
import json
import signal
import subprocess

import polars as pl
import pytest
from flow_project import PLAIN, begin, call, command, end, newest_record, step_of, wait_for, write_project

from mlworkbench.core.project import Project
from mlworkbench.flow.batch import plan_batch, read_batch, run_batch
from mlworkbench.flow.records import read_run

LOAD = 'step.write("days", pl.DataFrame({"month": [str(month)]}), mode="append")\nstep.record(months=1)'


def entries(batch, *keys):
    return [tuple(entry[key] for key in keys) for entry in batch["combinations"]]


def statuses(batch):
    return [entry["status"] for entry in batch["combinations"]]


@pytest.fixture
def training(tmp_path):
    """A step that makes rows, one that trains with a depth and a share, one that judges."""
    fit = 'step.write("model", step.read("rows").with_columns(depth=depth, share=share))'
    judge = 'model = step.read("model").collect()\nstep.record(score=model["depth"][0] * model["share"][0])'
    return write_project(
        tmp_path,
        {
            "name": "1_rows", "writes": ["rows"],
            "code": ['step.write("rows", pl.DataFrame({"x": [1]}))\nstep.record(rows=1)'],
        },
        {
            "name": "2_train", "reads": ["rows"], "writes": ["model"], "params": {"depth": 5}, "code": [fit],
            "params_cell": "depth: int = 4  # tree depth, 1..12\nshare = 0.5",
        },
        {"name": "3_judge", "reads": ["model"], "code": [judge]},
    )  # fmt: skip


def test_a_crossed_sweep_makes_a_run_of_its_own_for_each_combination(training):
    code, batch, err = call(training, "run", "--sweep", "depth=4,6", "--sweep", "share=0.5,1")
    assert code == 0 and batch["status"] == "succeeded" and batch["kind"] == "sweep", err
    pairs = [(4, 0.5), (4, 1.0), (6, 0.5), (6, 1.0)]
    assert [tuple(e["values"].values()) for e in batch["combinations"]] == pairs
    metrics = [{"score": d * s, "rows": 1} for d, s in pairs]  # also of the step that was reused
    assert [e["metrics"] for e in batch["combinations"]] == metrics
    runs = [entry["run"] for entry in batch["combinations"]]
    assert len(set(runs)) == 4
    store = Project(training).store
    for entry, (depth, share) in zip(batch["combinations"], pairs, strict=True):
        record = read_run(training / "runs", entry["run"])
        assert record["batch"] == {
            "id": batch["id"], "kind": "sweep", "values": entry["values"], "number": entry["number"], "of": 4
        }  # fmt: skip
        assert record["trigger"] == {"kind": "sweep", "batch": batch["id"]}
        assert step_of(record, "2_train")["params"] == {"depth": depth, "share": share}
        made = store.read("model", entry["writes"]["model"]).collect()
        assert made.select("depth", "share").rows() == [(depth, share)]
        assert step_of(record, "3_judge")["reads"] == {"model": entry["writes"]["model"]}
    rows = store.read("runs").collect()
    assert set(rows.filter(pl.col("batch") == batch["id"])["run"]) == set(runs)
    assert [step_of(read_run(training / "runs", run), "1_rows")["status"] for run in runs[1:]] == [
        "cached"
    ] * 3
    assert (
        json.loads((training / ".mlworkbench/batches" / f"{batch['id']}.json").read_text())["status"]
        == "succeeded"
    )
    after = call(training, "run")[1]
    assert step_of(after, "2_train")["params"] == {"depth": 5}  # the newest version is workbench.toml's again


def test_a_dry_run_lists_and_checks_and_starts_nothing(training):
    code, batch, _ = call(training, "run", "--sweep", "depth=4..6", "--dry-run")
    assert code == 0 and [e["values"]["depth"] for e in batch["combinations"]] == [4, 5, 6]
    assert set(statuses(batch)) == {"pending"} and not (training / "runs").exists()
    assert not (training / ".mlworkbench/batches").exists()
    listed = subprocess.run(
        command("run", "--sweep", "2_train.depth=4,6", "--dry-run", "--project", training),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "2 runs; nothing has been started." in listed.stdout
    for wrong, message in (
        (["--sweep", "depth=4,13"], "step '2_train': the parameter 'depth' is '13'. Accepted: int, 1..12."),
        (["--sweep", "dept=4"], "Did you mean 'depth'?"),
        (["--backfill", "depth=6..4"], "is empty"),
        (["--dry-run"], "is for the runs of a --sweep"),
        (["-p", "depth=x", "--sweep", "share=1"], "'depth' is 'x'"),
    ):
        code, answer, _ = call(training, "run", *wrong)
        assert code == 2 and message in answer["error"]
    assert not (training / "runs").exists()
    given = ["-p", "2_train.share=0.1", "--sweep", "share=0.5,1", "--dry-run"]
    code, answer, _ = call(training, "run", *given)
    assert code == 2 and "runs 1 and 2 would get the same parameters" in answer["error"]
    code, answer, _ = call(training, "run", "--fail-fast")
    assert code == 2 and "--fail-fast" in answer["error"]


def test_parameters_on_the_command_line_and_in_a_file(training, tmp_path):
    file = tmp_path / "more.toml"
    file.write_text("depth = 7\nshare = 0.25")
    code, record, _ = call(training, "run", "--params-file", file, "-p", "2_train.depth=8")
    train = step_of(record, "2_train")
    assert code == 0 and train["params"] == {"depth": 8, "share": 0.25}
    assert train["declared"][0]["name"] == "depth" and train["declared"][0]["bounds"] == "1..12"
    assert step_of(record, "3_judge")["metrics"] == {"score": 2.0}
    executed = json.loads((training / "runs" / record["run"] / "2_train.ipynb").read_text())
    tags = [cell["metadata"].get("tags") for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert tags[:2] == [["parameters"], ["injected-parameters"]]
    injected = next(c for c in executed["cells"] if c["metadata"].get("tags") == ["injected-parameters"])
    assert "".join(injected["source"]).splitlines()[-2:] == ["depth = 8", "share = 0.25"]
    code, answer, _ = call(training, "run", "-p", "api_key=hush")
    assert code == 2 and "no step of this run declares the parameter 'api_key'" in answer["error"]


@pytest.fixture
def loading(tmp_path):
    """A step that appends one month, and fails for one as long as a file says so."""
    check = 'from pathlib import Path\nassert str(month) != Path("bad").read_text(), f"no rows for {month}"'
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "bad").write_text("2013-02-01")
    return write_project(
        tmp_path / "p",
        {
            "name": "1_load", "writes": ["days"], "params_cell": "month: 'date | None' = None", "code": [LOAD]
        },
        {
            "name": "2_check", "reads": ["days"], "writes": ["counts"],
            "params_cell": "month: 'date | None' = None",
            "code": [check, 'step.write("counts", step.read("days").select(pl.len()))'],
        },
    )  # fmt: skip


def test_a_backfill_goes_on_after_a_failure_and_is_resumed_without_repeating_what_was_loaded(loading):
    code, batch, _ = call(loading, "run", "--backfill", "month=2013-01..2013-03")
    assert code == 1 and batch["status"] == "failed" and batch["kind"] == "backfill"
    assert entries(batch, "values", "status") == [
        ({"month": "2013-01-01"}, "succeeded"),
        ({"month": "2013-02-01"}, "failed"),
        ({"month": "2013-03-01"}, "succeeded"),
    ]
    assert batch["combinations"][1]["reason"] == "2_check: AssertionError: no rows for 2013-02-01"
    days = Project(loading).store.read("days").collect()["month"].sort().to_list()
    assert days == ["2013-01-01", "2013-02-01", "2013-03-01"]  # one each; 1_load succeeded in all three
    (loading / "bad").write_text("")
    code, again, _ = call(loading, "resume", batch["id"])
    assert code == 0 and statuses(again) == ["succeeded"] * 3 and again["id"] == batch["id"]
    assert [e["run"] for e in again["combinations"]][::2] == [e["run"] for e in batch["combinations"]][::2]
    resumed = read_run(loading / "runs", again["combinations"][1]["run"])
    assert resumed["resumed_from"] == batch["combinations"][1]["run"] and resumed["batch"]["number"] == 2
    assert Project(loading).store.read("days").collect()["month"].sort().to_list() == days
    code, answer, _ = call(loading, "resume", batch["id"])
    assert code != 0 and "there is nothing to resume" in answer["error"]
    code, answer, _ = call(loading, "resume", "b2013")
    assert code != 0 and "b2013" in answer["error"]


def test_a_combination_that_was_resumed_by_hand_is_not_repeated(loading):
    batch = call(loading, "run", "--backfill", "month=2013-01..2013-02")[1]
    (loading / "bad").write_text("")
    code, record, _ = call(loading, "resume", batch["combinations"][1]["run"])
    assert code == 0 and record["batch"]["id"] == batch["id"]
    code, again, _ = call(loading, "resume", batch["id"])
    assert code == 0 and again["combinations"][1]["run"] == record["run"]
    assert Project(loading).store.read("days").collect().height == 2


def test_the_first_failure_ends_a_batch_where_that_is_asked_for(loading):
    done = subprocess.run(
        command("run", "--backfill", "month=2013-01..2013-03", "--fail-fast", "--project", loading),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "1 of 3 succeeded" in done.stdout
    batch = read_batch(loading, "b")
    assert statuses(batch) == ["succeeded", "failed", "pending"]
    assert f"mlworkbench resume {batch['id']}" in done.stdout
    assert (loading / "runs/index.html").as_uri() in done.stdout


@pytest.fixture
def slow(tmp_path):
    code = (
        "import pathlib\nif number == 2: pathlib.Path('waits').touch()\n"
        "while number == 2 and not pathlib.Path('go').exists(): time.sleep(0.05)"
    )
    step = {"name": "1_wait", "head": PLAIN, "params_cell": "number = 0", "code": [code]}
    return write_project(tmp_path, step)


def in_second(root):
    """The record of the second run, once its cell waits."""
    return newest_record(root) if (root / "waits").exists() else None


def test_ctrl_c_ends_the_run_that_goes_on_and_leaves_the_rest(slow):
    process = begin(slow, "run", "--sweep", "number=1,2,3")
    wait_for(lambda: in_second(slow))
    code, batch, err = end(process, signal.SIGINT)
    assert code == 130 and batch["status"] == "interrupted", err
    assert statuses(batch) == ["succeeded", "interrupted", "pending"]
    (slow / "go").touch()
    code, again, _ = call(slow, "resume")  # the newest run is a part of it
    assert code == 0 and statuses(again) == ["succeeded"] * 3
    assert again["combinations"][0]["run"] == batch["combinations"][0]["run"]


def test_a_batch_whose_runner_was_killed_is_resumed(slow):
    process = begin(slow, "run", "--sweep", "number=1,2,3")
    wait_for(lambda: in_second(slow))
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    for stream in (process.stdout, process.stderr):
        stream.close()
    batch = read_batch(slow, "b")
    assert statuses(batch) == ["succeeded", "running", "pending"]
    assert call(slow, "status", batch["id"])[1]["status"] == "interrupted"
    assert call(slow, "tag", batch["combinations"][0]["run"], "best")[0] == 0
    assert call(slow, "status", "best")[1]["run"] == batch["combinations"][0]["run"]
    (slow / "go").touch()
    code, again, _ = call(slow, "resume", batch["id"])
    assert code == 0 and statuses(again) == ["succeeded"] * 3
    lost = read_run(slow / "runs", batch["combinations"][1]["run"])
    assert lost["status"] == "lost" and lost["batch"]["number"] == 2
    assert read_run(slow / "runs", again["combinations"][1]["run"])["resumed_from"] == lost["run"]


def test_two_processes_do_not_go_on_with_the_same_batch(slow):
    process = begin(slow, "run", "--sweep", "number=1,2")
    record = wait_for(lambda: in_second(slow))
    code, answer, _ = call(slow, "resume", record["batch"]["id"], "--wait")
    assert code == 2 and "another process goes on with batch" in answer["error"]
    code, answer, _ = call(slow, "status", record["batch"]["id"])
    assert code == 0 and answer["status"] == "running" and statuses(answer) == ["succeeded", "running"]
    code, answer, _ = call(slow, "run", "--sweep", "number=4,5")
    assert code == 2 and "is going on" in answer["error"]
    (slow / "go").touch()
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["status"] == "succeeded"
    assert [path.stem for path in (slow / ".mlworkbench/batches").glob("*.json")] == [record["batch"]["id"]]


def test_tables_that_no_step_of_the_batch_writes_are_read_as_they_were_when_it_began(tmp_path):
    count = 'step.record(rows=step.read("raw").collect().height)'
    root = write_project(
        tmp_path, {"name": "1_look", "reads": ["raw"], "params_cell": "depth = 1", "code": [count]}
    )
    store = Project(root).store
    store.write("raw", pl.DataFrame({"x": [1]}))
    batch = plan_batch(root, sweep=["depth=1,2"])
    store.write("raw", pl.DataFrame({"x": [1, 2]}))
    stale = copy.deepcopy(batch)
    done = run_batch(root, batch)
    assert [e["metrics"] for e in done["combinations"]] == [{"rows": 1}, {"rows": 1}]
    again = run_batch(root, stale)  # read before another process went on with it: nothing is run twice
    assert again["combinations"] == done["combinations"]


def test_a_step_that_is_misspelt_after_the_plan_is_told_in_its_combination(slow):
    batch = plan_batch(slow, sweep=["number=1,3"])
    text = (slow / "workbench.toml").read_text()
    (slow / "workbench.toml").write_text(text.replace("1_wait.ipynb", "1_wiat.ipynb"))
    done = run_batch(slow, batch)
    assert statuses(done) == ["failed", "failed"]
    assert "there is no step '1_wait'" in done["combinations"][0]["reason"]
