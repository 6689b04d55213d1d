"""papermill with our engine: its API and its command line, and that failures are told as failures."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
from flow_project import is_alive, wait_for
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError

from mlworkbench.core.forks import close_preloaded

PYTHON = {"name": "python3", "language": "python", "display_name": "Python 3"}


def write(folder, *code, kernel="python3"):
    cells = [new_code_cell("depth = 1", metadata={"tags": ["parameters"]}), *map(new_code_cell, code)]
    metadata = {"kernelspec": {**PYTHON, "name": kernel}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), Path(folder, "a.ipynb"))
    return Path(folder, "a.ipynb"), Path(folder, "out.ipynb")


def run(folder, *code, params=None, kernel="python3", **options):
    paths = write(folder, *code, kernel=kernel)
    return execute_notebook(*paths, params, engine_name="mlworkbench", progress_bar=False, **options)


def assert_says_so(folder, status):
    """The saved notebook has papermill's banner at its top, the right marks, and our status."""
    saved = nbformat.read(Path(folder, "out.ipynb"), 4)
    assert (
        "An Exception was encountered" in saved.cells[0].source and saved.metadata.papermill.exception is True
    )
    assert saved.metadata.mlworkbench.status == status
    marks = [cell.metadata.papermill.status for cell in saved.cells if cell.cell_type == "code"]
    assert "failed" in marks and marks[-1] == "pending" and "running" not in marks
    return saved


def test_parameters_outputs_and_marks_are_papermills(tmp_path):
    code = ["print(depth * 2)", "import os; print(os.getcwd())", "raise SystemExit", "1 / 0"]
    done = run(tmp_path, *code, params={"depth": 21}, cwd=tmp_path)
    assert done.cells[2].outputs[0].text == "42\n" and done.cells[3].outputs[0].text == f"{tmp_path}\n"
    assert done.metadata.papermill.parameters == {"depth": 21} and done.metadata.papermill.exception is None
    assert done.metadata.language_info.name == "python"
    assert nbformat.read(tmp_path / "out.ipynb", 4) == done


@pytest.mark.parametrize(
    ("code", "kind", "status", "words"),
    [
        ("1 / 0", PapermillExecutionError, "failed", "division by zero"),
        ("import os; os._exit(7)", DeadKernelError, "kernel_died", "exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", DeadKernelError, "killed", "SIGKILL"),
        ("import os; os.abort()", DeadKernelError, "kernel_died", "SIGABRT"),
        ("import os, time; os.kill(os.getpid(), 2); time.sleep(60)", PapermillExecutionError, "interrupted", "Keyb"),
        ("import time; time.sleep(60)", CellTimeoutError, "timed_out", "stopped after 2 s"),
    ],
)  # fmt: skip
def test_failures_are_raised_and_told(tmp_path, code, kind, status, words):
    with pytest.raises(kind, match=words):
        run(tmp_path, code, "'not reached'", execution_timeout=2)
    assert_says_so(tmp_path, status)


def test_a_loop_has_one_preloaded_process(tmp_path):
    close_preloaded()  # that of other tests
    before = set(psutil.Process().children(recursive=True))  # their servers and browsers
    for _ in range(4):
        run(tmp_path, "import polars as pl; pl.select(1)")
    new = set(psutil.Process().children(recursive=True)) - before
    left = [one for one in new if one.status() != psutil.STATUS_ZOMBIE]
    assert ["core.forks" in " ".join(one.cmdline()) for one in left] == [True]


def test_inside_an_event_loop(tmp_path):
    async def cell():  # as in a notebook that runs notebooks
        return run(tmp_path, "depth")

    with ThreadPoolExecutor(1) as thread:  # the browser of other tests has a loop in the main thread
        ran = thread.submit(asyncio.run, cell()).result()
    assert ran.cells[1].outputs[0].data["text/plain"] == "1"


def test_nbclients_options_and_papermills_output(tmp_path):
    with (tmp_path / "printed").open("w") as printed, pytest.raises(PapermillExecutionError):
        run(tmp_path, "1 / 0", "print('went on')", allow_errors=True, stdout_file=printed)
    assert (tmp_path / "printed").read_text() == "went on\n"


def test_a_kernel_of_another_kind_is_started_as_its_spec_says(tmp_path, monkeypatch):
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Other",
    }
    folder = tmp_path / "kernels" / "other"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(
        json.dumps(spec | {"language": "python", "env": {"FROM_SPEC": "yes"}})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    done = run(tmp_path, "import os; os.environ['FROM_SPEC']", kernel="other")
    assert done.cells[1].outputs[0].data["text/plain"] == "'yes'"


def begin(folder, *code):
    source, out = write(folder, *code)
    command = ["-m", "papermill", "--engine", "mlworkbench", "--no-progress-bar", source, out]
    process = subprocess.Popen([sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, text=True)
    kernel = int(wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
    return process, kernel


WAIT = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(120)"
DEAF = f"{WAIT[:-15]}\nwhile True:\n    try:\n        time.sleep(120)\n    except KeyboardInterrupt:\n        pass"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "killed")])
@pytest.mark.parametrize("code", [WAIT, DEAF])
def test_the_command_is_told_to_stop(tmp_path, number, status, code):
    process, kernel = begin(tmp_path, code, "1")
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGTERM else 1), told
    assert_says_so(tmp_path, status)
    wait_for(lambda: not is_alive(kernel))


def test_a_second_ctrl_c(tmp_path):
    process, kernel = begin(tmp_path, DEAF, "1")
    process.send_signal(signal.SIGINT)
    wait_for(lambda: psutil.Process(process.pid).status() != psutil.STATUS_RUNNING)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert_says_so(tmp_path, "interrupted")
    wait_for(lambda: not is_alive(kernel))


def test_the_command_is_killed(tmp_path):
    child = "import subprocess\nopen('child', 'w').write(str(subprocess.Popen(['sleep', '300']).pid))\n"
    process, kernel = begin(tmp_path, child + WAIT)
    process.kill()
    process.communicate(timeout=60)
    started = int((tmp_path / "child").read_text())
    wait_for(lambda: not is_alive(kernel) and not is_alive(started))


def test_the_command_succeeds(tmp_path):
    source, out = write(tmp_path, "print(depth)")
    command = [sys.executable, "-m", "papermill", "--engine", "mlworkbench", source, out, "-p", "depth", "5"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert done.returncode == 0, done.stderr
    assert nbformat.read(out, 4).cells[2].outputs[0].text == "5\n" and "100%" in done.stderr
