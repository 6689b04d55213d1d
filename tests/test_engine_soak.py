"""A short version of the soak benchmark: queries and training in forked kernels, with nothing left behind."""

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parent / "benches" / "bench_soak.py"


def test_a_short_soak():
    # in a process of its own: what other tests hold here comes and goes
    done = subprocess.run([sys.executable, SOAK, "--count", "24"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "24 notebooks on 2 workers" in done.stdout and "'processes': 1" in done.stdout
