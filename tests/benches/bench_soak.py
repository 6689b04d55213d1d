"500 notebooks in a row, a third of them with queries and training: no hang, no leaked process, no leaked file handle."

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.flow.kernels import socket_folder
from mlworkbench.flow.process import StepProcess, next_events

WORK = [
    "import polars as pl, numpy as np, torch, lightgbm\nimport plotly.graph_objects as go",
    "rows = pl.select(x=pl.int_range(300_000)).with_columns(g=pl.col('x') % 11)\n"
    "total = rows.lazy().group_by('g').agg(pl.col('x').sum()).collect()['x'].sum()\n"
    "joined = rows.lazy().join(rows.lazy().group_by('g').len(), on='g').sort('x').collect(engine='streaming').height",
    "x = np.random.rand(4000, 8); y = x[:, 0] + x[:, 1] > 1\n"
    "model = lightgbm.train({'objective': 'binary', 'verbose': -1}, lightgbm.Dataset(x, y), 15)\n"
    "right = ((model.predict(x) > 0.5) == y).mean()",
    "net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))\n"
    "step = torch.optim.Adam(net.parameters()); data = torch.rand(2048, 8)\n"
    "for _ in range(20):\n    loss = (net(data) ** 2).mean(); step.zero_grad(); loss.backward(); step.step()",
    "figure = go.Figure(go.Scatter(y=[1, 2]))\nprint(int(total), joined, right > 0.9, bool(loss < 1))",
]
ANSWER = f"{299_999 * 300_000 // 2} 300000 True True\n"
KINDS = {
    "queries and training": WORK,
    "prints": ["print(42)"] * 10,
    "starts a process": ["import subprocess"],
}
KINDS["starts a process"] += ["subprocess.Popen(['sleep', '600'])", "open('/dev/null'); print(42)"]


def soak(count: int, workers: int, folder: Path, limit_s: float = 120.0) -> dict:
    "Run notebooks of three kinds; raises where one ends badly, late, or leaves something behind."
    sources = {}
    for name, cells in KINDS.items():
        sources[name] = folder / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=list(map(new_code_cell, cells))), sources[name])
    run_all(folder, [sources["prints"]], 1, limit_s)  # starts what stays
    me, before = psutil.Process(), settled()
    begun, names = time.perf_counter(), [list(KINDS)[n % 3] for n in range(count)]
    times = run_all(folder, [sources[name] for name in names], workers, limit_s)
    seconds = time.perf_counter() - begun
    after = settled()
    assert after == before, f"left behind: {before} before, {after} after"
    by_kind = {kind: [t for name, t in zip(names, times, strict=True) if name == kind] for kind in KINDS}
    facts = {kind: (statistics.median(some), max(some)) for kind, some in by_kind.items() if some}
    memory = [child.memory_info().rss >> 20 for child in me.children()]
    return {"seconds": seconds, "median and longest": facts, "held": after, "preloaded process MB": memory}


def settled() -> dict:
    "What is held once the last process that has ended is forgotten by whoever waits for it."
    seen = [held()]
    while len(seen) < 10 or any(one != seen[-1] for one in seen[-10:]):
        time.sleep(0.1)
        seen.append(held())
    return seen[-1]


def held() -> dict:
    "What this process holds, itself and through its children."
    me = psutil.Process()
    folders = [one for one in Path(socket_folder()).glob("mlw-*") if str(os.getpid()) in one.name]
    children = me.children(recursive=True)
    files = [me.num_fds(), *(child.num_fds() for child in children)]
    return {"processes": len(children), "files": files, "threads": me.num_threads(), "folders": len(folders)}


def run_all(folder: Path, notebooks: list[Path], workers: int, limit_s: float) -> list[float]:
    "Seconds each notebook took."
    waiting, running, times, places = list(enumerate(notebooks)), {}, {}, list(range(workers))
    while waiting or running:
        while waiting and len(running) < workers:
            number, source = waiting.pop(0)
            out = folder / f"out-{places[0]}.ipynb"
            job = {"notebook": str(source), "out": str(out), "cwd": str(folder), "env": dict(os.environ)}
            job |= {"log": str(out.with_suffix(".log")), "timeout_s": limit_s}
            running[StepProcess(job)] = number, time.perf_counter(), places.pop(0)
        next_events(list(running), 1.0)
        for process in [process for process in running if not process.running]:
            number, begun, place = running.pop(process)
            times[number] = time.perf_counter() - begun
            check(process, notebooks[number])
            places.append(place)
            if len(times) % 50 == 0:
                print(f"{len(times)} notebooks, {held()}", flush=True)
    return [times[number] for number in range(len(notebooks))]


def check(process: StepProcess, source: Path):
    assert process.outcome["status"] == "succeeded" and process.outcome["engine"] == "preloaded", (
        process.outcome
    )
    saved = nbformat.read(process.job["out"], 4)
    printed, facts = saved.cells[-1].outputs[0].text, (saved.metadata.papermill, process.job, process.outcome)
    assert saved.metadata.papermill.input_path == str(source), facts
    assert printed == (ANSWER if source.stem == "queries and training" else "42\n"), (printed, facts)
    assert not psutil.pid_exists(process.kernel) and not psutil.pid_exists(process.pid)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        facts = soak(options.count, options.workers, Path(place))
    print(
        f"{options.count} notebooks on {options.workers} workers in {facts['seconds']:.0f} s, all succeeded"
    )
    for kind, (median, longest) in facts["median and longest"].items():
        print(f"{kind:22} median {median:.2f} s, longest {longest:.2f} s")
    print(f"held before and after: {facts['held']}; preloaded process: {facts['preloaded process MB']} MB")


if __name__ == "__main__":
    main()
