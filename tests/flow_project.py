"""Small real projects for the tests of `mlworkbench.flow`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HANDLE = "import os, signal, sys, time\nimport polars as pl\nimport mlworkbench as mlw\nstep = mlw.step()"
PLAIN = "import os, signal, sys, time"  # for notebooks that need no handle: no polars to import


def write_notebook(root, name, *code, params="", head=HANDLE, prose="# A step"):
    cells = [new_markdown_cell(prose), new_code_cell(params, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=[*cells, *map(new_code_cell, [head, *code])])
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    path = Path(root, f"{name}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def write_project(root, *steps, **project):
    """Each step: a dict with name, code (a list of cells) and keys of [[step]]."""
    Path(root).mkdir(exist_ok=True)
    project = {"name": "small", **project}
    lines = ["[project]", *(f"{key} = {json.dumps(value)}" for key, value in project.items())]
    for step in steps:
        step = dict(step)
        name = step.pop("name")
        notebook = {key: step.pop(key) for key in ("params_cell", "head") if key in step}
        write_notebook(
            root,
            name,
            *step.pop("code"),
            params=notebook.get("params_cell", ""),
            head=notebook.get("head", HANDLE),
        )
        lines += ["[[step]]", f'notebook = "{name}.ipynb"']
        for key, value in step.items():
            text = json.dumps(value)
            if isinstance(value, dict):
                text = "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
            lines.append(f"{key} = {text}")
    Path(root, "workbench.toml").write_text("\n".join(lines) + "\n")
    return Path(root)


def statuses(record):
    return {step["name"]: step["status"] for step in record["steps"]}


def step_of(record, name):
    return next(step for step in record["steps"] if step["name"] == name)


def command(*args):
    return [str(Path(sys.executable).with_name("mlworkbench")), *map(str, args)]


def call(root, *args, **options):
    """The command line in a process of its own: exit code, answer, standard error."""
    done = subprocess.run(
        command(*args, "--project", root, "--json"), capture_output=True, text=True, timeout=120, **options
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def begin(root, *args, **options):
    """The command line in the background."""
    return subprocess.Popen(
        command(*args, "--project", root, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(condition, seconds=60):
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("waited too long")


def newest_record(root):
    """run.json of the newest run, None where there is none yet."""
    files = sorted(Path(root, "runs").glob("*/run.json"))
    return json.loads(files[-1].read_text()) if files else None


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def end(process, number=signal.SIGTERM):
    """Signal a process in the background and wait for its answer."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, (json.loads(out) if out.strip() else None), err
