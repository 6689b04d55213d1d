"""Schedules for other schedulers, judged by their own schemas; what `install` writes, by crontab and systemd."""

import json
import os
import shutil
import stat
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from conftest import missing
from flow_project import PLAIN, call, command, write_project

from mlworkbench.flow.records import read_run

NIGHTLY = """
[schedule.nightly]
cron = ["30 2 * * 1-5", "0 14 * * 7"]
timezone = "Europe/Berlin"
overlap = "{overlap}"
catch_up = "{catch_up}"
params = {{ depth = 7 }}
"""


@pytest.fixture
def project(tmp_path):
    def write(overlap="skip", catch_up="last", project=""):
        root = write_project(
            tmp_path / "late",
            {"name": "1_in", "head": PLAIN, "code": ["1"], "memory_mb": 900, "secrets": ["API_KEY"]},
            {
                "name": "2_look",
                "head": PLAIN,
                "params_cell": "depth: int = 1",
                "code": ["1"],
                "memory_mb": 100,
            },
        )
        settings = (root / "workbench.toml").read_text().replace("[project]\n", f"[project]\n{project}\n", 1)
        (root / "workbench.toml").write_text(settings + NIGHTLY.format(overlap=overlap, catch_up=catch_up))
        return root

    return write


def export(root, target, *more):
    code, answer, err = call(root, "schedule", "export", target, *more)
    assert code == 0, err
    return answer["text"]


@pytest.mark.parametrize("overlap", ["skip", "wait"])
@pytest.mark.parametrize("catch_up", ["last", "all", "none"])
def test_the_cron_job_is_valid_for_kubernetes(project, overlap, catch_up):
    text = export(project(overlap, catch_up), "kubernetes", "--image", "registry/late:1")
    jobs = list(yaml.safe_load_all(text))
    assert [job["spec"]["schedule"] for job in jobs] == ["30 2 * * 1-5", "0 14 * * 0"]
    for job in jobs:
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
        kubernetes_validate.validate(job, "1.27", strict=True)  # the first with timeZone
        policy = {"skip": "Forbid", "wait": "Allow"}[overlap]
        assert (job["spec"]["timeZone"], job["spec"]["concurrencyPolicy"]) == ("Europe/Berlin", policy)
        assert ("startingDeadlineSeconds" in job["spec"]) == (catch_up == "none")
    with pytest.raises(kubernetes_validate.ValidationError):
        jobs[0]["spec"]["timezone"] = "UTC"
        kubernetes_validate.validate(jobs[0], kubernetes_validate.latest_version(), strict=True)


def test_names_are_short_enough_for_kubernetes(project):
    root, long = project(), "late-flights-of-all-three-airports-of-new-york"
    settings = (root / "workbench.toml").read_text()
    (root / "workbench.toml").write_text(settings.replace('"small"', f'"{long}"'))
    jobs = list(yaml.safe_load_all(export(root, "kubernetes", "--image", "registry/late:1")))
    names = [job["metadata"]["name"] for job in jobs]
    assert len(set(names)) == 2 and max(map(len, names)) <= 52  # its jobs' names are 11 longer: 63


def test_the_workflow_is_valid_for_github(project, tmp_path):
    file = tmp_path / "late.yml"
    bucket = 'store = "s3://bucket/late"\nstorage_options = { KEY = "env:S3_KEY" }'
    text = export(project(project=bucket), "github", "-o", file)
    assert file.read_text() == text and "is gone after the run" not in text
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*checker, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    job = yaml.safe_load(text)["jobs"]["run"]
    (env,) = [step["env"] for step in job["steps"] if "env" in step]
    assert "env" not in job and env == {name: f"${{{{ secrets.{name} }}}}" for name in ("API_KEY", "S3_KEY")}
    file.write_text(text.replace("timezone:", "time_zone:"))
    assert subprocess.run([*checker, file], capture_output=True).returncode == 1


def test_what_the_exports_call_runs_the_schedule(project):
    root = project()
    code, record, err = call(
        root, "schedule", "start", "nightly", "--by", "kubernetes", env={**os.environ, "API_KEY": "k" * 9}
    )
    assert code == 0, err
    assert record["trigger"]["by"] == "kubernetes" and record["trigger"]["name"] == "nightly"
    assert read_run(root / "runs", record["run"])["steps"][1]["params"] == {"depth": 7}


# --- cron and systemd


CRONTAB = """#!/bin/sh
# as cron's own: -l prints, - reads, and there may be none
if [ "$1" = -l ]; then cat "$KEPT" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; }
else cat > "$KEPT"; fi
"""


@pytest.fixture
def crontab(tmp_path, monkeypatch):
    """A crontab of our own: the real one belongs to whoever runs the tests."""
    program, kept = tmp_path / "bin/crontab", tmp_path / "crontab.txt"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("KEPT", str(kept))
    return kept


def test_install_writes_a_line_that_cron_can_run(project, crontab, tmp_path):
    root, others = project().rename(tmp_path / "it's late & dark $HOME"), "MAILTO=me\n5 4 * * * backup\n"
    env_file = tmp_path / "late.env"
    env_file.write_text('API_KEY="secret with spaces"\n')
    env_file.chmod(0o600)
    assert call(root, "schedule", "install", "--dry-run")[0] == 0 and not crontab.exists()
    crontab.write_text(others)
    for _ in range(2):
        code, done, err = call(root, "schedule", "install", "--env-file", env_file)
        assert code == 0, err
    assert crontab.read_text() == others + "\n".join(done["lines"]) + "\n"
    line = done["lines"][1].removeprefix("* * * * * ").replace("\\%", "%")
    bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "SHELL": "/bin/sh"}
    subprocess.run(["/bin/sh", "-c", line], env=bare, cwd="/", check=True)  # as cron does
    assert (root / ".mlworkbench/schedule.log").read_text() == ""
    _, told, _ = call(root, "schedule", "list")
    assert [past["status"] for past in told["schedules"][0]["past"]] == ["began"]
    assert call(root, "schedule", "uninstall")[1]["removed"] == ["the lines in your crontab"]
    assert crontab.read_text() == others and call(root, "schedule", "uninstall")[1]["removed"] == []


def test_a_schedule_that_is_wrong_is_not_installed(project, crontab):
    root = project()
    settings = (root / "workbench.toml").read_text()
    (root / "workbench.toml").write_text(settings.replace("30 2", "30 25"))
    done = subprocess.run(command("schedule", "install", "--project", root), capture_output=True, text=True)
    assert done.returncode == 2 and "hour is '25'" in done.stderr and not crontab.exists()


def test_the_units_are_valid_for_systemd(project, tmp_path):
    analyze = shutil.which("systemd-analyze") or missing("systemd")
    root = project().rename(tmp_path / 'a "b" $x 50%')
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(tmp_path)}
    _, done, _ = call(root, "schedule", "install", "--systemd", "--dry-run", env=env)
    files, text = {}, []
    for line in done["lines"]:
        if line.startswith("# "):
            text = files.setdefault(os.path.basename(line), [])
        else:
            text.append(line)
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    units = [str(tmp_path / name) for name in files]
    done = subprocess.run([analyze, "verify", "--user", *units], capture_output=True, text=True, env=env)
    assert len(units) == 2 and done.returncode == 0 and done.stderr == "", done.stderr


SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$ASKED"
"""


def test_a_timer_is_taken_out_also_when_the_project_has_another_name(project, crontab, tmp_path):
    program, asked = tmp_path / "bin/systemctl", tmp_path / "asked.txt"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    root, units = project(), tmp_path / "config/systemd/user"
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "ASKED": str(asked)}
    code, _, err = call(root, "schedule", "install", "--systemd", env=env)
    assert code == 0 and len(list(units.iterdir())) == 2, err
    (root / "workbench.toml").write_text("[project]\nname = 'new")  # nor need it be right
    removed = call(root, "schedule", "uninstall", env=env)[1]["removed"]
    assert [path[-6:] for path in removed] == [".timer", "ervice"] and list(units.iterdir()) == []
    assert "--user disable --now mlworkbench-small" in asked.read_text()


def test_nothing_is_written_where_there_is_no_systemd(project, tmp_path):
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "PATH": "/nowhere"}
    code, _, err = call(project(), "schedule", "install", "--systemd", env=env)
    assert code == 2 and "no systemd" in err and not (tmp_path / "config").exists()


def test_a_source_that_would_be_reused_for_ever_is_told(project):
    root = project()
    note = call(root, "schedule", "list")[1]["schedules"][0]["note"]
    assert note.startswith("1_in, 2_look: reused") and "`force = true`" in note
    settings = (root / "workbench.toml").read_text()
    (root / "workbench.toml").write_text(settings + "force = true\n")
    assert call(root, "schedule", "list")[1]["schedules"][0]["note"] == ""


def test_a_project_without_a_schedule_has_nothing_to_install(tmp_path, crontab):
    root = write_project(tmp_path / "one", {"name": "1_look", "head": PLAIN, "code": ["1"]})
    code, _, err = call(root, "schedule", "install")
    assert code == 2 and "the project has no schedule" in err and not crontab.exists()


def test_json_answers_of_next(project):
    code, told, _ = call(project(), "schedule", "next", "--count", "3")
    assert code == 0 and len(told["times"]) == 3 and json.dumps(told)
