"""Secrets appear in zero bytes of what a run keeps: every file is searched, whatever the notebooks did with them."""

import base64
import html
import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
from flow_project import begin, call, newest_record, step_of, wait_for, write_project
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import ConfigError
from mlworkbench.core.secrets import Scrubber
from mlworkbench.flow.runner import run_project

SECRETS = {
    "API_KEY": 'hush"<&>/+x 17\\z-ünïque',
    "DATABASE_URL": "postgresql://me:pw-sesame-77@db.example/flights",
    "TOKEN": "ghp_0123456789abcdefghijABCDEFGHIJ",
    "S3_KEY": "s3-key-0123456789abcdef",
}
NAMED = ["API_KEY", "DATABASE_URL", "TOKEN"]
TAKE = "key, url, token = (step.secret(name) for name in ('API_KEY', 'DATABASE_URL', 'TOKEN'))"

SAYS = f"""{TAKE}
import json, base64, html, logging, urllib.parse
from IPython.display import HTML, Markdown, display
print(key, repr(str(key)), json.dumps(key), html.escape(key), urllib.parse.quote(key, safe=""))
print(base64.b64encode(("me:" + token).encode()).decode(), base64.b64encode(token.encode()).decode())
print(url, url.split(":")[2].split("@")[0], os.environ["S3_KEY"])
for part in (token[:20], token[20:]):  # in two messages, with another stream between
    print(part, end="", flush=True)
    print("between", file=sys.stderr, flush=True)
for n in range(5):
    print("\\r" + token[: 7 * n], end="", flush=True)
print("\\r" + token)
print(token[:17] + "\\n" + token[17:])
logging.warning("calling with %s", key)
display(HTML(f"<p title='{{html.escape(key)}}'>{{token}}</p>"), Markdown(f"`{{token}}`"), {{"at": [token]}})
os.write(1, f"to the log: {{token}}\\n".encode())
os.write(2, f"to the log: {{key}} {{url}} ".encode())
pl.DataFrame({{"token": [str(token)]}})"""

KEEPS = """from mlworkbench.core.findings import finding, make_findings
step.record(url=f"https://example.com?key={token}", note=str(key))
step.report(make_findings([finding("reach", "db", "warn", f"{url} is slow", evidence=f"asked with {token}")]))
step.write("raw", pl.DataFrame({"x": [1]}), note=f"from {url}", metadata={"source": str(url)})
key"""

WIDGET = f"""{TAKE}
import ipywidgets
ipywidgets.HTML(value=str(token), description=str(key))"""

FAILS = f"""{TAKE}
get_ipython().run_line_magic("xmode", "Verbose")
def connect(address, password):
    raise ValueError(f"no answer from {{address}} with {{password}}, header {{base}}")
import base64
base = base64.b64encode(("user:" + token).encode())
connect(url, key)"""

CRASHES = f"""{TAKE}
print(token, flush=True)
import faulthandler
faulthandler.disable()
os.write(2, f"Fatal Python error: {{key}} {{token}}".encode())
os.abort()"""

PUBLISHES = f"""{TAKE}
step.write("broken", pl.DataFrame({{str(token): [1]}}), mode="append")
step.project.store.write("broken", pl.DataFrame({{"x": [1]}}))  # what waits does not fit any more"""

GATES = f"""{TAKE}
from mlworkbench.core.findings import finding, make_findings
step.report(make_findings([finding("reach", "db", "fail", f"{{url}} refuses {{token}}")]))"""

OTHER = """step.record(**{name: name in os.environ for name in ("API_KEY", "TOKEN", "S3_KEY")})
try:
    step.secret("API_KEY")
except Exception as error:
    step.record(error=str(error))"""


def forms(value):
    """How a value may be written, said apart from the library."""
    whole = base64.b64encode(value.encode()).decode().rstrip("=")
    return {
        value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1],
        html.escape(value), html.escape(value, quote=False), quote(value), quote(value, safe=""), whole[:-1],
        base64.b64encode(b"me:" + value.encode()).decode()[4:-4],
        base64.b64encode(b"user:" + value.encode()).decode()[8:-4],
    }  # fmt: skip


def hushed():
    texts = set().union(*map(forms, SECRETS.values()))
    return {text.encode() for text in texts} | {b"pw-sesame-77", SECRETS["TOKEN"][:18].encode()}


def texts_of(path):
    """A file's bytes, and what a reader makes of them."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield repr(pl.read_parquet(path).to_dicts()).encode()
        yield json.dumps(pl.read_parquet(path).to_dicts(), default=str, ensure_ascii=False).encode()
    if path.suffix in (".json", ".ipynb"):
        lines = path.read_text(encoding="utf-8")
        lines = lines.splitlines() if "_delta_log" in path.parts else [lines]
        yield repr([json.loads(line) for line in lines]).encode()


def leaks(root):
    """The files that hold a secret in some form, with the form."""
    found = []
    for path in Path(root).rglob("*"):
        for text in texts_of(path) if path.is_file() else ():
            found += [(str(path.relative_to(root)), form.decode()) for form in hushed() if form in text]
    return found


@pytest.fixture
def environment(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def a_project(root, *steps):
    project = write_project(root, *steps)
    with open(project / "workbench.toml", "a") as file:
        file.write('[project.storage_options]\nAWS_SECRET_ACCESS_KEY = "env:S3_KEY"\n')
    return project


def a_step(name, *code, **facts):
    return {"name": name, "secrets": NAMED, "code": list(code), **facts}


@pytest.mark.parametrize("engine", ["preloaded", "plain"])
def test_no_file_of_a_run_holds_a_secret(tmp_path, environment, engine):
    root = a_project(
        tmp_path,
        a_step("1_says", SAYS, KEEPS, writes=["raw"]),
        a_step("2_widget", WIDGET),
        a_step("3_fails", FAILS, retries=1, retry_delay_s=0),
        a_step("4_crashes", CRASHES),
        a_step("5_publishes", PUBLISHES, writes=["broken"]),
        a_step("6_gates", GATES),
        {"name": "7_other", "code": [OTHER]},
    )
    _, record, err = call(root, "run", "--engine", engine)
    ends = ("succeeded", "succeeded", "failed", "kernel_died", "failed", "gated", "succeeded")
    assert tuple(step["status"] for step in record["steps"]) == ends, err
    refused = step_of(record, "5_publishes")["error"]
    assert refused["name"] == "StoreError" and "***" in refused["message"] and refused["cell"] is None
    other = step_of(record, "7_other")["metrics"]
    assert other.pop("error").startswith("step '7_other' may not read the secret API_KEY")
    assert other == {"API_KEY": False, "TOKEN": False, "S3_KEY": True}  # the store's key it needs
    said = step_of(record, "1_says")
    assert said["metrics"] == {"url": "https://example.com?key=***", "note": "***"}
    assert said["findings"][0]["message"] == "*** is slow" and said["writes"] == {"raw": 0}
    assert "no answer from *** with ***" in step_of(record, "3_fails")["error"]["message"]
    assert "Fatal Python error: *** ***" in step_of(record, "4_crashes")["error"]["traceback"]
    assert step_of(record, "6_gates")["reason"] == "*** refuses ***."
    log = (root / "runs" / record["run"] / "1_says.log").read_text()
    assert log.startswith("to the log: ***\nto the log: ***")
    looks = (("report",), ("share", "--out", root / "shared.html"), ("why", "3_fails"), ("params",))
    for look in looks if engine == "preloaded" else ():
        answer = call(root, *look)
        assert not [form for form in hushed() if form in json.dumps(answer).encode()], look
    assert not [form for form in hushed() if form in (json.dumps(record) + err).encode()]
    assert leaks(root) == []


def test_no_file_holds_a_secret_while_a_run_goes_on_and_after_its_runner_was_killed(tmp_path, environment):
    waits = f"{TAKE}\nprint(token, url, flush=True)\nstep.record(key=str(key))\nos.write(2, b'said ' + token.encode())"
    sleep = "open('waits', 'w').close()\ntime.sleep(600)"
    root = a_project(tmp_path, a_step("1_waits", waits, sleep))
    process = begin(root, "run")
    wait_for(lambda: (root / "waits").exists())
    notebook = root / "runs" / newest_record(root)["run"] / "1_waits.ipynb"
    wait_for(lambda: "***" in notebook.read_text())  # saved while it runs
    assert leaks(root) == []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, record, _ = call(root, "status")
    assert record["status"] == "lost" and leaks(root) == []


def test_a_secret_that_is_not_set_is_told_before_anything_starts(tmp_path, environment, monkeypatch):
    root = a_project(tmp_path, {"name": "1_in", "code": ["1"]}, a_step("2_load", "1"))
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigError, match=r"step '2_load' needs the secret TOKEN.*export TOKEN="):
        run_project(root)
    assert not (root / "runs").exists()
    code, answer, _ = call(root, "check", env=dict(os.environ))
    assert code == 2 and "TOKEN" in answer["problems"][0]
    code, answer, _ = call(root, "run", "--only", "1_in")
    assert code == 0


def test_a_parameter_that_holds_a_secret_is_refused_without_repeating_it(tmp_path, environment):
    step = a_step("1_load", "1", params_cell="api_key = ''\naddress = ''\nrows = 1")
    root = a_project(tmp_path, step)
    wrong = ["api_key=Hunter-2", "address=postgresql://me:Hunter-2@db/x", f"address=x {SECRETS['TOKEN']}"]
    for text in wrong:
        code, answer, err = call(root, "run", "-p", text)
        assert code == 2 and "would show a secret" in answer["error"] and "step.secret" in answer["error"]
        assert "Hunter-2" not in err and SECRETS["TOKEN"] not in err
    assert not (root / "runs").exists() and leaks(root) == []
    assert call(root, "run", "-p", "api_key=env:API_KEY")[0] == 0


def test_a_secret_that_changes_does_not_run_a_step_again_and_its_value_is_nowhere(
    tmp_path, environment, monkeypatch
):
    root = a_project(tmp_path, a_step("1_load", f"{TAKE}\nstep.record(length=len(token))"))
    assert step_of(run_project(root), "1_load")["metrics"] == {"length": len(SECRETS["TOKEN"])}
    monkeypatch.setenv("TOKEN", "another-token-0123456789")
    assert step_of(run_project(root), "1_load")["status"] == "cached" and leaks(root) == []


hard = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="*"), min_size=8, max_size=40
)


@settings(deadline=None)
@given(hard, st.text(max_size=20), st.text(max_size=20), st.lists(st.integers(0, 40), max_size=3))
def test_a_secret_is_found_in_any_text_and_in_streams_that_cut_it_anywhere(secret, before, after, cuts):
    scrub, text = Scrubber([secret]), before + secret + after
    assert secret not in scrub(text)
    assert secret not in scrub(f"{before}{secret[:5]}\n{secret[5:]}{after}").replace("\n", "")
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    parts = [text[start:stop] for start, stop in pairwise(places)]
    outputs = [{"output_type": "stream", "name": "stdout", "text": part} for part in parts]
    between = {"output_type": "stream", "name": "stderr", "text": "between"}
    outputs = [one for output in outputs for one in (output, dict(between))]
    clean = scrub.tree({"cell_type": "code", "outputs": outputs})
    assert secret not in "".join(one["text"] for one in clean["outputs"] if one["name"] == "stdout")
    for value in ({"deep": [{"er": text}]}, [json.dumps({"in json": text})], {text: 1}):
        assert secret not in str(list(map(str, _leaves(scrub.tree(value)))))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda i: st.lists(i) | st.dictionaries(st.text(), i),
    )
)
def test_what_holds_no_secret_stays_as_it_is(value):
    assert Scrubber(["hush-hush-17", "https://me:sesame-open@host"]).tree(value) == value


def _leaves(value):
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [leaf for one in value for leaf in _leaves(one)] if isinstance(value, list) else [value]
