"""The built wheel, in a fresh environment and an empty folder, does what the README says."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd, **more):
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "JPY_", "JUPYTER"))
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=clean, **more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    wheel = next(folder.glob("*.whl"))
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    install = ["-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
    run(folder / "venv/bin/python", *install, cwd=folder)
    return wheel, folder / "venv/bin"


def test_the_pipelines_are_in_the_wheel(installed):
    names = zipfile.ZipFile(installed[0]).namelist()
    assert "mlworkbench/pipelines/flights/40_train.ipynb" in names
    assert "mlworkbench/pipelines/flights/workbench.toml" in names
    assert any(name.startswith("mlworkbench/report/assets/") for name in names)


def test_a_two_step_pipeline_runs_from_the_wheel(installed, tmp_path):
    command = installed[1] / "mlworkbench"
    run(command, "init", tmp_path / "mine", "--template", "blank", cwd=tmp_path)
    out = run(command, "run", "--json", cwd=tmp_path / "mine")
    result = json.loads(out)
    assert result["status"] == "succeeded" and [s["status"] for s in result["steps"]] == ["succeeded"] * 2
    again = json.loads(run(command, "run", "--json", cwd=tmp_path / "mine"))
    assert [s["status"] for s in again["steps"]] == ["cached"] * 2
    assert (tmp_path / "mine/runs/index.html").exists()
