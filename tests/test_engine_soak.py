"""A short version of the soak benchmark: queries and training in forked kernels, with nothing left behind."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benches"))

from bench_soak import soak

from mlworkbench.core.forks import close_preloaded


def test_a_short_soak(tmp_path):
    close_preloaded()  # those of other tests
    facts = soak(24, 2, tmp_path)
    assert facts["held"]["processes"] == 1 and facts["held"]["folders"] == 0
