"""Checking parameters before anything starts: warm and in a process of its own, against papermill's `inspect`.

papermill reads the names, types and defaults of a notebook's parameters, and checks no value; ours reads the same and
checks one value for each. The wrong command line is timed from its start to its message.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from measure import seconds
from nbformat.v4 import new_code_cell, new_notebook, writes

COUNTS = (5, 100)
LIMIT_S = 0.05
OURS = """import sys, time
begun = time.perf_counter()
from pathlib import Path
from types import SimpleNamespace
from mlworkbench.core.kinds import Text
from mlworkbench.flow.notebooks import read_notebook
from mlworkbench.flow.parameters import resolve
notebook = read_notebook(Path(sys.argv[1]))
given = {f"p{n}": Text(str(n)) for n in range(int(sys.argv[2]))}
values = resolve({"step": (SimpleNamespace(params={}), notebook)}, given)["step"]
print(time.perf_counter() - begun, len(values))"""
PAPERMILL = """import sys, time
begun = time.perf_counter()
from papermill.inspection import inspect_notebook
values = inspect_notebook(sys.argv[1])
print(time.perf_counter() - begun, len(values))"""


def make_notebook(folder, count):
    lines = [f"p{n}: int = {n}  # number {n}, 0..1000" for n in range(count)]
    cell = new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})
    facts = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = Path(folder, f"step_{count}.ipynb")
    path.write_text(writes(new_notebook(cells=[cell, new_code_cell("p0 + 1")], metadata=facts)))
    return path


def cold(code, *arguments, repeats=5):
    "Median seconds in new processes, from the first import to the answer."
    times = []
    for _ in range(repeats + 1):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        took, found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(found) == int(arguments[1]), "not all parameters were found"
        times.append(float(took))
    return statistics.median(times[1:])


def warm(path, count):
    from papermill.inspection import inspect_notebook

    from mlworkbench.core.kinds import Text
    from mlworkbench.flow.notebooks import read_notebook
    from mlworkbench.flow.parameters import resolve

    step, given = SimpleNamespace(params={}), {f"p{n}": Text(str(n)) for n in range(count)}

    def ours():
        return resolve({"step": (step, read_notebook(path))}, given)["step"]

    def theirs():
        return inspect_notebook(str(path))

    assert ours() == {f"p{n}": n for n in range(count)} and list(theirs()) == list(ours())
    return seconds(ours), seconds(theirs)


def refused(folder, path):
    "From the start of the command to its message, for a value that is wrong."
    Path(folder, "workbench.toml").write_text(f'[project]\nname = "p"\n[[step]]\nnotebook = "{path.name}"\n')
    command = [
        str(Path(sys.executable).with_name("mlworkbench")),
        "run",
        "--json",
        "-p",
        "p3=x",
        "--project",
        folder,
    ]

    def call():
        done = subprocess.run(command, capture_output=True, text=True)
        assert (
            done.returncode == 2 and "'p3' is 'x'. Accepted: int, 0..1000" in json.loads(done.stdout)["error"]
        )

    return seconds(call)


def main():
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'parameters':24}{'ours':>10}{'papermill':>12}{'ratio':>8}")
        for count in COUNTS:
            path = make_notebook(folder, count)
            rows = {"warm": warm(path, count)}
            rows["with imports"] = cold(OURS, path, count), cold(PAPERMILL, path, count)
            for what, (ours, theirs) in rows.items():
                print(
                    f"{f'{count}, {what}':24}{ours * 1e3:7.1f} ms{theirs * 1e3:9.1f} ms{theirs / ours:8.0f}"
                )
            worst = rows["with imports"][0]
        print(
            f"a wrong value, from the start of the command to the message: {refused(folder, path) * 1e3:.0f} ms"
        )
        print(f"the limit of {LIMIT_S * 1e3:.0f} ms is {'kept' if worst <= LIMIT_S else 'exceeded'}")


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"({time.perf_counter() - started:.0f} s)")
