"""Ten notebooks as a pipeline: cold, and when nothing has changed; beside Ploomber, Kedro and papermill in a loop.

The peers lie in an environment of their own, `.venv-peers`, which is made when it is missing: they and we may want different
versions of the same libraries. `--quick` measures once instead of three times.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from measure import Peak
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers"
NEEDS = ["ploomber==0.23.3", "kedro==1.7.0", "papermill==2.7.0", "ipykernel"]
NAMES = [f"step_{number}" for number in range(10)]
QUIET = {"DO_NOT_TRACK": "1", "PLOOMBER_STATS_ENABLED": "false", "KEDRO_LOGGING_CONFIG": "logging.yml"}

LOOP = """
import papermill
for name in {names}:
    papermill.execute_notebook(f"{{name}}.ipynb", f"out/{{name}}.ipynb", progress_bar=False)
"""
KEDRO = {
    "pyproject.toml": '[tool.kedro]\npackage_name = "pipe"\nproject_name = "pipe"\nkedro_init_version = "1.7.0"\n',
    "logging.yml": "version: 1\n",
    "conf/base/catalog.yml": "".join(
        f"{name}:\n  type: pipe.notebooks.Executed\n  path: out/{name}.ipynb\n" for name in NAMES
    ),
    "conf/local/.keep": "",
    "src/pipe/__init__.py": "",
    "src/pipe/settings.py": "",
    "src/pipe/notebooks.py": """
from pathlib import Path

from kedro.io import AbstractDataset


class Executed(AbstractDataset):
    "An executed notebook, which the node itself has written."

    def __init__(self, path):
        self.path = Path(path)

    def _load(self):
        return str(self.path)

    def _save(self, data):
        pass

    def _exists(self):
        return self.path.exists()

    def _describe(self):
        return {"path": str(self.path)}
""",
    "src/pipe/pipeline_registry.py": f"""
import papermill
from kedro.pipeline import node, pipeline


def executor(name):
    def execute():
        papermill.execute_notebook(f"{{name}}.ipynb", f"out/{{name}}.ipynb", progress_bar=False)
        return name

    return execute


def register_pipelines():
    return {{"__default__": pipeline([node(executor(n), None, n, name=n) for n in {NAMES}])}}
""",
}


def write_project(folder):
    "The same ten notebooks, with what each of the tools wants beside them."
    for number, name in enumerate(NAMES):
        first = new_code_cell("upstream = None\nproduct = None", metadata={"tags": ["parameters"]})
        cells = [first, new_code_cell(f"print('answer', {number} * 7)")]
        spec = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=spec), folder / f"{name}.ipynb")
    steps = [f'[[step]]\nnotebook = "{name}.ipynb"' for name in NAMES]
    (folder / "workbench.toml").write_text("\n".join(['[project]\nname = "ten"', *steps]))
    tasks = [f"  - source: {name}.ipynb\n    product:\n      nb: out/{name}.ipynb\n" for name in NAMES]
    (folder / "pipeline.yaml").write_text("tasks:\n" + "".join(tasks))
    (folder / "loop.py").write_text(LOOP.format(names=NAMES))
    for name, text in KEDRO.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "out").mkdir()


def peer(name):
    return str(PEERS / "bin" / name)


def tools():
    "Tool -> the commands of a cold run, those of one where nothing has changed (None: it has no such thing)."
    ours = [str(Path(sys.executable).with_name("mlworkbench")), "run", "--json"]
    loop = [[peer("papermill"), f"{name}.ipynb", f"out/{name}.ipynb", "--no-progress-bar"] for name in NAMES]
    return {
        "mlworkbench run": ([ours], [ours]),
        "mlworkbench run --jobs 1": ([[*ours, "--jobs", "1"]], None),
        "mlworkbench run --engine plain": ([[*ours, "--engine", "plain"]], None),
        "Ploomber": ([[peer("ploomber"), "build"]], [[peer("ploomber"), "build"]]),
        "Kedro, nodes call papermill": (
            [[peer("kedro"), "run"]],
            [[peer("kedro"), "run", "--only-missing-outputs"]],
        ),
        "papermill's API in a loop": ([[peer("python"), "loop.py"]], None),
        "papermill's command in a loop": (loop, None),
    }


def executed(folder):
    "Where the executed notebooks lie, newest run first for ours."
    runs = sorted(folder.glob("runs/*/run.json"))
    return runs[-1].parent if runs else folder / "out"


def check(folder):
    "Each of ten notebooks ran and printed its answer."
    for number, name in enumerate(NAMES):
        cells = json.loads((executed(folder) / f"{name}.ipynb").read_text())["cells"]
        text = "".join("".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", []))
        assert text == f"answer {number * 7}\n", (folder, name, text)


def clean(folder):
    for name in ("runs", "store", ".mlworkbench", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in folder.glob(".*.metadata"):
        path.unlink()
    (folder / "out").mkdir()


def timed(commands, folder, watch=False):
    "Wall time of some commands one after the other; their peak memory, where it is watched."
    env, peak = {**os.environ, **QUIET}, 0
    started = time.perf_counter()
    for command in commands:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=folder, env=env, text=True, **output)
        if watch:
            watcher = Peak(process.pid)
            watcher.start()
        said, _ = process.communicate()
        assert process.returncode == 0, said[-3000:]
        peak = max(peak, watcher.together if watch else 0)
    return time.perf_counter() - started, peak / 1e6


def measure(folder, cold, unchanged, repeats):
    "Medians of cold and unchanged in seconds, memory of a cold run in MB."
    clean(folder)
    first, memory = timed(cold, folder, watch=True)
    check(folder)
    times, again = [first] if repeats == 1 else [], []  # else the first one only warms the caches
    for _ in range(repeats if repeats > 1 else 0):
        clean(folder)
        times.append(timed(cold, folder)[0])
        check(folder)
    made = {path: path.stat().st_mtime_ns for path in executed(folder).glob("*.ipynb")}
    for _ in range(repeats * 3 if unchanged else 0):
        again.append(timed(unchanged, folder)[0])
    assert made == {path: path.stat().st_mtime_ns for path in executed(folder).glob("*.ipynb")}
    return statistics.median(times), statistics.median(again) if again else None, memory


def install():
    if not PEERS.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([peer("python"), "-m", "pip", "install", "-q", *NEEDS], check=True)


def main():
    install()
    chosen = [name for name in sys.argv[1:] if not name.startswith("-")]
    results = {}
    for tool, (cold, unchanged) in tools().items():
        if chosen and not any(word in tool for word in chosen):
            continue
        with tempfile.TemporaryDirectory() as place:
            write_project(Path(place))
            results[tool] = measure(Path(place), cold, unchanged, 1 if "--quick" in sys.argv else 3)
        seconds, again, memory = results[tool]
        ours = results.get("mlworkbench run", results[tool])
        line = f"{tool:<32} cold {seconds:6.2f} s ({seconds / ours[0]:4.1f} x)"
        if again is not None:
            line += f"   nothing changed {again:5.2f} s ({again / ours[1]:4.1f} x)"
        print(f"{line}   {memory:5.0f} MB", flush=True)


if __name__ == "__main__":
    main()
