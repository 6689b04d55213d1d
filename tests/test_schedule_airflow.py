"""The exported DAG in a real Airflow: parsed by its DagBag, run by its Papermill operator."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing
from flow_project import PLAIN, call, write_project

from mlworkbench.flow.records import list_runs, read_run

ROOT = Path(__file__).parents[1]
RUN_ALL = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

initdb()
bag = DagBag(dag_folder=sys.argv[1])
told = {"errors": {str(path): text for path, text in bag.import_errors.items()}}
for name, dag in sorted(bag.dags.items()):
    facts = {task.task_id: [sorted(task.upstream_task_ids), [a.uri for a in task.outlets]] for task in dag.tasks}
    run = dag.test()
    states = {one.task_id: str(one.state) for one in run.get_task_instances()}
    told[name] = {"tasks": facts, "states": states, "state": str(run.state), "at_once": dag.max_active_runs}
    told[name] |= {"timetable": dag.timetable.serialize(), "catchup": dag.catchup}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def airflow():
    """An environment of its own, made once: Airflow's requirements do not go with ours."""
    pins, folder = ROOT / "tests/airflow.txt", ROOT / ".venv-airflow"
    made, wanted = folder / "made-from", hashlib.sha256(pins.read_bytes()).hexdigest()
    if not made.exists() or made.read_text() != wanted:
        python = [sys.executable, "-m"]
        venv = [*python, "venv", "--without-pip", "--clear", folder]
        pip = [*python, "pip", "--python", folder / "bin/python", "install", "--quiet"]
        for command in (venv, [*pip, "--no-deps", "--no-compile", "-r", pins]):
            if subprocess.run([str(part) for part in command], capture_output=True).returncode:
                missing("Airflow")
        made.write_text(wanted)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Two projects with the same two steps; in the second one the first step fails."""
    place = tmp_path_factory.mktemp("airflow")
    (place / "dags").mkdir()
    schedule = '[schedule.nightly]\ncron = ["30 2 * * 1-5", "0 14 * * 7"]\ntimezone = "Europe/Berlin"\n'
    roots = {}
    for name, code in (("good", "1"), ("wrong", "raise ValueError('no rows')")):
        write = 'step.write("raw", pl.DataFrame({"x": range(rows)}))'
        one = {"name": "1_in", "writes": ["raw"], "params_cell": "rows: int = 1", "code": [code, write]}
        two = {"name": "2_look", "reads": ["raw"], "head": PLAIN, "code": ["1"]}
        roots[name] = write_project(place / name, one, two)
        title = {"good": "good", "wrong": "wrong – Zürich"}[name]  # none for a URI as it is
        settings = (roots[name] / "workbench.toml").read_text().replace('"small"', f'"{title}"')
        (roots[name] / "workbench.toml").write_text(settings + schedule + "params = { rows = 7 }\n")
        code, done, err = call(roots[name], "schedule", "export", "airflow", "-o", place / f"dags/{name}.py")
        assert code == 0 and len(done["written"]) == 2, err
    return roots


@pytest.fixture(scope="module")
def told(airflow, projects, tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow-home")
    kernel = home / "jupyter/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "ours", "language": "python"}))
    dags = projects["good"].parent / "dags"
    ours = {"AIRFLOW_HOME": home, "AIRFLOW__CORE__DAGS_FOLDER": dags, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    ours |= {"JUPYTER_PATH": home / "jupyter", "TMPDIR": home, "PYTHONWARNINGS": "ignore"}
    env = {**os.environ, **{key: str(value) for key, value in ours.items()}}
    done = subprocess.run([airflow, "-c", RUN_ALL, dags], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_airflow_reads_the_dag(told):
    good = told["good-nightly"]
    assert told["errors"] == {} and good["tasks"] == {
        "1_in": [[], ["mlworkbench://good/raw"]],
        "2_look": [["1_in"], []],
    }
    times = good["timetable"]
    assert (times["expressions"], times["timezone"]) == (["30 2 * * 1-5", "0 14 * * 0"], "Europe/Berlin")
    assert (good["at_once"], good["catchup"]) == (1, False)


@pytest.mark.slow
def test_its_tasks_run_the_steps_and_leave_our_records(told, projects):
    assert told["good-nightly"]["states"] == {"1_in": "success", "2_look": "success"}
    runs = projects["good"] / "runs"
    records = [read_run(runs, run) for run in reversed(list_runs(runs))]
    assert [[step["name"] for step in record["steps"]] for record in records] == [["1_in"], ["2_look"]]
    assert records[0]["steps"][0]["writes"] == {"raw": 0} and records[0]["steps"][0]["params"] == {"rows": 7}
    assert {(record["trigger"]["by"], record["trigger"]["name"]) for record in records} == {
        ("airflow", "nightly")
    }
    assert records[0]["trigger"]["scheduled_for"].startswith("20")


@pytest.mark.slow
def test_a_step_that_fails_fails_its_task_and_stops_the_rest(told, projects):
    assert told["wrong-z-rich-nightly"]["states"] == {"1_in": "failed", "2_look": "upstream_failed"}
    (run,) = list_runs(projects["wrong"] / "runs")
    assert read_run(projects["wrong"] / "runs", run)["steps"][0]["error"]["message"] == "no rows"
