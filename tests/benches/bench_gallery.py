"""The gallery of many runs of eight steps: time to write, size, memory, time until a browser shows and searches it."""

import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which

from measure import peak_of, seconds

from mlworkbench.report.gallery import FIRST, write_gallery

STEPS = [f"{k}0_step" for k in range(1, 9)]


def write_runs(runs, count, seed=7):
    "Runs of eight steps with four metrics, two parameters and three findings each; one step in three is reused."
    rng, started = random.Random(seed), datetime(2026, 1, 1, tzinfo=UTC)
    finding = {"check": "drift", "subject": "flights.temp", "severity": "warn", "message": "temp has drifted"}
    for i in range(count):
        when = started + timedelta(hours=6 * i)
        folder = runs / f"{when:%Y%m%d-%H%M%S}-{i:04x}"
        folder.mkdir(parents=True)
        steps = [
            {"name": name, "status": "cached" if i and rng.random() < 1 / 3 else "succeeded", "html": f"{name}.html",
             "seconds": rng.uniform(1, 60), "upstream": STEPS[:k][-1:], "findings": [finding] * 3,
             "params": {"depth": rng.choice([4, 6, 8]), "seed": 7},
             "metrics": {f"metric_{m}": rng.gauss(0.7, 0.01) for m in range(4)}}
            for k, name in enumerate(STEPS)
        ]  # fmt: skip
        for step in steps:
            step["from_run"] = folder.name if step["status"] == "cached" else None
            (folder / step["html"]).write_text("<title>a page</title>")
        record = {"run": folder.name, "project": "flights", "status": "succeeded", "seconds": 200.0}
        (folder / "run.json").write_text(json.dumps(record | {"started": when.isoformat(), "steps": steps}))
    return runs


def in_browser(page, words):
    "Seconds until the list can be searched, and until a search is answered."
    from playwright.sync_api import sync_playwright

    sys.path.append(str(Path(__file__).parents[1]))
    from conftest import CHROMIUM_FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=CHROMIUM_FLAGS.split())
        tab = browser.new_page()
        begin = time.perf_counter()
        tab.goto(page.as_uri())
        tab.locator("#shown", has_text=f"{words} runs").wait_for()
        ready = time.perf_counter() - begin
        begin = time.perf_counter()
        tab.get_by_label("Search runs").fill("0000-0003")
        tab.locator("#shown", has_text=f"1 of {words}").wait_for()
        answered = time.perf_counter() - begin
        browser.close()
    return ready, answered


def write_at(folder):
    write_gallery(Path(folder))


if __name__ == "__main__":
    print(f"{'runs':>6} {'write s':>8} {'kB':>6} {'MB memory':>10} {'shown s':>8} {'search s':>9}")
    for count in (10, 100, 1000):
        with tempfile.TemporaryDirectory() as folder:
            runs = write_runs(Path(folder, "runs"), count)
            page = write_gallery(runs)
            assert page.read_text().count("<tr data-run=") == min(count, FIRST)
            took = seconds(write_gallery, runs)
            memory = peak_of("bench_gallery", f"write_at({str(runs)!r})")
            shown, searched = in_browser(page, count) if which("chromium") else (float("nan"),) * 2
            size = page.stat().st_size / 1e3
            print(f"{count:>6} {took:>8.2f} {size:>6.0f} {memory:>10} {shown:>8.2f} {searched:>9.2f}")
