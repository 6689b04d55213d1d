"What running a notebook costs beyond its own work: papermill, our plain engine, kernels forked from a preloaded process."

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.flow.process import StepProcess, next_events, run_notebook

HEAVY = "import polars as pl, lightgbm, torch\nimport plotly.graph_objects as go"
NOTEBOOKS = {
    "empty": ["print(42)"],
    "20 cells": [*[f"x{n} = {n}" for n in range(19)], "print(42)"],
    "heavy imports": [HEAVY, "print(42)"],
}


def write(folder: Path, name: str, cells: list[str]) -> Path:
    python = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = new_notebook(cells=list(map(new_code_cell, cells)), metadata={"kernelspec": python})
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def papermill(source: Path, out: Path, engine: str | None = None):
    from papermill import execute_notebook

    execute_notebook(source, out, engine_name=engine, progress_bar=False)


WAYS = {
    "papermill's API": papermill,
    "papermill's API, our engine": lambda source, out: papermill(source, out, "mlworkbench"),
    "plain engine": lambda source, out: run_notebook(source, out, engine="plain"),
    "preloaded engine": run_notebook,
}


def one(way, source: Path, repeats: int) -> list[float]:
    "Seconds a notebook, after one that is not counted: it imports papermill, or starts the preloaded process."
    out, times = source.with_name("out.ipynb"), []
    for _ in range(repeats + 1):
        out.unlink(missing_ok=True)
        begun = time.perf_counter()
        way(source, out)
        times.append(time.perf_counter() - begun)
        assert nbformat.read(out, 4).cells[-1].outputs[0].text == "42\n"
    return times[1:]


def many(source: Path, count: int, workers: int) -> float:
    "Seconds for several notebooks on several workers, with a new preloaded process."
    from mlworkbench.core.forks import close_preloaded

    close_preloaded()
    folder, running, begun = source.parent, [], time.perf_counter()
    waiting = [
        {"notebook": str(source), "out": str(folder / f"{n}.ipynb"), "cwd": str(folder)} for n in range(count)
    ]
    ended = []
    while waiting or running:
        while waiting and len(running) < workers:
            job = waiting.pop(0)
            running.append(StepProcess(job | {"env": dict(os.environ), "log": job["out"] + ".log"}))
        next_events(running, 1.0)
        ended += [process for process in running if not process.running]
        running = [process for process in running if process.running]
    seconds = time.perf_counter() - begun
    assert [process.outcome["status"] for process in ended] == ["succeeded"] * count
    return seconds


def saving(folder: Path) -> dict:
    "How often a notebook of 200 talking cells is saved, and what part of its time that takes."
    source = write(folder, "talks", ["import time", *["print('x' * 2000); time.sleep(0.02)"] * 200])
    begun = time.perf_counter()
    saves = run_notebook(source, folder / "out.ipynb")["saves"]
    return saves | {"share": saves["seconds"] / (time.perf_counter() - begun)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(NOTEBOOKS))
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in options.only:
            source, repeats = write(folder, name, NOTEBOOKS[name]), options.repeats
            for way, work in WAYS.items():
                times = one(work, source, max(2, repeats // 2) if name == "heavy imports" else repeats)
                results[f"{name}: {way}"] = statistics.median(times)
                stock = results[f"{name}: papermill's API"]
                ratio = f"{stock / statistics.median(times):5.1f} x" if way != "papermill's API" else ""
                print(
                    f"{name:14} {way:28} {statistics.median(times):6.2f} s (to {max(times):.2f}) {ratio}",
                    flush=True,
                )
        if "heavy imports" in options.only:
            results["20 heavy notebooks, 2 workers"] = many(
                write(folder, "many", NOTEBOOKS["heavy imports"]), 20, 2
            )
            print(
                f"20 heavy notebooks, 2 workers, from nothing: {results['20 heavy notebooks, 2 workers']:.1f} s"
            )
            mine = results["heavy imports: preloaded engine"]
            ratio = results["heavy imports: papermill's API"] / mine
            print(f"aims: {mine:.2f} s <= 0.5 s: {mine <= 0.5}; {ratio:.1f} x >= 10 x: {ratio >= 10}")
        saves = saving(folder)
        print(f"saved {saves['count']} times in 201 cells, {100 * saves['share']:.1f} % of the time")
    print(json.dumps({**results, "saves": saves}))


if __name__ == "__main__":
    main()
