"""Jobs of jupyter-scheduler over its REST API, in the JupyterLab that `mlworkbench lab` starts."""

import json
import os
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from flow_project import PLAIN, call, newest_record, wait_for, write_notebook, write_project

from mlworkbench.flow.records import list_runs, read_run

TOKEN = "a-token-of-this-test"
WRITE = 'step.write("raw", pl.DataFrame({"x": range(rows)}))\nstep.record(rows=rows)'


class Lab:
    """A JupyterLab server on a project."""

    def __init__(self, root, home):
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/scheduler"
        folders = {"JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run", "JUPYTER_CONFIG_DIR": "config"}
        self.env = {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}}
        command = call(root, "lab")[1]["command"]
        options = {"ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.port_retries": 0}
        options |= {"IdentityProvider.token": TOKEN, "ServerApp.allow_root": True}
        command += ["--no-browser", *(f"--{name}={value}" for name, value in options.items())]
        self.log = home / "lab.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, env=self.env, cwd=root, stdout=log, stderr=log)
        wait_for(self.answers, 120)

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("GET", "jobs") is not None
        except OSError:
            return False

    def ask(self, method, path, body=None):
        head = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, head, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def submit(self, notebook, formats=("ipynb", "html"), **more):
        job = {"name": "by hand", "input_uri": notebook, "runtime_environment_name": "python3"}
        job |= {"output_formats": list(formats), "runtime_environment_parameters": {}}
        return self.ask("POST", "jobs", job | more)["job_id"]

    def job(self, job_id):
        return self.ask("GET", f"jobs/{job_id}")

    def ended(self, job_id):
        """The job at its end; one that has not begun counts as stopped, too."""
        over = ("COMPLETED", "FAILED", "STOPPED")
        return wait_for(
            lambda: (job := self.job(job_id))["start_time"] and job["status"] in over and job, 120
        )

    def output(self, job_id, kind):
        folder = Path(self.env["JUPYTER_DATA_DIR"], "scheduler_staging_area", job_id)
        (file,) = [path for path in folder.glob(f"*.{kind}") if "-" in path.stem]
        return file.read_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    place = tmp_path_factory.mktemp("lab")
    root = write_project(
        place / "late",
        {"name": "1_in", "writes": ["raw"], "params_cell": "rows: int = 1", "code": [WRITE]},
        {"name": "2_bad", "reads": ["raw"], "head": PLAIN, "code": ['raise ValueError("no rows")']},
        {"name": "3_slow", "head": PLAIN, "code": ["open('begun', 'w').close()\ntime.sleep(600)"]},
    )
    note = "place: str = 'JFK'\ndepth: int = 1"
    write_notebook(root, "own", "print(place, depth)\nopen('side.txt', 'w').write('x')", params=note, head="")
    write_notebook(root, "own_bad", "import os\nos._exit(7)", head="")
    server = Lab(root, place)
    yield server
    server.process.terminate()
    server.process.wait(60)


@pytest.mark.slow
def test_a_job_on_a_step_is_a_run_of_that_step(lab):
    job = lab.ended(lab.submit("1_in.ipynb", parameters={"rows": "4"}))
    assert (job["status"], job["status_message"]) == ("COMPLETED", None), lab.log.read_text()
    record = newest_record(lab.root)
    assert [(step["name"], step["status"]) for step in record["steps"]] == [("1_in", "succeeded")]
    assert (record["steps"][0]["metrics"], record["steps"][0]["writes"]) == ({"rows": 4}, {"raw": 0})
    trigger = {"kind": "jupyter", "job": job["job_id"], "name": "by hand", "notebook_changed": False}
    assert record["trigger"] == trigger
    folder = lab.root / "runs" / record["run"]
    assert lab.output(job["job_id"], "html") == (folder / "1_in.html").read_text()
    assert lab.output(job["job_id"], "ipynb") == (folder / "1_in.ipynb").read_text()


@pytest.mark.slow
def test_a_job_on_a_step_that_fails_says_what_failed(lab):
    job = lab.ended(lab.submit("2_bad.ipynb"))
    run = newest_record(lab.root)["run"]
    assert job["status"] == "FAILED" and job["end_time"] >= job["start_time"]
    assert job["status_message"] == f"step '2_bad' ended as failed: In [2]: ValueError: no rows (run {run})."
    assert "no rows" in lab.output(job["job_id"], "html") and "no rows" in lab.output(job["job_id"], "ipynb")


@pytest.fixture(scope="module")
def no_runs(lab):
    """Jobs that make no run, at the same time: each starts a Python of its own, which takes longest."""
    before = list_runs(lab.root / "runs")
    jobs = {
        "wrong": lab.submit("1_in.ipynb", parameters={"rows": "many"}),
        "own": lab.submit("own.ipynb", parameters={"place": "'EWR'", "depth": "7"}),
        "dead": lab.submit("own_bad.ipynb"),
    }
    ended = {name: lab.ended(job_id) for name, job_id in jobs.items()}
    assert list_runs(lab.root / "runs") == before
    return ended


@pytest.mark.slow
def test_parameters_are_checked_before_anything_runs(no_runs):
    job = no_runs["wrong"]
    message = "the parameter 'rows' is 'many'. Accepted: int"
    assert job["status"] == "FAILED" and message in job["status_message"]


@pytest.mark.slow
def test_a_notebook_that_is_no_step_runs_in_the_engine(lab, no_runs):
    job = no_runs["own"]
    assert job["status"] == "COMPLETED", job["status_message"]
    assert "EWR 7" in lab.output(job["job_id"], "ipynb") and "EWR 7" in lab.output(job["job_id"], "html")
    assert "side.txt" in job["packaged_files"]


@pytest.mark.slow
def test_a_dead_kernel_is_no_success(no_runs):
    job = no_runs["dead"]
    assert job["status"] == "FAILED" and "exit status 7" in job["status_message"]


@pytest.mark.slow
def test_a_job_definition_runs_what_the_project_holds_now(lab):
    definition = {"name": "each night", "input_uri": "1_in.ipynb", "runtime_environment_name": "python3"}
    definition |= {"runtime_environment_parameters": {}, "output_formats": ["ipynb"]}
    definition |= {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "parameters": {"rows": "2"}}
    made = lab.ask("POST", "job_definitions", definition)["job_definition_id"]
    write_notebook(
        lab.root, "1_in", WRITE.replace("rows=rows", "rows=rows, new=True"), params="rows: int = 1"
    )
    job_id = lab.ask("POST", f"job_definitions/{made}/jobs", {})["job_id"]
    assert lab.ended(job_id)["status"] == "COMPLETED"
    record = newest_record(lab.root)
    assert record["steps"][0]["metrics"] == {"rows": 2, "new": True} and record["trigger"]["notebook_changed"]


@pytest.mark.slow
def test_a_job_that_is_stopped_is_told_as_lost(lab):
    job_id = lab.submit("3_slow.ipynb")
    wait_for((lab.root / "begun").exists, 120)
    lab.ask("PATCH", f"jobs/{job_id}", {"status": "STOPPED"})
    assert lab.ended(job_id)["status"] == "STOPPED"
    run = newest_record(lab.root)["run"]
    wait_for(lambda: call(lab.root, "status", run)[1]["status"] == "lost")
    assert read_run(lab.root / "runs", run)["steps"][0]["status"] == "lost"
