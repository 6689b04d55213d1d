"""A forked kernel is as good as a new one: nothing comes over from another notebook, nothing is left behind."""

import json
from pathlib import Path

import psutil
import pytest
from flow_project import wait_for
from test_engine_ends import begin, finish, run

from mlworkbench.flow.kernels import socket_folder
from mlworkbench.flow.process import next_events

TELL = "import json; json.dump({}, open('told', 'w'))"


def told(folder, code, fact, **options):
    """What a notebook says of itself."""
    outcome = run(folder, code, TELL.format(fact), **options)
    assert outcome["status"] == "succeeded", outcome["error"]
    return json.loads((folder / "told").read_text())


# What a person can notice of a process; the same in a kernel that was forked as in one that was started from nothing.
FACTS = """
import __main__, multiprocessing, signal, sys, threading, asyncio, gc, logging, random, warnings, locale
facts = {
    "main": sorted(name for name in vars(__main__) if not name.startswith("_")),
    "process": [multiprocessing.current_process().name, multiprocessing.parent_process() is None],
    "start": multiprocessing.get_start_method(),
    "signals": {str(n): str(signal.getsignal(n)) for n in signal.valid_signals() if n not in (signal.SIGINT,)},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "wakeup": signal.set_wakeup_fd(-1) != -1,
    "argv": sys.argv[0],
    "path": sys.path,
    "threads": sorted(type(one).__name__ for one in threading.enumerate()),
    "main thread": threading.current_thread() is threading.main_thread(),
    "session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "handlers": len(logging.getLogger().handlers),
    "filters": len(warnings.filters),
    "gc": [gc.isenabled(), gc.get_threshold()],
    "stdin": os.readlink("/proc/self/fd/0"),
    "files": len(os.listdir("/proc/self/fd")),
    "recursion": sys.getrecursionlimit(),
    "locale": locale.getlocale(),
    "cwd": os.getcwd(),
    "env": sorted(set(os.environ) - {"LINES", "COLUMNS", "JPY_PARENT_PID", "LC_CTYPE"}),
    "history": get_ipython().history_manager.enabled,
}
"""


def test_a_forked_kernel_looks_like_a_new_one(tmp_path):
    forked = told(tmp_path, FACTS, "facts", engine="preloaded")
    new = told(tmp_path, FACTS, "facts", engine="plain")
    different = {key: (forked[key], new[key]) for key in new if forked[key] != new[key]}
    assert not different
    assert forked["cwd"] == str(tmp_path) and forked["session"]


def test_nothing_comes_over_from_another_notebook(tmp_path):
    change = (
        "import builtins, sys, os, warnings, numpy as np, polars as pl, logging, threading\n"
        "builtins.left = left = 1\nsys.left = 1\nos.environ['LEFT'] = '1'\nos.chdir('/')\nsys.path.append('/left')\n"
        "pl.Config.set_tbl_rows(3)\nnp.left = 1\nlogging.getLogger().setLevel(10)\npl.select(pl.lit(1)).lazy().collect()\n"
        "threading.Thread(target=time.sleep, args=[1000], daemon=True).start()\nsys.setrecursionlimit(50_000)"
    )
    assert run(tmp_path, change)["status"] == "succeeded"
    look = "import builtins, sys, os, numpy as np, polars as pl, logging, threading"
    fact = (
        "['left' in globals(), hasattr(builtins, 'left'), hasattr(sys, 'left'), 'LEFT' in os.environ, '/left' in sys.path, "
        "hasattr(np, 'left'), 'POLARS_FMT_MAX_ROWS' in os.environ, logging.getLogger().level == 10, "
        "sys.getrecursionlimit() == 50_000, os.getcwd() == '/']"
    )
    assert told(tmp_path, look, fact) == [False] * 10


def test_random_numbers_differ_between_notebooks(tmp_path):
    code, fact = (
        "import numpy as np, random",
        "[np.random.rand(), random.random(), np.random.default_rng().random()]",
    )
    first, second = told(tmp_path, code, fact), told(tmp_path, code, fact)
    assert all(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("threads", ["1", "2"])  # torch takes no more than there are cores
def test_a_notebook_has_thread_pools_of_its_own_size(tmp_path, monkeypatch, threads):
    monkeypatch.setenv("POLARS_MAX_THREADS", threads)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    code = "import polars as pl, torch"
    assert told(tmp_path, code, "[pl.thread_pool_size(), torch.get_num_threads()]") == [int(threads)] * 2


WORK = """
import polars as pl, numpy as np, torch, lightgbm
rows = pl.select(x=pl.int_range(200_000)).with_columns(g=pl.col("x") % 7)
total = rows.lazy().group_by("g").agg(pl.col("x").sum()).collect()["x"].sum()
x = np.random.rand(2000, 5); y = x[:, 0] > 0.5
model = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 2}, lightgbm.Dataset(x, y), 5)
layer = torch.nn.Linear(5, 1); step = torch.optim.SGD(layer.parameters(), 0.1)
for _ in range(5):
    loss = (layer(torch.rand(512, 5)) ** 2).mean(); step.zero_grad(); loss.backward(); step.step()
"""


def test_queries_and_training_in_one_notebook_after_the_other(tmp_path):
    for _ in range(3):
        assert told(tmp_path, WORK, "int(total)", timeout_s=120) == 199_999 * 200_000 // 2


def test_variables_of_the_runner_do_not_show_where_the_job_has_none(tmp_path, monkeypatch):
    process = begin(tmp_path, "assert b'hidden-from-steps' not in open('/proc/self/environ', 'rb').read()")
    assert finish(process)["status"] == "succeeded"
    monkeypatch.setenv("A_SECRET", "hidden-from-steps")
    code = "assert os.environ['A_SECRET'] and b'hidden-from' not in open('/proc/self/environ', 'rb').read()"
    assert run(tmp_path, code)["status"] == "succeeded"


@pytest.mark.parametrize("engine", ["preloaded", "plain"])
def test_files_beside_a_notebook_do_not_pass_for_libraries(tmp_path, engine):
    for name in ("zmq", "IPython", "nbclient", "random", "json"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not it')")
    (tmp_path / "mine.py").write_text("value = 3")
    assert told(tmp_path, "import mine, random", "mine.value", engine=engine) == 3


def test_what_is_imported_for_us_is_whole_for_a_notebook(tmp_path):
    code = "import jsonschema, nbformat, nbclient\nchecks = jsonschema.FormatChecker.checkers"
    forked, new = (told(tmp_path, code, "sorted(checks)", engine=engine) for engine in ("preloaded", "plain"))
    assert forked == new and "iri" in new


def test_output_goes_to_the_log_of_its_own_step(tmp_path):
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    say = "past_the_notebook = getattr(sys.stderr, '_original_stdstream_copy', 2)\nfor _ in range(200):\n"
    say += "    os.write(past_the_notebook, b'{0}' * 50 + b'\\n'); time.sleep(0.001)"
    processes = [begin(folder, say.replace("{0}", folder.name)) for folder in folders]
    while any(process.running for process in processes):
        next_events(processes, 1.0)
    for folder in folders:
        lines = (folder / "out.log").read_text().splitlines()
        assert lines.count(folder.name * 50) == 200 and {line[:1] for line in lines if line} == {folder.name}


def test_nothing_is_left_behind(tmp_path):
    me = psutil.Process()
    run(tmp_path, "1")
    files, before = me.num_fds(), set(me.children(recursive=True))  # a browser of other tests among them
    folders = sorted(Path(socket_folder()).glob("mlw-*"))
    for code in ("1", "1 / 0", "os._exit(3)", "import subprocess; subprocess.Popen(['sleep', '300'])"):
        run(tmp_path, code)
    assert me.num_fds() == files
    wait_for(lambda: not set(me.children(recursive=True)) - before)
    mine = [folder for folder in Path(socket_folder()).glob("mlw-*") if folder not in folders]
    wait_for(lambda: not any(folder.exists() and _is_ours(folder) for folder in mine))


def _is_ours(folder):
    """Whether nobody listens there any more: other tests of this machine have folders of their own."""
    listening = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    return not any(place.startswith(str(folder)) for place in listening)
