"""What the benchmarks measure with: a median of wall times, the peak memory of a process of its own."""

import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil


def seconds(work: Callable, *inputs, repeats: int = 5) -> float:
    "Median wall time; the first call, which imports, is not counted."
    work(*inputs)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work(*inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak() -> int:
    "Peak memory of this process in MB; Linux keeps the parent's peak in ru_maxrss after exec, not in VmHWM."
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20  # macOS counts bytes


def peak_of(bench: str, work: str) -> int:
    "Peak memory in MB of a process that does only this work of a benchmark."
    command = [
        sys.executable,
        "-c",
        f"from {bench} import *; {work}; from measure import peak; print(peak())",
    ]
    return int(subprocess.run(command, cwd=sys.path[0], capture_output=True, text=True, check=True).stdout)


class Peak(threading.Thread):
    "The most memory in bytes that a process and its descendants held (proportional set size), every 0.1 s."

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.together, self.largest = psutil.Process(pid), 0, 0

    def run(self):
        while self._goes_on():
            with suppress(psutil.Error):  # one of them has just ended
                family = [self.process, *self.process.children(recursive=True)]
                memory = [process.memory_full_info() for process in family]
                sizes = [getattr(one, "pss", one.rss) for one in memory]  # macOS has no proportional size
                self.together, self.largest = max(self.together, sum(sizes)), max([self.largest, *sizes])
            time.sleep(0.1)

    def _goes_on(self):
        with suppress(psutil.Error):
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
