"""Schedules with real processes: exactly once, whoever asks; runs that overlap; a machine that is killed."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from flow_project import PLAIN, begin, call, is_alive, newest_record, wait_for, write_project
from test_store_s3 import bucket  # noqa: F401

from mlworkbench.core.config import ScheduleSettings, Settings, load_settings
from mlworkbench.flow.records import list_runs, read_run
from mlworkbench.schedule.claims import LEASE_S, Claims, new_claim
from mlworkbench.schedule.cron import times_between
from mlworkbench.schedule.run import run_due

HOUR = timedelta(hours=1)
ELEVEN = datetime(2026, 3, 2, 11, 0, 5, tzinfo=UTC)
ASK = """
import json, sys
from datetime import datetime
from mlworkbench.schedule.run import run_due
for line in sys.stdin:
    root, now = json.loads(line)
    print(json.dumps(run_due(root, datetime.fromisoformat(now))), flush=True)
"""


@pytest.fixture
def machines():
    """Processes that look at schedules when they are told a time; each could be another machine."""
    started = []

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        started.append(subprocess.Popen([sys.executable, "-c", ASK], **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(machine, root, now):
    machine.stdin.write(json.dumps([str(root), now.isoformat()]) + "\n")
    machine.stdin.flush()


def answer(machine):
    return json.loads(machine.stdout.readline())


def add_schedules(root, text):
    with open(root / "workbench.toml", "a") as file:
        file.write(text)
    return root


def empty_project(root, schedules, store="store"):
    """Without a step nothing can run: a scheduled time is claimed and refused in a moment."""
    root.mkdir()
    (root / "workbench.toml").write_text(f'[project]\nname = "empty"\nstore = "{store}"\n')
    return add_schedules(root, schedules)


def statuses(done):
    return [claim["status"] for claim in done]


def hours(done):
    return [datetime.fromisoformat(claim["scheduled_for"]).hour for claim in done]


# --- exactly once


@pytest.mark.parametrize("shared", ["folder", "store"])
def test_each_time_is_claimed_once_by_three_machines(tmp_path, machines, shared):
    minutely = '[schedule.minutely]\ncron = "* * * * *"\ncatch_up = "all"\n'
    names = ["one"] * 3 if shared == "folder" else ["one", "two", "three"]
    roots = {name: empty_project(tmp_path / name, minutely, str(tmp_path / "store")) for name in set(names)}
    three = [(machines(), roots[name]) for name in names]
    ran = Counter()
    for minute in range(40):
        for machine, root in three:
            ask(machine, root, ELEVEN + timedelta(minutes=minute))
        for machine, _ in three:
            ran.update(claim["scheduled_for"] for claim in answer(machine))
    begin_at = ELEVEN.replace(second=0)
    assert ran == {(begin_at + timedelta(minutes=m)).isoformat(): 1 for m in range(40)}


def test_two_machines_run_a_time_once(tmp_path, machines):
    def project(name):
        root = write_project(
            tmp_path / name,
            {"name": "1_look", "head": PLAIN, "code": ["1"]},
            store=str(tmp_path / "store"),
        )
        return add_schedules(root, '[schedule.hourly]\ncron = "@hourly"\nforce = true\n')

    two = [(machines(), project(name)) for name in ("one", "two")]
    for hour in range(4):
        for machine, root in two:
            ask(machine, root, ELEVEN + hour * HOUR)
        done = [claim for machine, _ in two for claim in answer(machine)]
        assert statuses(done) == ["succeeded"], done
        trigger = next(
            read_run(root / "runs", done[0]["run"])["trigger"]
            for _, root in two
            if done[0]["run"] in list_runs(root / "runs")
        )
        facts = {"kind": "schedule", "name": "hourly", "scheduled_for": done[0]["scheduled_for"]}
        assert trigger == {**facts, "attempt": 1, "missed": None}
    assert sum(len(list_runs(root / "runs")) for _, root in two) == 4


def test_claims_in_an_object_store(bucket, monkeypatch, request):  # noqa: F811
    monkeypatch.setenv("MLW_TEST_S3_SECRET", "test")
    project = {"name": "remote", "store": f"s3://bench/{request.node.name}", "storage_options": bucket}
    one, two = (Claims(Path(), Settings.model_validate({"project": project})) for _ in range(2))
    mine, other = new_claim("nightly", ELEVEN), new_claim("nightly", ELEVEN)
    assert one.make(mine) and not two.make(other)
    assert two.read("nightly", other["name"])["token"] == mine["token"]
    two.tell(other)
    assert [(claim["token"], claim["silent_s"] < LEASE_S) for claim in one.at_work()] == [
        (other["token"], True)
    ]
    two.done(other)
    two.done(other)
    assert one.at_work() == [] and one.names("nightly") == [mine["name"]]


# --- times that passed


@pytest.mark.parametrize(
    ("catch_up", "told"),
    [
        ("last", [("refused", 16, 4)]),
        ("all", [("refused", hour, None) for hour in range(12, 17)]),
        ("none", [("missed", 16, 5)]),
    ],
)
def test_what_becomes_of_the_times_while_a_machine_was_off(tmp_path, catch_up, told):
    root = empty_project(tmp_path / "one", f'[schedule.hourly]\ncron = "@hourly"\ncatch_up = "{catch_up}"\n')
    assert hours(run_due(root, ELEVEN)) == [11]
    done = run_due(root, ELEVEN + 5.5 * HOUR)
    missed = [claim["missed"] and claim["missed"]["count"] for claim in done]
    assert list(zip(statuses(done), hours(done), missed, strict=True)) == told
    assert run_due(root, ELEVEN + 5.6 * HOUR) == []
    assert hours(run_due(root, ELEVEN + 6 * HOUR)) == [17]


def test_a_schedule_that_was_edited_or_switched_off_has_missed_nothing(tmp_path):
    root = empty_project(tmp_path / "one", '[schedule.daily]\ncron = "0 11 * * *"\n')
    settings = (root / "workbench.toml").read_text()
    assert hours(run_due(root, ELEVEN)) == [11]
    (root / "workbench.toml").write_text(settings.replace("0 11", "30 12"))
    assert run_due(root, ELEVEN + 3 * HOUR) == []
    assert hours(run_due(root, ELEVEN + 25.5 * HOUR)) == [12]
    (root / "workbench.toml").write_text(settings.replace("0 11", "30 12") + "enabled = false\n")
    assert run_due(root, ELEVEN + 49.5 * HOUR) == []
    (root / "workbench.toml").write_text(settings.replace("0 11", "30 12"))
    assert run_due(root, ELEVEN + 72 * HOUR) == []
    assert hours(run_due(root, ELEVEN + 73.5 * HOUR)) == [12]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_daily_job_runs_once_a_day_and_an_hourly_one_every_real_hour(zone):
    local = ZoneInfo(zone)
    begin_at, end_at = (datetime(year, 1, 1, tzinfo=local).astimezone(UTC) for year in (2026, 2027))
    just_before = begin_at - timedelta(seconds=1)
    for minute in (0, 29, 30, 45):
        for hour in (0, 1, 2, 3):
            schedule = ScheduleSettings(cron=f"{minute} {hour} * * *", timezone=zone)
            times = list(times_between(schedule, just_before, end_at - timedelta(seconds=1)))
            assert len({time.astimezone(local).date() for time in times}) == len(times) == 365
    hourly = ScheduleSettings(cron="0 * * * *", timezone=zone)
    times = list(times_between(hourly, just_before, end_at - timedelta(seconds=1)))
    assert {later - time for time, later in pairwise(times)} == {HOUR}


# --- runs that overlap


@pytest.fixture
def slow(tmp_path):
    """A project whose step runs until a file is there."""
    wait = "from pathlib import Path\nPath('begun').touch()\nwhile not Path('go').exists():\n    time.sleep(0.05)"
    return write_project(tmp_path / "slow", {"name": "1_wait", "head": PLAIN, "code": [wait]})


def hourly(overlap="skip", more=""):
    return f'[schedule.hourly]\ncron = "@hourly"\nforce = true\noverlap = "{overlap}"\n{more}'


def next_hour(number=1):
    """A time that is yet to come: a run that has begun by now is going on then."""
    return datetime.now(UTC).replace(minute=0, second=3) + number * HOUR


def test_a_time_is_skipped_while_another_run_goes_on(slow, machines):
    add_schedules(slow, hourly())
    first, second = machines(), machines()
    ask(first, slow, ELEVEN)
    wait_for((slow / "begun").exists)
    ask(second, slow, next_hour())
    (skipped,) = answer(second)
    (slow / "go").touch()
    (ran,) = answer(first)
    assert ran["status"] == "succeeded" and skipped["status"] == "skipped"
    assert "[schedule.hourly] for 2026-03-02T11:00:00+00:00 was going on" in skipped["reason"]
    assert len(list_runs(slow / "runs")) == 1
    code, told, _ = call(slow, "schedule", "list")
    assert code == 0 and [past["status"] for past in told["schedules"][0]["past"]][:2] == [
        "skipped",
        "succeeded",
    ]


def test_what_was_due_during_a_run_is_skipped_also_if_told_later(slow, machines):
    """A systemd timer does not ask again while its service is at work."""
    add_schedules(slow, hourly())
    (slow / "go").touch()
    (ran,) = run_due(slow, ELEVEN)
    claims = Claims(slow, load_settings(slow))
    during = datetime.fromisoformat(ran["scheduled_for"]) + HOUR
    claims.write(ran | {"started": (during - HOUR).isoformat(), "ended": (during + 0.3 * HOUR).isoformat()})
    (skipped,) = run_due(slow, ELEVEN + 1.5 * HOUR)
    assert skipped["status"] == "skipped" and statuses(run_due(slow, ELEVEN + 2 * HOUR)) == ["succeeded"]


def test_a_run_by_hand_is_in_the_way_as_well(slow):
    add_schedules(slow, hourly())
    by_hand = begin(slow, "run")
    wait_for((slow / "begun").exists)
    (skipped,) = run_due(slow, next_hour())
    run = newest_record(slow)["run"]
    assert (skipped["status"], skipped["reason"]) == ("skipped", f"Run {run} was going on when it was due.")
    (slow / "go").touch()
    assert by_hand.wait(60) == 0
    by_hand.communicate()


def test_waiting_is_for_one_only_and_in_order(slow, machines):
    add_schedules(slow, hourly("wait"))
    first, second, third = machines(), machines(), machines()
    ask(first, slow, next_hour())
    wait_for((slow / "begun").exists)
    ask(second, slow, next_hour(2))
    claims = Claims(slow, load_settings(slow))
    wait_for(lambda: len(claims.at_work()) == 2)
    ask(third, slow, next_hour(3))
    assert answer(third) == []  # it is decided on when the one that waits has run
    (slow / "go").touch()
    (one,), (two,) = answer(first), answer(second)
    assert statuses([one, two]) == ["succeeded"] * 2 and one["ended"] <= two["started"]
    assert statuses(run_due(slow, next_hour(3))) == ["succeeded"] and claims.at_work() == []


def test_two_schedules_of_one_minute_both_run(slow):
    add_schedules(slow, hourly() + hourly().replace("hourly]", "other]"))
    (slow / "go").touch()
    done = run_due(slow, ELEVEN)
    assert [(claim["schedule"], claim["status"]) for claim in done] == [
        ("hourly", "succeeded"),
        ("other", "succeeded"),
    ]


# --- a machine that is killed


def age(root):
    """As if nobody had told for longer than a claim is believed."""
    (file,) = (root / "store/_schedules/at_work").glob("*.json")
    past = file.stat().st_mtime - LEASE_S - 1
    os.utime(file, (past, past))


def kill_while_running(machine, root, now):
    ask(machine, root, now)
    wait_for((root / "begun").exists)
    (root / "begun").unlink()
    step = wait_for(lambda: newest_record(root) and newest_record(root)["steps"][0]["status"] == "running")
    machine.kill()
    machine.wait()
    return step


@pytest.mark.parametrize("catch_up", ["last", "none"])
def test_a_time_whose_machine_was_killed_is_told_and_tried_once_more(slow, machines, catch_up):
    add_schedules(slow, hourly(more=f'catch_up = "{catch_up}"\n'))
    kill_while_running(machines(), slow, ELEVEN)
    assert run_due(slow, ELEVEN) == []  # it may yet be alive
    age(slow)
    (slow / "go").touch()
    lost, *again = run_due(slow, ELEVEN)
    assert lost["status"] == "lost" and "Nothing was heard of process" in lost["reason"]
    if catch_up == "none":
        assert again == []
    else:
        assert [(one["status"], one["attempt"]) for one in again] == [("succeeded", 2)]
        assert read_run(slow / "runs", lost["run"])["status"] == "lost"
    assert run_due(slow, ELEVEN) == []


def test_a_machine_that_slept_during_a_run_is_not_lost(slow, machines):
    """A laptop that was closed: for an hour nobody told, and the run goes on as it is opened."""
    add_schedules(slow, hourly())
    machine = machines()
    ask(machine, slow, ELEVEN)
    wait_for((slow / "begun").exists)
    machine.send_signal(signal.SIGSTOP)
    age(slow)
    assert run_due(slow, ELEVEN) == []
    (slow / "go").touch()
    machine.send_signal(signal.SIGCONT)
    assert statuses(answer(machine)) == ["succeeded"]
    assert run_due(slow, ELEVEN) == [] and len(list_runs(slow / "runs")) == 1


def test_a_time_that_kills_its_machine_is_not_tried_for_ever(slow, machines):
    add_schedules(slow, hourly())
    for _ in range(2):
        kill_while_running(machines(), slow, ELEVEN)
        age(slow)
    assert statuses(run_due(slow, ELEVEN)) == ["lost"] and run_due(slow, ELEVEN) == []


def test_a_run_whose_end_could_not_be_told_is_not_repeated(slow):
    add_schedules(slow, hourly())
    (slow / "go").touch()
    (ran,) = run_due(slow, ELEVEN)
    claims = Claims(slow, load_settings(slow))
    untold = ran | {"status": "running", "ended": None}
    claims.write(untold)
    claims.tell(untold)
    age(slow)
    assert [(c["status"], c["run"]) for c in run_due(slow, ELEVEN)] == [("succeeded", ran["run"])]
    assert len(list_runs(slow / "runs")) == 1


def test_ctrl_c_ends_the_run_and_is_told(slow):
    add_schedules(slow, hourly().replace("@hourly", "* * * * *"))
    process = begin(slow, "schedule", "run-due")
    wait_for((slow / "begun").exists)
    process.send_signal(2)
    out, _ = process.communicate(timeout=60)
    (claim,) = json.loads(out)["claims"]
    assert process.returncode == 1 and claim["status"] == "interrupted"
    assert read_run(slow / "runs", claim["run"])["status"] == "interrupted" and not is_alive(process.pid)


# --- what a schedule says of the run


def test_selection_and_parameters_of_a_schedule_reach_the_run(tmp_path):
    root = write_project(
        tmp_path / "two",
        {
            "name": "1_look",
            "head": PLAIN,
            "params_cell": "depth: int = 1",
            "code": ["print('depth is', depth)"],
        },
        {"name": "2_else", "head": PLAIN, "code": ["1"]},
    )
    add_schedules(root, hourly(more='only = ["1_look"]\nparams = { depth = 7 }\n'))
    (done,) = run_due(root, ELEVEN)
    record = read_run(root / "runs", done["run"])
    assert [(step["name"], step["params"]) for step in record["steps"]] == [("1_look", {"depth": 7})]
    assert "depth is 7" in (root / "runs" / done["run"] / "1_look.ipynb").read_text()


def test_check_and_list_tell_what_is_wrong_with_a_schedule(tmp_path):
    root = write_project(tmp_path / "one", {"name": "1_look", "head": PLAIN, "code": ["1"]})
    add_schedules(root, '[schedule.nightly]\ncron = "@daily"\nonly = ["1_lock"]\n')
    code, told, _ = call(root, "check")
    assert code == 2 and "[schedule.nightly]: there is no step '1_lock'" in told["problems"][0]
    code, told, _ = call(root, "schedule", "list")
    assert code == 2 and "Did you mean '1_look'?" in told["schedules"][0]["problem"]


def test_a_reason_shows_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MLW_TEST_KEY", "s3cr3t-value-of-a-key")
    step = {"name": "1_look", "head": PLAIN, "params_cell": "depth: int = 1", "code": ["1"]}
    root = write_project(tmp_path / "one", step | {"secrets": ["MLW_TEST_KEY"]})
    add_schedules(root, hourly(more='params = { depth = "s3cr3t-value-of-a-key" }\n'))
    (done,) = run_due(root, ELEVEN)
    assert done["status"] == "refused" and "depth" in done["reason"]
    assert not [path for path in root.glob("store/**/*.json") if "s3cr3t" in path.read_text()]
