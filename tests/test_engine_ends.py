"""Every way a notebook can end, done for real, with both kinds of kernel; what is saved while it runs."""

import json
import os
import re
import signal
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from flow_project import is_alive, wait_for
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.core.forks import Preloaded, close_preloaded
from mlworkbench.flow.process import StepProcess, next_events, run_notebook

ENGINES = pytest.mark.parametrize("engine", ["preloaded", "plain"])
HEAD = "import os, signal, sys, time"


def write(folder, *code):
    path = Path(folder, "a.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in (HEAD, *code)]), path)
    return path


def run(folder, *code, **options):
    out = Path(folder, "out.ipynb")
    return run_notebook(write(folder, *code), out, cwd=folder, **options)


def begin(folder, *code, **limits):
    """A notebook that goes on until it is ended."""
    out = Path(folder, "out.ipynb")
    job = {
        "notebook": str(write(folder, *code)),
        "out": str(out),
        "cwd": str(folder),
        "env": dict(os.environ),
    }
    return StepProcess(job | {"log": str(out.with_suffix(".log"))} | limits)


def finish(process):
    while process.running:
        next_events([process], 1.0)
    return process.outcome


def until_running(process, cell):
    while process.running:
        if any(event[:2] == ("cell", cell) for _, event in next_events([process], 1.0)):
            return
    raise AssertionError(process.outcome)


def statuses(folder):
    cells = nbformat.read(Path(folder, "out.ipynb"), 4).cells
    return [cell.metadata.papermill.status for cell in cells]


@ENGINES
@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("1 / 0", "failed", "division by zero"),
        ("os._exit(7)", "kernel_died", "ended with exit status 7"),
        ("import ctypes; ctypes.string_at(0)", "kernel_died", "crashed with SIGSEGV"),
        ("os.abort()", "kernel_died", "crashed with SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "killed", "killed by SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)", "killed", "killed by SIGHUP"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", "interrupted", ""),
    ],
)
def test_a_notebook_that_ends_badly(tmp_path, engine, code, status, words):
    outcome = run(tmp_path, code, "'not reached'", engine=engine)
    assert (outcome["status"], outcome["engine"]) == (status, engine)
    assert words in outcome["error"]["message"] and outcome["error"]["cell"] == 1
    assert statuses(tmp_path) == ["completed", "failed", "pending"]
    saved = nbformat.read(tmp_path / "out.ipynb", 4)
    assert saved.metadata.papermill.exception and saved.metadata.mlworkbench.status == status
    if "crashed" in words:  # the kernel's last words
        assert "Fatal Python error" in (tmp_path / "out.log").read_text()


@ENGINES
def test_what_ends_well(tmp_path, engine):
    assert run(tmp_path, "1", engine=engine)["status"] == "succeeded"
    last = "import atexit; atexit.register(lambda: open('left', 'w').write('x'))"
    outcome = run(tmp_path, last, "sys.exit(0)", "1 / 0", engine=engine)
    assert outcome["status"] == "succeeded" and "sys.exit()" in outcome["reason"]
    assert statuses(tmp_path) == ["completed"] * 3 + ["pending"]
    assert (tmp_path / "left").exists() and outcome["peak_mb"] > 10
    assert run(tmp_path, "print('x' * 3_000_000)", engine=engine)["status"] == "succeeded"
    text = "".join(one.text for one in nbformat.read(tmp_path / "out.ipynb", 4).cells[1].outputs)
    assert len(text) == 3_000_001
    assert run(tmp_path, "print('\\ud800')", engine=engine)["status"] == "succeeded"  # half a character
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[1].outputs[0].text == "\ud800\n"


@ENGINES
def test_processes_that_a_notebook_has_started_are_ended_and_not_waited_for(tmp_path, engine):
    code = "import subprocess\nstarted = subprocess.Popen(['sleep', '300'])\nprint(started.pid)"
    last = "import atexit\natexit.register(lambda: open('left', 'w').write(str(started.poll())))"
    outcome = run(tmp_path, code, last, engine=engine)
    pid = int(nbformat.read(tmp_path / "out.ipynb", 4).cells[1].outputs[0].text)
    assert outcome["status"] == "succeeded" and not is_alive(pid)
    assert (tmp_path / "left").read_text() == str(
        -signal.SIGTERM
    )  # the kernel came to its own end after that


@ENGINES
def test_a_memory_budget(tmp_path, engine):
    greedy = (
        "held = []\nwhile True:\n    held.append(bytearray(os.urandom(1)) * 20_000_000); time.sleep(0.01)"
    )
    outcome = run(tmp_path, greedy, memory_mb=300, engine=engine)
    assert outcome["status"] == "kernel_died" and outcome["error"]["name"] == "MemoryError"
    assert "its `memory_mb` is 300" in outcome["error"]["message"] and outcome["peak_mb"] > 300
    assert statuses(tmp_path) == ["completed", "failed"]


def test_a_memory_budget_counts_what_a_notebook_starts(tmp_path):
    child = "x = b'1' * 400_000_000; import time; time.sleep(60)"
    code = f"import subprocess\nsubprocess.run([sys.executable, '-c', {child!r}])"
    outcome = run(tmp_path, code, memory_mb=300)
    assert outcome["status"] == "kernel_died" and outcome["error"]["name"] == "MemoryError"


def test_a_budget_counts_shared_pages_once(tmp_path):
    code = "held = b'1' * 200_000_000\nfor _ in range(4):\n    if not os.fork():\n        time.sleep(3); os._exit(0)\n"
    outcome = run(tmp_path, code + "for _ in range(4):\n    os.wait()", memory_mb=600)
    assert outcome["status"] == "succeeded", outcome["error"]


def a_memory_group():
    """A control group of our own, where this machine lets us make one: (folder, name of its limit)."""
    if os.getuid():
        return None
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, place = line.split(":", 2)
        base, limit = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes") if controllers == "memory" else (
            "/sys/fs/cgroup", "memory.max")  # fmt: skip
        folder = Path(f"{base}{place.rstrip('/')}/mlworkbench-test-{os.getpid()}")
        if controllers in ("memory", ""):
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / limit).exists():
                return folder, limit
            folder.rmdir()
    return None


def test_the_system_runs_out_of_memory(tmp_path, monkeypatch):
    group = a_memory_group()
    greedy = "held = []\nwhile True:\n    held.append(bytearray(os.urandom(1)) * 5_000_000)"
    if group is None:  # no right to make a control group here: the system's counter is played
        told = iter([4, 5])
        monkeypatch.setattr("mlworkbench.flow.engine.oom_kills", lambda pid: next(told))
        from mlworkbench.flow.engine import Engine, gone_outcome
        from mlworkbench.flow.kernels import Kernel

        engine = Engine(new_notebook(), Kernel(2**22, "", lambda: -signal.SIGKILL, "plain"), print)
        outcome = gone_outcome(engine.watch)
    else:
        folder, limit = group
        try:
            (folder / limit).write_text("300M")
            join = f"open({str(folder / 'cgroup.procs')!r}, 'w').write(str(os.getppid()))\n"
            join += f"open({str(folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
            outcome = run(tmp_path, join, greedy)
        finally:
            wait_for(lambda: not (folder / "cgroup.procs").read_text())
            folder.rmdir()
    assert outcome["status"] == "kernel_died" and outcome["error"]["name"] == "MemoryError"
    assert "the system killed it (SIGKILL)" in outcome["error"]["message"]


DEAF = "while True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass"


@ENGINES
@pytest.mark.parametrize("limit", ["timeout_s", "cell_timeout_s"])
def test_time_runs_out(tmp_path, engine, limit):
    outcome = run(tmp_path, "time.sleep(60)", "1", engine=engine, **{limit: 2})
    assert outcome["status"] == "timed_out" and f"2 s, its `{limit}`" in outcome["error"]["message"]
    assert "code cell 2: time.sleep(60)" in outcome["error"]["message"]
    assert "KeyboardInterrupt" in outcome["error"]["traceback"]
    assert statuses(tmp_path) == ["completed", "failed", "pending"]
    assert run(tmp_path, DEAF, engine=engine, **{limit: 1})["status"] == "timed_out"


def test_many_short_cells_are_not_one_long_cell(tmp_path):
    assert run(tmp_path, *["time.sleep(0.4)"] * 4, cell_timeout_s=1)["status"] == "succeeded"
    swallowed = "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
    assert run(tmp_path, swallowed, cell_timeout_s=1)["status"] == "timed_out"


def test_the_runner_asks_a_notebook_to_stop(tmp_path):
    process = begin(tmp_path, "open('begun', 'w')\ntime.sleep(60)", "1")
    wait_for((tmp_path / "begun").exists)
    process.stop()
    outcome = finish(process)
    assert outcome["status"] == "interrupted" and "time.sleep(60)" in outcome["error"]["traceback"]
    assert statuses(tmp_path) == ["completed", "failed", "pending"]


def test_a_notebook_is_stopped_before_its_first_cell(tmp_path):
    process = begin(tmp_path, "time.sleep(60)")
    process.stop()
    assert finish(process)["status"] == "interrupted" and "completed" not in statuses(tmp_path)[1:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_process_of_a_step(tmp_path, number):
    process = begin(tmp_path, "time.sleep(60)")
    until_running(process, 2)
    os.kill(process.pid, number)
    outcome = finish(process)
    assert outcome["status"] == "killed" and number.name in outcome["error"]["message"]
    wait_for(lambda: not is_alive(process.kernel))


def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    child = (
        "import subprocess; print(subprocess.Popen(['sleep', '300']).pid, file=open('pid', 'w'), flush=True)"
    )
    process = begin(tmp_path, child, "time.sleep(60)")
    until_running(process, 3)
    folder, started = process._folder, int((tmp_path / "pid").read_text())
    process.end()
    assert process.outcome["status"] == "killed" and not Path(folder).exists()
    wait_for(lambda: not is_alive(process.kernel) and not is_alive(started))


def preloaded_process():
    found = [one for one in psutil.Process().children() if "core.forks" in " ".join(one.cmdline())]
    return found[0].pid if found else None


def test_the_preloaded_process_is_killed(tmp_path):
    process = begin(tmp_path, "time.sleep(1)", "print('all the same')")
    until_running(process, 2)
    os.kill(preloaded_process(), signal.SIGKILL)
    assert finish(process)["status"] == "succeeded"  # its children go on
    assert run(tmp_path, "1")["engine"] == "preloaded"  # and there is a new one


def test_without_a_preloaded_process_a_kernel_is_started_from_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(Preloaded, "fork", refuse)
    outcome = run(tmp_path, "depth * 2", "1 / 0", params={"depth": 21})
    assert (outcome["status"], outcome["engine"]) == ("failed", "plain")
    assert outcome["error"]["name"] == "ZeroDivisionError"


def test_a_cell_can_be_looked_at_while_it_runs(tmp_path):
    code = "print('half way', flush=True)\nwhile not os.path.exists('go on'):\n    time.sleep(0.05)\n'done'"
    process, out = begin(tmp_path, code), tmp_path / "out.ipynb"

    def shown():
        next_events([process], 0.0)
        if out.exists():
            outputs = nbformat.read(out, 4).cells[1].outputs
            return outputs and outputs[0].text == "half way\n"
        return False

    wait_for(shown)
    assert statuses(tmp_path) == ["completed", "running"]
    (tmp_path / "go on").touch()
    outcome = finish(process)
    assert outcome["status"] == "succeeded" and outcome["saves"]["count"] >= 2


def test_saving_many_cells_costs_little(tmp_path):
    begun = time.monotonic()
    outcome = run(tmp_path, *["print('x' * 1000)"] * 300)
    assert outcome["saves"]["count"] <= 3 + (time.monotonic() - begun), outcome["saves"]
    assert statuses(tmp_path) == ["completed"] * 301


def test_the_marks_are_those_that_papermill_makes(tmp_path):
    from papermill import execute_notebook

    cells = [new_code_cell("depth = 1", metadata={"tags": ["parameters"]}), new_code_cell("print(depth)")]
    python = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": python}), tmp_path / "b.ipynb")
    run_notebook(tmp_path / "b.ipynb", tmp_path / "ours.ipynb", {"depth": 3})
    execute_notebook(tmp_path / "b.ipynb", tmp_path / "theirs.ipynb", {"depth": 3}, progress_bar=False)
    ours, theirs = (json.loads((tmp_path / f"{name}.ipynb").read_text()) for name in ("ours", "theirs"))
    assert set(theirs["metadata"]["papermill"]) - set(ours["metadata"]["papermill"]) == {"version"}
    assert ours["metadata"]["papermill"]["parameters"] == {"depth": 3}
    for mine, its in zip(ours["cells"], theirs["cells"], strict=True):
        assert mine["metadata"]["papermill"].keys() == its["metadata"]["papermill"].keys()
        assert mine["metadata"]["papermill"]["status"] == its["metadata"]["papermill"]["status"]
        assert mine["metadata"].get("tags", []) == its["metadata"]["tags"]
        assert mine["outputs"] == its["outputs"] and mine["execution_count"] == its["execution_count"]
    assert (
        re.sub(r"#.*\n", "", "".join(theirs["cells"][1]["source"]))
        == "".join(ours["cells"][1]["source"]) + "\n"
    )


def test_closing_is_final(tmp_path):
    run(tmp_path, "1")
    close_preloaded()
    assert preloaded_process() is None
