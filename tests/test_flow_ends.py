"""Every way a step or a run can end, done for real, and that the record, the notebook and the page say so."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from html import unescape

import polars as pl
import psutil
import pytest
from conftest import s3_server
from flow_project import (
    PLAIN,
    begin,
    call,
    end,
    is_alive,
    newest_record,
    statuses,
    step_of,
    wait_for,
    write_notebook,
    write_project,
)

from mlworkbench.core.project import Project
from mlworkbench.core.words import status_words
from mlworkbench.flow.records import lock_holder, unsettled_runs
from mlworkbench.flow.runner import run_project

# Writes a table and then waits, so that whoever publishes too early is caught; says which process it is.
WAIT = (
    'step.write("raw", pl.DataFrame({"x": [1]}))\nopen("pid", "w").write(str(os.getpid()))\ntime.sleep(120)'
)


def waiting(root, **keys):
    return write_project(
        root,
        {"name": "1_in", "writes": ["raw"], "code": [WAIT, "1"], **keys},
        {"name": "2_next", "reads": ["raw"], "code": ["1"]},
    )


def kernel_pid(root):
    """The kernel's process, once its notebook has come to the waiting cell."""
    path = root / "pid"
    return int(wait_for(lambda: path.exists() and path.read_text()))


def assert_told_everywhere(root, record, status, *words, stopped=True, version=None):
    """run.json, the table `runs`, the executed notebook and the page agree; the table is as it was."""
    assert newest_record(root) == {key: value for key, value in record.items() if key != "gallery"}
    rows = Project(root).store.read("runs").filter(pl.col("run") == record["run"]).sort("step").collect()
    assert dict(rows.select("step", "status").rows()) == statuses(record)
    assert rows["run_status"].unique().to_list() == [record["status"]]
    step = step_of(record, "1_in")
    assert step["status"] == status and step["writes"] == {} and step["ended"]
    error = step["error"]
    said = f"{error['name']}: {error['message']}" if error else None
    assert rows["error"][0] == said and all(word in (said or step["reason"]) for word in words), step
    folder = root / "runs" / record["run"]
    sealed = json.loads((folder / "1_in.ipynb").read_text())
    facts = sealed["metadata"]["mlworkbench"]
    assert (facts["status"], facts["error"]) == (status, error)
    badge = status_words(status)["text"]
    assert badge in "".join(sealed["cells"][0]["source"])
    ran = [cell["metadata"]["papermill"]["status"] for cell in sealed["cells"] if cell["cell_type"] == "code"]
    assert "running" not in ran and (not stopped or ("failed" in ran and ran[-1] == "pending"))
    page = unescape((folder / step["html"]).read_text())
    top = re.sub(r"<[^>]*>", " ", page[page.index("<h1") : page.index("<h1") + 4000])
    assert badge in top and ([*error["message"].splitlines(), ""][0] if error else step["reason"]) in top
    store = Project(root).store
    assert (store.version("raw") if store.exists("raw") else None) == version
    assert lock_holder(root) is None and unsettled_runs(root) == []


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("os._exit(7)", "kernel_died", ["exit status 7"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", ["SIGKILL"]),
        ("import ctypes; ctypes.string_at(0)", "kernel_died", ["SIGSEGV"]),
    ],
)
def test_a_kernel_that_dies(tmp_path, code, status, words):
    write = 'step.write("raw", pl.DataFrame({"x": [1]}))'
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "code": [write, code, "1"]},
        {"name": "2_next", "reads": ["raw"], "code": ["1"]},
    )
    record = run_project(root)
    assert record["status"] == "failed" and statuses(record)["2_next"] == "blocked"
    assert step_of(record, "1_in")["error"]["cell"] == 4
    assert_told_everywhere(root, record, status, *words)
    if "SIGSEGV" in words:  # the kernel's last words
        assert "Segmentation fault" in step_of(record, "1_in")["error"]["traceback"]


def test_a_step_that_takes_more_memory_than_it_may(tmp_path):
    hungry = 'step.write("raw", pl.DataFrame({"x": [1]}))\nhoard = bytearray(700_000_000)\ntime.sleep(120)'
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "memory_mb": 500, "code": [hungry, "1"]},
        {"name": "2_next", "reads": ["raw"], "code": ["1"]},
    )
    record = run_project(root)
    assert_told_everywhere(root, record, "kernel_died", "memory", "500")


@pytest.mark.parametrize(
    "code", ["1 / 0", "raise SystemExit(3)", "import nowhere", "raise ValueError('half \\ud800')"]
)
def test_a_cell_that_fails(tmp_path, code):
    write = 'step.write("raw", pl.DataFrame({"x": [1]}))'
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "code": [write, code, "1"]},
        {"name": "2_next", "reads": ["raw"], "code": ["1"]},
    )
    record = run_project(root)
    assert record["status"] == "failed" and statuses(record)["2_next"] == "blocked"
    assert_told_everywhere(root, record, "failed")


def test_half_a_character_does_not_keep_a_step_from_publishing(tmp_path):
    write = 'step.write("raw", pl.DataFrame({"x": [1]}))'
    root = write_project(tmp_path, {"name": "1_in", "writes": ["raw"], "code": [write, "print('\\ud800')"]})
    record = run_project(root)
    step = step_of(record, "1_in")
    assert (step["status"], step["writes"], step["html"]) == ("succeeded", {"raw": 0}, "1_in.html")


def test_a_step_that_its_findings_stop(tmp_path):
    report = (
        "from mlworkbench.core.findings import finding, make_findings\n"
        'step.write("raw", pl.DataFrame({"x": [1]}))\n'
        'step.report(make_findings([finding("unique", "raw", "fail", "3 keys occur twice", 3, 0)]))'
    )
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "code": [report]},
        {"name": "2_next", "reads": ["raw"], "code": ["1"]},
    )
    record = run_project(root)
    assert record["status"] == "gated" and statuses(record)["2_next"] == "blocked"
    assert_told_everywhere(root, record, "gated", "3 keys occur twice", stopped=False)


def test_a_cell_that_takes_longer_than_a_cell_may(tmp_path):
    slow = 'step.write("raw", pl.DataFrame({"x": [1]}))\ntime.sleep(120)'
    keys = {"name": "1_in", "writes": ["raw"], "cell_timeout_s": 2, "timeout_s": 100}
    root = write_project(tmp_path, keys | {"code": ["time.sleep(1.5)", slow, "1"]})
    record = run_project(root)
    assert step_of(record, "1_in")["error"]["cell"] == 4
    assert_told_everywhere(root, record, "timed_out", "2 s", "cell_timeout_s")


def test_time_that_runs_out_although_the_notebook_does_not_listen(tmp_path):
    deaf = "\nwhile True:\n    try:\n        time.sleep(120)\n    except KeyboardInterrupt:\n        pass"
    root = write_project(tmp_path, {"name": "1_in", "writes": ["raw"], "timeout_s": 3, "code": [deaf, "1"]})
    record = run_project(root)
    assert record["status"] == "failed" and step_of(record, "1_in")["error"]["cell"] == 3
    assert_told_everywhere(root, record, "timed_out", "3 s")


def test_a_notebook_stopped_in_time_shows_where_it_was(tmp_path):
    root = waiting(tmp_path, timeout_s=3)
    record = run_project(root)
    assert_told_everywhere(root, record, "timed_out", "3 s")
    assert "time.sleep(120)" in step_of(record, "1_in")["error"]["traceback"]
    assert not is_alive(kernel_pid(root))


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_runner_that_is_told_to_stop(tmp_path, number, word):
    root = waiting(tmp_path)
    runner = begin(root, "run", start_new_session=True)
    kernel = kernel_pid(root)
    code, record, err = end(runner, number)
    assert code == 130 and record["status"] == "interrupted" and word in record["reason"]
    assert "Traceback" not in err and not is_alive(kernel)
    assert statuses(record)["2_next"] == "blocked"
    assert_told_everywhere(root, record, "interrupted", "stopped")


def test_a_runner_that_is_told_to_stop_before_the_first_cell(tmp_path):
    root = waiting(tmp_path)
    runner = begin(root, "run")
    wait_for(lambda: newest_record(root))
    code, record, _ = end(runner, signal.SIGTERM)
    assert code == 130 and record["status"] == "interrupted"
    assert set(statuses(record).values()) <= {"interrupted", "blocked"} and not Project(root).store.exists(
        "raw"
    )
    assert newest_record(root)["status"] == "interrupted" and lock_holder(root) is None


@pytest.mark.parametrize("engine", ["preloaded", "plain"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_kernel_that_is_interrupted_or_killed_from_outside(tmp_path, number, engine):
    root = waiting(tmp_path)
    runner = begin(root, "run", "--engine", engine)
    os.kill(kernel_pid(root), number)
    record = json.loads(runner.communicate(timeout=60)[0])
    assert record["engine"] == engine and record["reason"] == ""
    if number == signal.SIGINT:
        assert runner.returncode == 130
        assert_told_everywhere(root, record, "interrupted")
    else:
        assert runner.returncode == 1
        assert_told_everywhere(root, record, "killed", number.name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_process_of_a_step_is_killed(tmp_path, number):
    root = waiting(tmp_path)
    runner = begin(root, "run")
    kernel = kernel_pid(root)
    os.kill(psutil.Process(kernel).ppid(), number)
    record = json.loads(runner.communicate(timeout=60)[0])
    assert_told_everywhere(root, record, "killed", number.name)
    wait_for(lambda: not is_alive(kernel))


def test_a_runner_that_is_killed_takes_its_kernels_along_and_is_found_out(tmp_path):
    root = waiting(tmp_path)
    runner = begin(root, "run")
    kernel = kernel_pid(root)
    runner.kill()
    runner.communicate()
    wait_for(lambda: not is_alive(kernel))
    code, record, _ = call(root, "status")
    assert code == 0 and record["status"] == "lost" and record["reason"] == "The runner was killed."
    assert statuses(record) == {"1_in": "lost", "2_next": "blocked"}
    assert_told_everywhere(root, record, "lost", "the runner was killed", stopped=False)


def test_a_step_is_said_to_run_before_it_has_a_process(tmp_path, monkeypatch):
    root, seen = waiting(tmp_path), []

    def start(job, finish):
        seen.append(newest_record(root)["steps"][0]["status"])
        raise OSError("no more processes")

    monkeypatch.setattr("mlworkbench.flow.process.StepProcess", start)
    with pytest.raises(OSError, match="no more processes"):
        run_project(root)
    assert seen == ["running"]


def test_what_a_lost_step_had_recorded_is_kept_and_no_folder_is_left(tmp_path):
    known = (
        "from mlworkbench.core.findings import finding, make_findings\nstep.record(rows=3)\n"
        'step.report(make_findings([finding("rows", "raw", "warn", "few rows", 3, 9)]))'
    )
    root = write_project(tmp_path / "p", {"name": "1_in", "writes": ["raw"], "code": [known, WAIT]})
    temporary = tmp_path / "t"
    temporary.mkdir()
    runner = begin(root, "run", env={**os.environ, "TMPDIR": str(temporary)})
    kernel = kernel_pid(root)
    step = psutil.Process(kernel).parent()
    step.suspend()  # so that it does not tidy up when the runner goes
    runner.kill()
    step.kill()
    runner.communicate()
    wait_for(lambda: not is_alive(kernel))
    _, record, _ = call(root, "status")
    assert_told_everywhere(root, record, "lost", "the runner was killed", stopped=False)
    lost = step_of(record, "1_in")
    assert lost["metrics"] == {"rows": 3} and [one["message"] for one in lost["findings"]] == ["few rows"]
    assert Project(root).store.read("findings").collect()["message"].to_list() == ["few rows"]
    assert list(temporary.iterdir()) == []


def test_a_lost_run_is_found_by_the_next_one(tmp_path):
    root = waiting(tmp_path)
    runner = begin(root, "run")
    kernel_pid(root)
    runner.kill()
    runner.communicate()
    write_notebook(root, "1_in", 'step.write("raw", pl.DataFrame({"x": [2]}))')
    record = run_project(root)
    assert statuses(record) == {"1_in": "succeeded", "2_next": "succeeded"}
    rows = Project(root).store.read("runs").sort("run", "step").collect()
    assert rows["status"].to_list() == ["lost", "blocked", "succeeded", "succeeded"]
    assert rows["run_status"].to_list() == ["lost", "lost", "succeeded", "succeeded"]


def stuck_while_publishing(root):
    """A step whose first table is published and whose second cannot be read: there its process waits."""
    block = (
        'step.write("a", pl.DataFrame({"x": [1]}))\nstep.write("b", pl.DataFrame({"x": [2]}))\n'
        'import json, pathlib\nstaged = next(pathlib.Path("runs").glob("*/.work/1_in/staged"))\n'
        'file = staged / json.loads((staged / "writes.json").read_text())[1]["file"]\n'
        'file.unlink()\nos.mkfifo(file)\nopen("pid", "w").write(str(os.getppid()))'
    )
    write_project(root, {"name": "1_in", "writes": ["a", "b"], "code": [block]})
    runner = begin(root, "run", start_new_session=True)
    publisher = kernel_pid(root)
    wait_for(lambda: Project(root).store.exists("a"))
    return runner, publisher


def assert_taken_back(root, record, status):
    step = step_of(record, "1_in")
    assert (step["status"], step["writes"], step["undone"]) == (status, {}, True)
    assert "'a' had been published already and was taken back." in step["reason"]
    assert newest_record(root)["steps"][0] == step
    assert not {"a", "b"} & set(Project(root).store.tables()) and unsettled_runs(root) == []


def test_a_process_killed_while_it_publishes(tmp_path):
    runner, publisher = stuck_while_publishing(tmp_path)
    os.kill(publisher, signal.SIGKILL)
    record = json.loads(runner.communicate(timeout=60)[0])
    assert_taken_back(tmp_path, record, "killed")


def test_one_ctrl_c_lets_a_step_publish_and_the_second_does_not(tmp_path):
    runner, publisher = stuck_while_publishing(tmp_path)
    os.kill(publisher, signal.SIGTERM)
    runner.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        runner.wait(timeout=3)
    assert is_alive(publisher)
    code, record, _ = end(runner, signal.SIGINT)
    assert code == 130
    assert_taken_back(tmp_path, record, "interrupted")


def test_a_runner_killed_while_a_step_publishes(tmp_path):
    runner, publisher = stuck_while_publishing(tmp_path)
    runner.kill()
    runner.wait(timeout=60)
    _, record, _ = call(tmp_path, "status")
    runner.communicate(timeout=60)
    assert not is_alive(publisher)
    assert_taken_back(tmp_path, record, "lost")


def test_a_step_that_appends_and_dies_after_its_commit_appends_once(tmp_path):
    append = 'step.write("raw", pl.DataFrame({"x": [step.run]}), mode="append")'
    block = (
        '\nif not os.path.exists("tried"):\n'
        '    open("tried", "w").close()\n'
        '    step.write("b", pl.DataFrame({"x": [2]}))\n'
        "    import json, pathlib\n"
        '    staged = next(pathlib.Path("runs").glob("*/.work/1_in/staged"))\n'
        '    (staged / json.loads((staged / "writes.json").read_text())[1]["file"]).write_text("no parquet")'
    )
    keys = {"name": "1_in", "writes": ["raw", "b"], "retries": 1, "retry_delay_s": 0}
    root = write_project(tmp_path, keys | {"code": [append]})
    first = run_project(root)
    assert "did not: there is none yet" in first["warnings"][0] and "'b'" in first["warnings"][0]
    write_notebook(root, "1_in", append + block)
    record = run_project(root)
    step = step_of(record, "1_in")
    assert [one["status"] for one in step["attempts_log"]] == ["failed", "succeeded"]
    store = Project(root).store
    assert store.read("raw").collect()["x"].sort().to_list() == [first["run"], record["run"]]
    assert store.history("raw")["mode"].to_list() == ["append", "restore", "append", "append"]


def test_a_folder_for_temporary_files_with_a_long_name(tmp_path):
    root = write_project(tmp_path, {"name": "1_in", "head": PLAIN, "code": ["1"]})
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code, record, err = call(root, "run", env={**os.environ, "TMPDIR": str(long)})
    assert code == 0 and record["status"] == "succeeded", err


def test_what_a_notebook_has_started_ends_with_it(tmp_path):
    child = "import subprocess\nstep.record(child=subprocess.Popen(['sleep', '300']).pid)"
    root = write_project(tmp_path, {"name": "1_in", "code": [child]})
    record = run_project(root)
    assert record["status"] == "succeeded"
    wait_for(lambda: not is_alive(record["steps"][0]["metrics"]["child"]))


def test_two_runs_at_once(tmp_path):
    root = write_project(
        tmp_path, {"name": "1_in", "head": PLAIN, "code": ["open('pid', 'w').write('1')\ntime.sleep(4)"]}
    )
    first = begin(root, "run")
    kernel_pid(root)
    holder = lock_holder(root)
    code, _, err = call(root, "run")
    assert code == 2 and f"run {holder['run']} of this project" in err and f"process {holder['pid']}" in err
    waiting = begin(root, "run", "--wait")
    out, err = waiting.communicate(timeout=60)
    record = json.loads(first.communicate(timeout=60)[0])
    assert record["run"] == holder["run"] and "Waiting: run" in err
    assert statuses(json.loads(out)) == {"1_in": "cached"}


def limit_files(size):
    """A disk on which no file can grow beyond a size."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_is_full_while_a_table_is_written(tmp_path):
    big = 'step.write("raw", pl.select(x=pl.int_range(rows).sin()))'
    keys = {"name": "1_in", "writes": ["raw"], "params_cell": "rows = 10", "code": [big, "1"]}
    root = write_project(tmp_path, keys | {"params": {"rows": 10}})
    assert call(root, "run")[0] == 0
    write_project(root, keys | {"params": {"rows": 2_000_000}})
    code, record, err = call(root, "run", preexec_fn=limit_files(4_000_000))
    step = step_of(record, "1_in")
    assert code == 1 and step["error"]["name"] == "StoreError"
    assert_told_everywhere(root, record, "failed", "raw", "full", version=0)
    assert Project(root).store.read("raw").collect().height == 10 and "Traceback" not in err


def test_a_disk_that_is_full_while_the_record_is_written(tmp_path):
    root = write_project(tmp_path, {"name": "1_in", "head": PLAIN, "code": ["1"]})
    code, answer, err = call(root, "run", preexec_fn=limit_files(500))
    assert code == 1 and "cannot write" in answer["error"] and "run.json" in answer["error"]
    assert "Traceback" not in err and lock_holder(root) is None
    assert call(root, "run")[0] == 0


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    code = "import sys, pathlib; from mlworkbench.core.files import write_atomic as write"
    code += "; write(pathlib.Path(sys.argv[1]), 'x' * 100)"
    call = [sys.executable, "-B", "-c", code, tmp_path / "note"]
    done = subprocess.run(call, preexec_fn=limit_files(50), capture_output=True, text=True)
    assert f"File too large: '{tmp_path / 'note'}'" in done.stderr and not list(tmp_path.iterdir())


def test_a_runner_that_cannot_write_its_state(tmp_path):
    root = write_project(
        tmp_path,
        {"name": "1_in", "head": PLAIN, "code": ["os.mkdir('.mlworkbench/state.json')"]},
        {"name": "2_next", "head": PLAIN, "code": ["1"]},
    )
    code, answer, err = call(root, "run", "--jobs", "1")
    record = newest_record(root)
    assert code == 1 and "state.json" in answer["error"] and "Traceback" not in err
    assert record["status"] == "failed" and "could not go on" in record["reason"]
    assert statuses(record) == {"1_in": "succeeded", "2_next": "blocked"} and lock_holder(root) is None


def test_a_notebook_too_big_to_be_saved_does_not_publish(tmp_path):
    loud = 'step.write("raw", pl.DataFrame({"x": [1]}))\nprint("x" * 3_000_000)'
    root = write_project(tmp_path, {"name": "1_in", "writes": ["raw"], "code": [loud]})
    code, record, _ = call(root, "run", preexec_fn=limit_files(2_000_000))
    assert code == 1
    assert_told_everywhere(root, record, "failed", "cannot be saved", stopped=False)


def test_a_store_that_refuses_the_records_is_a_warning(tmp_path):
    root = write_project(tmp_path, {"name": "1_in", "head": PLAIN, "code": ["1"]})
    store = Project(root).store
    store.write("runs", pl.DataFrame({"run": ["old"], "status": [1]}))
    record = run_project(root)
    assert record["status"] == "succeeded" and "runs and findings were not written" in record["warnings"][0]
    store.write("runs", pl.DataFrame({"run": ["old"], "status": ["mended"]}), evolve=True)
    write_notebook(root, "1_in", "2", head=PLAIN)
    again = run_project(root)  # rows that could not be written are written then
    assert again["warnings"] == [] and unsettled_runs(root) == []
    assert sorted(store.read("runs").collect()["run"]) == [record["run"], again["run"], "old"]


@pytest.fixture
def server():
    with s3_server() as process:
        yield process


def test_a_store_that_goes_away_while_a_step_runs(tmp_path, server):
    wait = (
        'step.write("raw", pl.DataFrame({"x": [1]}))\nopen("pid", "w").write(str(os.getpid()))\n'
        'while not os.path.exists("gone"):\n    time.sleep(0.05)'
    )
    options = {"AWS_ENDPOINT_URL": server.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    options |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    root = write_project(
        tmp_path,
        {"name": "1_in", "writes": ["raw"], "code": [wait]},
        {"name": "2_next", "reads": ["raw"], "code": ["1"]},
        store="s3://bench/small",
    )
    with open(root / "workbench.toml", "a") as file:
        file.write("[project.storage_options]\n")
        file.writelines(f'{key} = "{value}"\n' for key, value in options.items())
    runner = begin(root, "run")
    kernel_pid(root)
    server.kill()
    server.wait()
    (root / "gone").touch()
    out, err = runner.communicate(timeout=120)
    record = json.loads(out)
    step = step_of(record, "1_in")
    assert runner.returncode == 1 and record["status"] == "failed" and "Traceback" not in err
    assert (step["status"], step["undone"]) == ("failed", False) and "not known" in step["reason"]
    assert statuses(record)["2_next"] == "blocked" and unsettled_runs(root) == [record["run"]]
    assert "were not written" in " ".join(record["warnings"])
    sealed = json.loads((root / "runs" / record["run"] / "1_in.ipynb").read_text())
    assert sealed["metadata"]["mlworkbench"]["status"] == "failed"
