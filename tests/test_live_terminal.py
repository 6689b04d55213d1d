"""Looking on while a run goes on: the table on a terminal, lines elsewhere, `status` and `logs` from a second terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import threading

import pytest
from flow_project import PLAIN, begin, command, newest_record, statuses, step_of, wait_for, write_project

HOLD = 'print("begun", flush=True)\nwhile not os.path.exists("go"): time.sleep(0.05)\nprint("done")'


def small_project(root, **last):
    "Two steps side by side; the second one waits for a file."
    return write_project(
        root,
        {"name": "a_quick", "head": PLAIN, "code": ['print("one\\ntwo")', "40 + 2"]},
        {"name": "b_slow", "head": PLAIN, "code": [HOLD, "raise ValueError('no rows')"], **last},
    )


class Background:
    "A command on a terminal of its own, or writing into a pipe; `screen` is all that it has written."

    def __init__(self, *args, terminal=True, **environ):
        ours, theirs = pty.openpty() if terminal else os.pipe()
        streams = {"stdin": theirs, "stderr": theirs} if terminal else {"stderr": subprocess.DEVNULL}
        kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
        environ = kept | {"TERM": "xterm"} | environ
        self.process = subprocess.Popen(args, stdout=theirs, env=environ, **streams)
        os.close(theirs)
        self.written, self.ours = b"", ours
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        try:
            while chunk := os.read(self.ours, 65536):
                self.written += chunk
        except OSError:  # the other side of a terminal is closed
            pass
        os.close(self.ours)

    @property
    def screen(self):
        return self.written.decode(errors="replace")

    def end(self):
        code = self.process.wait(60)
        self.reader.join()
        return code


def printed(root, step):
    "Text of the outputs that the executed notebook holds by now."
    path = root / "runs" / newest_record(root)["run"] / f"{step}.ipynb"
    cells = json.loads(path.read_text())["cells"] if path.exists() else []
    return "".join("".join(o.get("text", "")) for cell in cells for o in cell.get("outputs", []))


@pytest.fixture
def held(tmp_path):
    "A project whose run goes on until the file `go` is there; that run."
    root = small_project(tmp_path)
    run = begin(root, "run", "--jobs", "2")
    wait_for(lambda: (r := newest_record(root)) and step_of(r, "a_quick")["status"] == "succeeded")
    wait_for(lambda: "begun" in printed(root, "b_slow"))
    yield root, run
    (root / "go").touch()
    run.communicate(timeout=60)


def test_logs_f_prints_lines_as_they_appear_and_ends_with_the_run(held):
    root, run = held
    looking = command("logs", "-f", "--project", root)
    logs = Background(*looking, terminal=False)
    wait_for(lambda: "begun" in logs.screen)
    first = logs.screen.splitlines()
    assert first[:3] == ["a_quick | one", "a_quick | two", "a_quick | 42"]
    assert re.fullmatch(r"a_quick \| -- succeeded in [\d.]+ s", first[3]) and first[4] == "b_slow  | begun"
    assert run.poll() is None
    (root / "go").touch()
    assert logs.end() == run.wait(60) == 1
    rest = logs.screen.splitlines()[5:]
    assert rest[0] == "b_slow  | done" and "b_slow  | ValueError: no rows" in rest
    assert any("raise ValueError" in line for line in rest) and "\x1b" not in logs.screen
    assert re.fullmatch(r"b_slow  \| -- failed in .*: In \[3\]: ValueError: no rows", rest[-2])
    assert rest[-1] == f"-- run {newest_record(root)['run']}: failed"

    done = subprocess.run([*looking, "--json", "b_slow"], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and lines[-1] == {"run": newest_record(root)["run"], "status": "failed"}
    assert lines[0] == {"step": "b_slow", "cell": 3, "stream": "stdout", "text": "begun"}
    assert {line["stream"] for line in lines[:-1]} == {"stdout", "error", "status"}


def test_ctrl_c_ends_the_looking_and_not_the_run(held):
    root, run = held
    for looking, seen in ((("logs", "-f"), "begun"), (("status", "--follow", "--plain"), "b_slow: running")):
        looker = Background(*command(*looking, "--project", root))
        wait_for(lambda: seen in looker.screen)  # noqa: B023
        looker.process.send_signal(signal.SIGINT)
        assert looker.end() == 130 and f"Run {newest_record(root)['run']} goes on." in looker.screen
    assert run.poll() is None and newest_record(root)["status"] == "running"


def test_status_of_a_run_in_another_terminal(held):
    root, _ = held
    once = subprocess.run(command("status", "--project", root), capture_output=True, text=True, check=True)
    assert "2. b_slow: running" in once.stdout and "Running: 1 of 2 steps done" in once.stdout
    assert "time left not known: b_slow has not run before" in once.stdout
    follower = Background(*command("status", "--follow", "--project", root))
    wait_for(lambda: "cell 3 of 4" in follower.screen)
    (root / "go").touch()
    assert follower.end() == 1 and "Failed in" in follower.screen and "b_slow: In [3]" in follower.screen


def test_a_runner_that_is_killed_is_found_out_by_whoever_looks_on(held):
    root, run = held
    logs = Background(*command("logs", "-f", "b_slow", "--json", "--project", root), terminal=False)
    wait_for(lambda: "begun" in logs.screen)
    run.kill()
    assert logs.end() == 1
    answer = json.loads(logs.screen.splitlines()[-1])
    assert answer["status"] == newest_record(root)["status"] == "lost"


def test_a_table_for_eyes_and_numbered_lines_for_ears(tmp_path):
    root = small_project(tmp_path)
    (root / "go").touch()
    subprocess.run(command("run", "--project", root, "--jobs", "2"), capture_output=True)
    (root / "go").unlink()
    path = next((root / "runs").glob("*/run.json"))
    record = json.loads(path.read_text())
    for step in record["steps"]:
        step |= {"status": "succeeded", "seconds": 600.0}  # as if they had taken ten minutes
    path.write_text(json.dumps(record))

    table = Background(*command("run", "--force", "--jobs", "2", "--project", root))
    wait_for(lambda: "cell 3 of 4" in table.screen and "about 10 min left" in table.screen)
    (root / "go").touch()
    assert table.end() == 1 and "\x1b[" in table.screen  # redrawn
    (root / "go").unlink()

    lines = Background(*command("run", "--force", "--plain", "--jobs", "2", "--project", root))
    wait_for(lambda: "b_slow: running" in lines.screen and "a_quick: succeeded" in lines.screen)
    (root / "go").touch()
    assert lines.end() == 1 and "\x1b" not in lines.screen and "\r\n" in lines.screen
    told = [line for line in lines.screen.splitlines() if re.match(r"\d\. [ab]_\w+: \w+", line)]
    assert [line.partition(".")[0] for line in told[:4]] == ["1", "2", "3", "4"]
    assert "0 of 2 steps done" in told[0] and "left" in told[0]
    quiet = Background(*command("status", "--project", root), TERM="dumb")
    assert quiet.end() == 0 and "\x1b" not in quiet.screen and "2. b_slow: failed" in quiet.screen


def test_the_lines_of_parallel_steps_are_whole(tmp_path):
    code = "for i in range(300): print(f'{i:03}', 'x' * 60, end='' if i % 3 else chr(10)); sys.stdout.flush()"
    steps = [{"name": name, "head": PLAIN, "code": [code]} for name in ("one", "two")]
    root = write_project(tmp_path, *steps)
    run = begin(root, "run", "--jobs", "2")
    wait_for(lambda: newest_record(root))
    done = subprocess.run(command("logs", "-f", "--project", root), capture_output=True, text=True)
    run.communicate(timeout=60)
    assert done.returncode == 0 and statuses(newest_record(root)) == {"one": "succeeded", "two": "succeeded"}
    for name in ("one", "two"):
        said = [line.partition(" | ")[2] for line in done.stdout.splitlines() if line.startswith(f"{name} |")]
        numbers = re.findall(r"(\d{3}) x{60}", "".join(said))
        assert numbers == [f"{i:03}" for i in range(300)]
        assert all(re.fullmatch(r"((\d{3}) x{60})+|-- succeeded.*", line) for line in said)
