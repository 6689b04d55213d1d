"""Whole runs of small projects: order, parallel steps, what is reused and why, gates, retries, records."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest
from flow_project import HANDLE, PLAIN, call, command, statuses, step_of, write_notebook, write_project

from mlworkbench.core.errors import ConfigError
from mlworkbench.core.project import Project
from mlworkbench.flow.plan import make_plan, overall_status
from mlworkbench.flow.records import mark_unsettled, now, project_lock, read_run, seconds_between
from mlworkbench.flow.runner import Run, reasons_now, run_project, stop


def test_independent_steps_run_at_the_same_time_and_a_third_after_both(tmp_path):
    slow = 'time.sleep(1.5)\nstep.write("{}", pl.DataFrame({{"x": [1]}}))'
    root = write_project(
        tmp_path,
        {"name": "c", "reads": ["a", "b"], "code": ['step.record(rows=step.read("a").collect().height)']},
        {"name": "a", "writes": ["a"], "code": [slow.format("a")]},
        {"name": "b", "writes": ["b"], "code": [slow.format("b")]},
    )
    seen = []
    record = run_project(root, jobs=2, listen=lambda record: seen.append(statuses(record)))
    assert statuses(record) == {"a": "succeeded", "b": "succeeded", "c": "succeeded"}
    assert {"a": "running", "b": "running", "c": "pending"} in seen
    a, b, c = (step_of(record, name) for name in "abc")
    assert max(a["ended"], b["ended"]) <= c["started"] and c["metrics"] == {"rows": 1}
    assert c["reads"] == {"a": 0, "b": 0} and a["writes"] == {"a": 0}
    assert read_run(root / "runs", record["run"]) == record
    assert all((root / "runs" / record["run"] / step["html"]).exists() for step in record["steps"])
    assert not (root / "runs" / record["run"] / ".work").exists()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three steps that have run once."""
    root = tmp_path_factory.mktemp("chain")
    (root / "rules.toml").write_text("limit = 1")
    ingest = 'step.write("raw", pl.DataFrame({"x": range(rows)}))\nstep.record(rows=rows)'
    place = "step.record(cwd=os.getcwd(), renderer=os.environ['PLOTLY_RENDERER'], python=sys.executable)"
    clean = 'step.write("clean", step.read("raw").filter(pl.col("x") > 0))'
    write_project(
        root,
        {
            "name": "1_ingest",
            "writes": ["raw"],
            "params": {"rows": 4},
            "params_cell": "rows = 1",
            "code": [ingest],
        },
        {"name": "2_clean", "reads": ["raw"], "writes": ["clean"], "files": ["rules.toml"], "code": [clean]},
        {"name": "3_look", "reads": ["clean"], "code": [place]},
    )
    return root, run_project(root)


def reasons(root):
    run = Run(make_plan(root), "test")
    return {name: "; ".join(reasons_now(run, name)) for name in run.plan.names}


def test_a_notebook_runs_in_the_project_folder_with_this_python_and_its_parameters(chain):
    root, record = chain
    assert record["status"] == "succeeded"
    assert step_of(record, "1_ingest")["metrics"] == {"rows": 4}
    facts = step_of(record, "3_look")["metrics"]
    assert facts == {"cwd": str(root), "renderer": "plotly_mimetype", "python": sys.executable}
    assert [step["title"] for step in record["steps"]] == ["A step"] * 3


def test_run_rows_and_record_agree(chain):
    root, record = chain
    rows = Project(root).store.read("runs").filter(pl.col("run") == record["run"]).collect()
    assert rows["step"].to_list() == [step["name"] for step in record["steps"]]
    assert [json.loads(text) for text in rows["metrics"]] == [step["metrics"] for step in record["steps"]]
    assert rows["status"].to_list() == [step["status"] for step in record["steps"]]
    assert rows["seconds"].to_list() == [step["seconds"] for step in record["steps"]]


def test_nothing_changed_is_answered_without_polars_and_without_a_new_run(chain):
    root, record = chain
    code = (
        "import sys\nfrom mlworkbench.cli.main import main\n"
        "code = main(['run', '--json', '--project', sys.argv[1]])\n"
        "assert not {'polars', 'papermill', 'nbclient', 'rich', 'deltalake'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert set(statuses(answer).values()) == {"cached"} and answer["run"] == record["run"]
    assert [s["metrics"] for s in answer["steps"]] == [s["metrics"] for s in record["steps"]]
    assert len(list((root / "runs").glob("*/run.json"))) == 1


def test_reasons_to_run_again(chain):
    root, _ = chain
    assert set(reasons(root).values()) == {""}
    store, settings = Project(root).store, (root / "workbench.toml").read_text()
    (root / "workbench.toml").write_text(settings.replace("rows = 4", "rows = 5"))
    assert reasons(root)["1_ingest"] == "parameter 'rows' has changed from 4 to 5"
    (root / "workbench.toml").write_text(settings)
    (root / "rules.toml").write_text("limit = 2")
    assert reasons(root) == {"1_ingest": "", "2_clean": "'rules.toml' has changed", "3_look": ""}
    (root / "rules.toml").write_text("limit = 1")
    (root / "uv.lock").write_text("polars 2.1")
    assert set(reasons(root).values()) == {"'uv.lock' has changed"}
    (root / "uv.lock").unlink()
    old = (root / "3_look.ipynb").read_text()
    write_notebook(root, "3_look", "1 + 1")
    assert reasons(root)["3_look"] == "its code has changed"
    (root / "3_look.ipynb").write_text(old.replace("# A step", "# A step, in better words"))
    assert set(reasons(root).values()) == {""}
    store.write("clean", pl.DataFrame({"x": [7]}))
    assert reasons(root)["2_clean"] == "'clean', which it wrote as version 0, is now at version 1"
    assert reasons(root)["3_look"] == "'clean' has changed from version 0 to 1"


def test_a_change_is_followed_as_far_as_it_reaches(chain):
    root, first = chain
    record = run_project(root, until="2_clean")  # after the test above: someone else has written 'clean'
    assert statuses(record) == {"1_ingest": "cached", "2_clean": "succeeded"}
    cached = step_of(record, "1_ingest")
    assert cached["from_run"] == first["run"] and cached["html"] == "1_ingest.html"
    record = run_project(root, only=["3_look"], force=True)
    assert statuses(record) == {"3_look": "succeeded"} and step_of(record, "3_look")["reads"] == {"clean": 2}


def test_findings_of_severity_fail_stop_what_needs_the_step(tmp_path):
    report = (
        "from mlworkbench.core.findings import finding, make_findings\n"
        'step.write("raw", pl.DataFrame({"x": [1]}))\n'
        'step.report(make_findings([finding("unique", "raw", "fail", "3 keys occur twice", 3, 0)]))'
    )
    root = write_project(
        tmp_path,
        {"name": "1_check", "writes": ["raw"], "code": [report]},
        {"name": "2_train", "reads": ["raw"], "writes": ["model"], "code": ["1"]},
        {"name": "3_after", "reads": ["model"], "code": ["1"]},
        {"name": "4_other", "head": PLAIN, "code": ["1"]},
    )
    code, record, _ = call(root, "run")
    assert code == 1 and record["status"] == "gated"
    assert statuses(record) == {
        "1_check": "gated",
        "2_train": "blocked",
        "3_after": "blocked",
        "4_other": "succeeded",
    }
    gated = step_of(record, "1_check")
    assert gated["reason"] == "3 keys occur twice." and gated["writes"] == {} and gated["error"] is None
    assert step_of(record, "2_train")["reason"] == "Step '1_check' ended as gated."
    store = Project(root).store
    assert not store.exists("raw")
    assert store.read("findings").collect().select("step", "message").rows() == [
        ("1_check", "3 keys occur twice")
    ]
    page = (root / "runs" / record["run"] / "1_check.html").read_text()
    assert "3 keys occur twice" in page


def test_a_failing_cell_publishes_nothing_and_is_repeated_next_time(tmp_path):
    write = 'step.write("raw", pl.DataFrame({"x": [1, 2]}))\nstep.record(rows=2)'
    root = write_project(tmp_path, {"name": "1_in", "writes": ["raw"], "code": [write]})
    assert run_project(root)["status"] == "succeeded"
    write_notebook(
        root, "1_in", write.replace("[1, 2]", "[3]"), "depth = 0\n1 / depth", "print('not reached')"
    )
    record = run_project(root)
    step = step_of(record, "1_in")
    assert (record["status"], step["status"], step["writes"]) == ("failed", "failed", {})
    assert (step["error"]["name"], step["error"]["cell"], step["error"]["execution_count"]) == (
        "ZeroDivisionError",
        4,
        3,
    )
    assert "1 / depth" in step["error"]["traceback"] and step["metrics"] == {"rows": 2}
    assert Project(root).store.read("raw").collect()["x"].to_list() == [1, 2]
    executed = json.loads((root / "runs" / record["run"] / "1_in.ipynb").read_text())
    assert executed["metadata"]["mlworkbench"]["status"] == "failed"
    assert [c["metadata"]["papermill"]["status"] for c in executed["cells"][1:]][-2:] == ["failed", "pending"]
    assert reasons(root) == {"1_in": "its code has changed"}


def test_a_retry_starts_afresh(tmp_path):
    flaky = (
        'step.artifact("note.txt").open("a").write("x")\n'
        'tried = os.path.exists("tried")\nopen("tried", "w").close()\n'
        'step.write("raw", pl.DataFrame({"x": [1]}), mode="append")\n'
        'step.record(**{"again" if tried else "first": 1})\n'
        'assert tried, "not yet"'
    )
    root = write_project(
        tmp_path, {"name": "1_in", "writes": ["raw"], "retries": 1, "retry_delay_s": 0, "code": [flaky]}
    )
    record = run_project(root)
    step = step_of(record, "1_in")
    assert (step["status"], step["attempts"], step["metrics"]) == ("succeeded", 2, {"again": 1})
    assert step["reason"] == "Attempt 1 of 2 ended with AssertionError: not yet"
    assert (root / "runs" / record["run"] / "artifacts" / "1_in" / "note.txt").read_text() == "x"
    assert Project(root).store.read("raw").collect().height == 1


FAILS = 'n = len(os.listdir("tries"))\nos.mkdir(f"tries/{n}")\nassert False, f"try {n}"'


def test_the_reason_is_that_of_the_last_attempt(tmp_path):
    root = write_project(
        tmp_path, {"name": "1_in", "head": PLAIN, "retries": 1, "retry_delay_s": 0, "code": [FAILS]}
    )
    (root / "tries").mkdir()
    record = run_project(root)
    step = step_of(record, "1_in")
    assert step["status"] == "failed" and step["reason"] == "Attempt 2 of 2 ended with AssertionError: try 1"
    page = (root / "runs" / record["run"] / step["html"]).read_text()
    assert "Attempt 2 of 2" in page and "Attempt 1 of 2" not in page


def test_a_run_stopped_between_two_attempts(tmp_path):
    root = write_project(tmp_path, {"name": "1_in", "head": PLAIN, "retries": 1, "code": [FAILS]})
    (root / "tries").mkdir()

    def listen(record):
        step = record["steps"][0]
        if step["status"] == "pending" and step["attempts"]:
            assert step["retry_at"]
            stop(run, "Stopped by a test.")

    run = Run(make_plan(root), "test", listen=listen)
    with project_lock(root, "test"):
        run.go()
    step = run.record["steps"][0]
    assert (step["status"], step["attempts"], step["error"]["message"]) == ("failed", 1, "try 0")
    assert overall_status(run.record, interrupted=True) == "interrupted"
    assert step["ended"] and step["reason"] == (
        "Attempt 1 of 2 ended with AssertionError: try 0. The run was stopped before the next attempt."
    )


def test_a_step_that_waits_for_its_next_attempt_holds_up_no_other(tmp_path):
    flaky = {"name": "1_flaky", "head": PLAIN, "retries": 2, "retry_delay_s": 1.5, "code": [FAILS]}
    root = write_project(tmp_path, flaky, {"name": "2_other", "head": PLAIN, "code": ["1"]})
    (root / "tries").mkdir()
    seen, delays = [], []

    def listen(record):
        one, other = record["steps"]
        seen.append((one["status"], one["attempts"], other["status"]))
        if one["status"] == "pending" and one["attempts"] == len(delays) + 1:
            delays.append(seconds_between(now(), one["retry_at"]))

    record = run_project(root, jobs=1, listen=listen)
    assert ("pending", 1, "running") in seen
    step = step_of(record, "1_flaky")
    assert (step["attempts"], step["of_attempts"]) == (3, 3)
    assert [one["error"] for one in step["attempts_log"]] == [f"AssertionError: try {n}" for n in range(3)]
    assert 1.0 < delays[0] <= 1.5 and 2.5 < delays[1] <= 3.0  # what is left of 1.5 s and of twice that
    rows = Project(root).store.read("runs").sort("step").collect()
    assert rows["attempts"].to_list() == [3, 1] and rows["run_status"].to_list() == ["failed"] * 2


def test_what_repeating_cannot_mend_is_not_repeated(tmp_path):
    keys = {"head": PLAIN, "retries": 3, "retry_delay_s": 0}
    root = write_project(tmp_path, {"name": "1_in", "code": ["undefined_name"], **keys})
    step = step_of(run_project(root), "1_in")
    assert (step["status"], step["attempts"], len(step["attempts_log"])) == ("failed", 1, 1)


@pytest.mark.parametrize("code", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(100)"])
def test_a_retry_after_an_end_without_an_exception(tmp_path, code):
    once = f"if not os.path.exists('tried'):\n    open('tried', 'w').close()\n    {code}"
    keys = {"retries": 1, "retry_delay_s": 0, "timeout_s": 4}
    root = write_project(tmp_path, {"name": "1_in", "head": PLAIN, "code": [once], **keys})
    step = step_of(run_project(root), "1_in")
    first = {"os._exit(3)": "kernel_died", "time.sleep(100)": "timed_out"}.get(code, "killed")
    assert [one["status"] for one in step["attempts_log"]] == [first, "succeeded"]


def test_steps_that_run_together_fit_into_the_memory_and_one_that_never_fits_runs_alone(tmp_path):
    work = {"head": PLAIN, "code": ["time.sleep(0.5)"]}
    root = write_project(
        tmp_path,
        *({"name": name, "memory_mb": 600, **work} for name in ("1_a", "2_b")),
        {"name": "3_small", **work},
        {"name": "4_big", "memory_mb": 2000, **work},
    )
    seen = []

    def listen(record):
        seen.append({step["name"] for step in record["steps"] if step["status"] == "running"})

    record = run_project(root, jobs=4, memory_mb=1000, listen=listen)
    assert set(statuses(record).values()) == {"succeeded"}
    assert {"1_a", "3_small"} in seen and not any({"1_a", "2_b"} <= running for running in seen)
    assert all(running == {"4_big"} for running in seen if "4_big" in running)
    assert record["warnings"] == ["step '4_big' may use 2,000 MB, but there are 1,000 MB: it runs alone"]


def test_what_steps_print_at_the_same_time_stays_apart(tmp_path):
    shout = 'for n in range(300):\n    print("{0}" * 50)\n    os.write(2, b"{0}" * 50 + b"\\n")'
    names = ("a", "b")
    root = write_project(
        tmp_path, *({"name": name, "head": PLAIN, "code": [shout.format(name)]} for name in names)
    )
    record = run_project(root, jobs=2)
    for name in names:
        folder = root / "runs" / record["run"]
        printed = [line for line in (folder / f"{name}.log").read_text().splitlines() if line]
        executed = json.loads((folder / f"{name}.ipynb").read_text())
        outputs = [
            text for cell in executed["cells"] for out in cell.get("outputs", []) for text in out["text"]
        ]
        assert set(printed) | set("".join(outputs).split()) == {name * 50}


def test_what_an_unsuccessful_step_left_behind_is_taken_back_before_anything_reads_it(tmp_path):
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "code": ['step.write("raw", pl.DataFrame({"x": [1]}))']},
        {"name": "2_next", "reads": ["raw"], "code": ['step.record(x=step.read("raw").collect()["x"][-1])']},
    )
    first = run_project(root)
    store, path = Project(root).store, root / "runs" / first["run"] / "run.json"
    # as a run leaves it whose store went away while it published, and came back
    store.write("raw", pl.DataFrame({"x": [666]}), run=first["run"])
    broken = json.loads(path.read_text()) | {"status": "failed"}
    broken["steps"][0] |= {"status": "failed", "undone": False, "before": {"raw": 0}}
    path.write_text(json.dumps(broken))
    mark_unsettled(root, first["run"])
    record = run_project(root, only=["2_next"], force=True)
    assert step_of(record, "2_next")["metrics"] == {"x": 1}
    settled = read_run(root / "runs", first["run"])["steps"][0]
    assert (
        settled["undone"] is True
        and "'raw' had been published already and was taken back." in settled["reason"]
    )


def test_steps_that_nobody_needs_are_told_before_anything_starts(tmp_path):
    write = 'step.write("{0}", pl.DataFrame({{"x": [1]}}))'
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "code": [write.format("raw")]},
        {"name": "2_stale", "reads": ["raw"], "writes": ["stale"], "code": [write.format("stale")]},
        {"name": "3_clean", "reads": ["raw"], "writes": ["clean"], "code": [write.format("clean")]},
        {"name": "4_report", "reads": ["clean"], "code": ["1"]},
    )
    code, answer, _ = call(root, "check")
    (warning,) = answer["warnings"]
    assert code == 0 and "no step reads 'stale', which step '2_stale' writes" in warning
    told = []
    record = run_project(root, listen=lambda record: told.append(list(record["warnings"])))
    assert told[0] == [warning] == record["warnings"]
    assert read_run(root / "runs", record["run"])["warnings"] == [warning]
    code, data, _ = call(root, "graph")
    assert [(step["name"], step["status"]) for step in data["steps"]] == [
        (name, "succeeded") for name in ("1_in", "2_stale", "3_clean", "4_report")
    ]
    drawn = subprocess.run(command("graph", "--project", root), capture_output=True, text=True, check=True)
    assert [line.split()[0][0] for line in drawn.stdout.splitlines()] == ["●", "├", "●", "●", "●", "W"]


def test_why_tells_all_that_has_changed_and_shows_the_code(tmp_path):
    clean = 'limit = 1\nstep.write("clean", step.read("raw").filter(pl.col("x") > limit))'
    steps = [
        {"name": "1_in", "writes": ["raw"], "code": ['step.write("raw", pl.DataFrame({"x": [1, 2]}))']},
        {
            "name": "2_clean", "reads": ["raw"], "writes": ["clean"], "files": ["rules.toml"],
            "params_cell": "depth = 1", "params": {"depth": 4}, "code": [clean],
        },
    ]  # fmt: skip
    (tmp_path / "rules.toml").write_text("a = 1")
    root = write_project(tmp_path, *steps)
    record = run_project(root)
    said = subprocess.run(command("why", "2_clean", "--project", root), capture_output=True, text=True)
    assert said.stdout == f"2_clean: nothing has changed; it would be reused from run {record['run']}.\n"
    steps[1] |= {"params": {"depth": 6}, "code": [clean.replace("limit = 1", "limit = 2")]}
    write_project(root, *steps)
    (root / "rules.toml").write_text("a = 2")
    (root / "uv.lock").write_text("polars 2.1")
    Project(root).store.write("raw", pl.DataFrame({"x": [9]}))
    _, answer, _ = call(root, "why", "2_clean")
    assert answer["reasons"] == [
        "'raw' has changed from version 0 to 1",
        "parameter 'depth' has changed from 4 to 6",
        "'rules.toml' has changed",
        "its code has changed",
        "'uv.lock' has changed",
    ]
    assert answer["code"] == ["code cell 3:", "- limit = 1", "+ limit = 2"]
    assert list(answer["before"]) == ["1_in"]
    _, answer, _ = call(root, "why", "2_clean", "-p", "depth=8")
    assert "parameter 'depth' has changed from 4 to 8" in answer["reasons"]
    assert not {"why", "none"} & set(os.listdir(root / "runs"))


def test_an_object_store_that_cannot_be_reached(tmp_path):
    options = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    options |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    root = write_project(
        tmp_path, {"name": "1_in", "reads": ["raw"], "code": ["1"]}, store="s3://bucket/small"
    )
    with open(root / "workbench.toml", "a") as file:
        file.write("[project.storage_options]\n")
        file.writelines(f'{key} = "{value}"\n' for key, value in options.items())
    code, answer, err = call(root, "check")
    assert code == 2 and "s3://bucket/small cannot be reached" in answer["problems"][0]
    code, answer, err = call(root, "run")
    assert code != 0 and "s3://bucket/small cannot be reached" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"rwos": 1}}, "Did you mean 'rows'"),
        ({"reads": ["rwa"]}, "Did you mean 'raw'"),
        ({"notebook": "2_lok.ipynb"}, "unknown key|Did you mean|there is no notebook"),
    ],
)
def test_wrong_use_is_told_before_anything_starts(tmp_path, change, message):
    step = {"name": "2_look", "params_cell": "rows = 1", "reads": ["raw"], "code": ["1"]}
    change = dict(change)
    notebook = change.pop("notebook", None)
    root = write_project(tmp_path, {"name": "1_in", "writes": ["raw"], "code": ["1"]}, step | change)
    if notebook:
        text = (root / "workbench.toml").read_text()
        (root / "workbench.toml").write_text(text.replace("2_look.ipynb", notebook))
    with pytest.raises(ConfigError, match=message):
        run_project(root)
    code, answer, err = call(root, "run")
    assert code == 2 and "error" in answer and "Traceback" not in err
    assert call(root, "check")[:2][0] == 2 and not (root / "runs").exists()


def test_a_kernel_named_python3_that_leads_elsewhere_is_not_used(tmp_path):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    wrong = {"argv": ["/bin/false", "{connection_file}"], "display_name": "elsewhere", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(wrong))
    root = write_project(
        tmp_path / "with {braces} and spaces",
        {"name": "1_look", "head": PLAIN, "code": ["print(sys.executable)"]},
    )
    code, record, err = call(root, "run", env={**os.environ, "JUPYTER_PATH": str(tmp_path)})
    assert code == 0, (record, err)
    assert sys.executable in (root / "runs" / record["run"] / "1_look.ipynb").read_text()


def test_summary_on_the_terminal_names_the_gallery_and_no_traceback(tmp_path):
    root = write_project(tmp_path, {"name": "1_bad", "head": PLAIN, "code": ['raise ValueError("no rows")']})
    done = subprocess.run(command("run", "--project", root), capture_output=True, text=True)
    assert done.returncode == 1 and "1_bad: In [2]: ValueError: no rows" in done.stdout
    assert f"Reports: {(root / 'runs/index.html').as_uri()}" in done.stdout
    assert "1. 1_bad: running" in done.stderr and "Traceback" not in done.stdout + done.stderr
    again = subprocess.run(command("report", "--project", root), capture_output=True, text=True, check=True)
    assert "Wrote 1 page of run" in again.stdout
    shown = subprocess.run(command("status", "--project", root), capture_output=True, text=True, check=True)
    assert "ValueError: no rows" in shown.stdout and HANDLE not in shown.stdout
