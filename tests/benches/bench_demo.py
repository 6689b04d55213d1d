"""`make demo` from an empty checkout: installation and pipeline apart, then again; peak memory; the pages.

`bench_demo.py --install` also times the installation into a fresh environment.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Peak

ROOT = Path(__file__).parents[2]


def timed(command, cwd):
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, stdout=subprocess.DEVNULL)
    peak = Peak(process.pid)
    peak.start()
    assert process.wait() == 0, command
    return time.perf_counter() - started, peak.together / 1e6, peak.largest / 1e6


def requests_of(page):
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests"))
    from shutil import which

    from conftest import CHROMIUM_FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=CHROMIUM_FLAGS.split())
        tab, seen = browser.new_page(), []
        tab.on("request", lambda request: seen.append(request.url))
        tab.goto(page.as_uri())
        tab.wait_for_timeout(1500)
        browser.close()
    return len(seen) - 1  # beside the page itself


def main():
    with tempfile.TemporaryDirectory() as folder:
        if "--install" in sys.argv:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
            pip = [f"{folder}/venv/bin/python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
            subprocess.run([*pip, f"{ROOT}[demo]"], check=True, cwd=folder)
            print(f"{'install into a fresh environment':<34} {time.perf_counter() - started:7.1f} s")
        command = [Path(sys.executable).with_name("mlworkbench"), "demo", "flights"]
        for what in ("pipeline, first time", "pipeline, nothing changed"):
            seconds, together, largest = timed(command, folder)
            print(
                f"{what:<34} {seconds:7.1f} s   peak memory {together:6.0f} MB, one process {largest:6.0f} MB"
            )
        runs = Path(folder) / "demo/flights/runs"
        for page in [runs / "index.html", *sorted(runs.glob("*/*.html"))]:
            size = os.path.getsize(page) / 1e6
            print(f"{page.name:<34} {size:7.2f} MB  {requests_of(page)} requests")


if __name__ == "__main__":
    main()
