"""Real runs compared, shared, tagged, pruned and served: by the command line and in a real browser."""

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from flow_project import begin, call, command, newest_record, step_of, wait_for, write_notebook, write_project

from mlworkbench.core.project import Project
from mlworkbench.flow.prune import folder_bytes

PLOT = "import plotly.graph_objects as go\ngo.Figure([go.Bar(y=[1, 2])], layout={'title': {'text': 'Bars'}})"
FIT = (
    "rows = step.read('numbers').collect()\nscore = depth / 10",
    "step.record(score=score, rows=rows.height)\nprint('score', score)",
    "from mlworkbench.core.findings import finding, make_findings\n"
    "step.report(make_findings([finding('low', f'depth {depth}', 'warn', 'a low score', score, 0.9)]))",
    PLOT,
    "import time\nwhile os.path.exists('wait'): time.sleep(0.05)",
)


def numbers(count):
    return f"step.write('numbers', pl.DataFrame({{'x': range({count})}}))"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "Three runs: the second with other code upstream and another parameter, the third fails."
    root = write_project(
        tmp_path_factory.mktemp("shared") / "mine",
        {"name": "make", "code": [numbers(3)], "writes": ["numbers"]},
        {"name": "fit", "code": FIT, "params_cell": "depth: int = 4", "reads": ["numbers"], "writes": []},
    )
    runs = [call(root, "run")[1]["run"]]
    write_notebook(root, "make", numbers(5))
    runs.append(call(root, "run", "-p", "depth=6")[1]["run"])
    runs.append(call(root, "run", "-p", "depth=7")[1]["run"])
    return root, runs


@pytest.fixture
def tab(browser):
    "A page of a fresh browser; it may report no error and ask nothing of others."
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, complaints, asked = context.new_page(), [], []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert not complaints
    assert all(url.startswith(("file:", "http://127.0.0.1:", "blob:http://127.0.0.1:")) for url in asked)


def test_compare_tells_what_has_changed(project):
    root, (a, b, _) = project
    code, answer, _ = call(root, "compare", b, a)
    assert code == 0 and (answer["a"]["run"], answer["b"]["run"]) == (a, b)
    changed = {
        key: [row for row in answer[key] if not row["same"]] for key in ("params", "metrics", "software")
    }
    assert [(row["param"], row["a"], row["b"]) for row in changed["params"]] == [("depth", 4, 6)]
    metrics = {row["metric"]: (row["a"], row["b"], round(row["difference"], 6)) for row in changed["metrics"]}
    assert metrics == {"score": (0.4, 0.6, 0.2), "rows": (3, 5, 2)} and not changed["software"]
    assert {row["name"] for row in answer["software"]} >= {"mlworkbench", "python"}
    table = answer["tables"][0]
    assert (table["table"], table["a_rows"], table["b_rows"], table["added"], table["removed"]) == (
        "numbers",
        3,
        5,
        2,
        0,
    )
    assert [one["subject"] for one in answer["findings"]["new"]] == ["depth 6"]
    assert [one["subject"] for one in answer["findings"]["gone"]] == ["depth 4"]
    notebooks = {one["step"]: one["changes"] for one in answer["notebooks"]}
    lines = [tuple(line) for change in notebooks["make"] for line in change["source"] if line[0] in "+-"]
    assert lines == [("-", numbers(3)), ("+", numbers(5))]
    outputs = [tuple(line) for change in notebooks["fit"] for line in change["outputs"] if line[0] in "+-"]
    assert ("-", "score 0.4") in outputs and ("+", "score 0.6") in outputs
    assert not any("figure" in line for _, line in outputs)  # it is the same one


def test_a_comparison_is_printed_and_is_a_page_that_the_gallery_leads_to(project, tab, axe):
    root, (a, b, _) = project
    said = subprocess.run(
        command("compare", a, b, "--project", root), capture_output=True, text=True, check=True
    )
    text = re.sub(r" +", " ", said.stdout)
    assert "score 0.4 0.6 +0.2 (+50.0 %)" in text and "numbers @0 @1 3 → 5 (+2 −0)" in text
    tab.goto((root / "runs" / "index.html").as_uri())
    tab.get_by_role("link", name=f"{a} with {b}").click()
    assert tab.get_by_role("heading", name="Two runs compared").is_visible()
    tab.get_by_text("1 cell changed").click()
    assert tab.locator(".diff .add", has_text=numbers(5)).is_visible()
    assert axe(tab) == []
    tab.get_by_role("region", name=re.compile("^b")).get_by_role("link", name="fit").click()
    assert f"runs/{b}/fit.html" in tab.url


@pytest.mark.browser
def test_a_shared_run_is_one_file_that_opens_anywhere(project, tab, axe, tmp_path):
    root, (_, b, c) = project
    assert step_of(json.loads((root / "runs" / c / "run.json").read_text()), "make")["from_run"] == b
    code, answer, _ = call(root, "share", c, "-o", tmp_path / "elsewhere" / "board.html")
    file = Path(answer["file"])
    assert (code, answer["pages"], answer["missing"]) == (0, 2, []) and answer[
        "bytes"
    ] == file.stat().st_size < 1e6
    assert file.read_text().count('id="plotly"') == 1
    tab.goto(file.as_uri())
    assert tab.locator("article").count() == 2
    tab.locator(".mlw-figure").scroll_into_view_if_needed()
    tab.locator(".mlw-figure[data-drawn] .main-svg").first.wait_for()
    tab.get_by_role("link", name=re.compile("^make: Unchanged")).click()
    assert tab.url.endswith("#p1") and b in tab.locator("#p1").inner_text()
    tab.get_by_role("button", name="Show code").click()
    assert tab.get_by_text("step.record(score=score").is_visible()
    assert axe(tab) == []
    _, answer, _ = call(root, "share", c, "-o", tmp_path / "no-code.html", "--no-code")
    text = Path(answer["file"]).read_text()
    assert "step.record" not in text and "score 0.7" in text


def test_a_running_run_is_tagged_and_keeps_its_tag(project):
    root, _ = project
    (root / "wait").touch()
    process = begin(root, "run", "--force", "--only", "fit")
    try:
        record = wait_for(
            lambda: (r := newest_record(root)) and r["status"] == "running" and r["steps"][0]["cell"] and r
        )
        assert call(root, "tag", record["run"], "while-running")[1]["tags"] == ["while-running"]
    finally:
        (root / "wait").unlink()
        process.communicate(timeout=60)
    assert process.returncode == 0 and newest_record(root)["status"] == "succeeded"
    assert call(root, "tag", record["run"])[1]["tags"] == ["while-running"]
    assert "while-running" in (root / "runs" / "index.html").read_text()
    assert call(root, "tag", record["run"], "while-running", "--remove")[1]["tags"] == []
    code, answer, _ = call(root, "tag", record["run"], "no/slash")
    assert code == 1 and "is no tag" in answer["error"]


def old_runs(root, count, files, day="20200101"):
    "Runs of 2020 that nothing refers to."
    for i in range(count):
        folder = root / "runs" / f"{day}-{i:06}-{i:04x}"
        folder.mkdir()
        record = {"run": folder.name, "project": "small", "status": "succeeded", "seconds": 1.0, "steps": []}
        (folder / "run.json").write_text(json.dumps(record))
        for k in range(files):
            (folder / f"{k}.html").write_text("x" * 100)
    return sorted(path.name for path in (root / "runs").glob(f"{day}-*"))


def test_prune_keeps_what_is_tagged_or_needed_and_the_rows_of_all(project):
    root, (a, b, c) = project
    names = old_runs(root, 5, 2)
    rows = Project(root).store.read("runs").collect().height
    call(root, "tag", names[1], "first-model")
    size = sum(folder_bytes(root / "runs" / name) for name in (names[0], *names[2:]))
    _, asked, _ = call(root, "prune", "--keep", "1", "--days", "0", "--dry-run")
    gone = {one["run"] for one in asked["removed"]}
    assert {names[0], *names[2:], a} <= gone and {names[1], b}.isdisjoint(
        gone
    )  # b holds the last success of make
    assert asked["bytes"] >= size and (root / "runs" / names[0]).is_dir()
    code, answer, _ = call(root, "prune", "--days", "30", "--keep", "1")
    assert code == 0 and {one["run"] for one in answer["removed"]} == {names[0], *names[2:]}
    assert answer["kept"]["tagged"] == 1 and answer["bytes"] == size
    left = {path.name for path in (root / "runs").iterdir() if path.name[0] == "2"}
    assert {a, b, c, names[1]} <= left and Project(root).store.read("runs").collect().height == rows
    assert names[0] not in (root / "runs" / "index.html").read_text()
    assert call(root, "run")[1]["steps"]  # the cache still holds together


def test_a_prune_that_is_killed_leaves_whole_runs_or_none(project):
    root, _ = project
    names, files = old_runs(root, 30, 300, "20200202"), 301
    process = begin(root, "prune", "--days", "30", "--keep", "1")
    wait_for(lambda: len(list((root / "runs").glob("20200202-*"))) < len(names))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    left = sorted((root / "runs").glob("20200202-*"))
    assert all(len(list(folder.iterdir())) == files for folder in left)
    assert call(root, "prune", "--days", "30", "--keep", "1")[0] == 0
    assert not list((root / "runs").glob("20200202-*"))
    assert not list((root / "runs" / ".trash").iterdir())
    assert "20200202" not in (root / "runs" / "index.html").read_text()


@pytest.fixture
def served(project):
    "serve-gallery in a process of its own: the address it has printed, and the process."
    root, _ = project
    process = begin(root, "serve-gallery", "--port", "0")
    words = [process.stderr.readline() for _ in range(3)]
    assert words[2] == "Ctrl-C ends it.\n"
    yield words[1].strip(), process
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and json.loads(out)["project"] == str(root)
    assert err == ""  # nothing of who has looked at what, and no token


@pytest.mark.browser
def test_a_team_looks_on_while_a_run_goes_on(project, served, tab):
    root, (a, b, _) = project
    address, _ = served
    tab.goto(address)
    assert tab.url == address.split("?")[0] and "token" in address
    before = tab.locator(".runs tbody tr").count()
    tab.get_by_label("Search runs").fill(b)
    tab.locator("#shown", has_text="1 of").wait_for()
    tab.get_by_label("Search runs").fill("")
    (root / "wait").touch()
    process = begin(root, "run", "--force", "--only", "fit")
    try:
        tab.locator("#live", has_text=re.compile(r"fit: cell \d of \d")).wait_for()
        row = tab.locator(".runs tbody tr").first
        row.get_by_text(re.compile("Running$")).wait_for()
        tab.get_by_text("The pipeline as a table").click()
        tab.get_by_label("Search runs").fill("succ")
    finally:
        (root / "wait").unlink()
        process.communicate(timeout=60)
    row.get_by_text(re.compile("Succeeded$")).wait_for()
    assert tab.locator(".runs tbody tr").count() == before + 1 and tab.locator("#live").is_hidden()
    assert tab.get_by_label("Search runs").input_value() == "succ"
    assert tab.evaluate("document.activeElement.id") == "search"
    assert tab.get_by_role("group", name="Steps of the pipeline").is_visible()
    tab.get_by_label("Search runs").fill("")
    for run in (a, b):
        tab.get_by_label(f"Compare run {run}").check()
    tab.get_by_role("link", name="Open comparison").click()
    tab.get_by_role("heading", name="Two runs compared").wait_for()
    tab.get_by_role("region", name=re.compile("^b")).get_by_role("link", name="fit").click()
    tab.locator(".mlw-figure").scroll_into_view_if_needed()
    tab.locator(".mlw-figure[data-drawn] .main-svg").first.wait_for()
    tab.get_by_role("link", name="All runs").click()
    tab.get_by_role("heading", name="Runs of small").wait_for()


@pytest.mark.browser
def test_a_run_whose_runner_was_killed_is_shown_as_lost(project, served, tab):
    root, _ = project
    (root / "wait").touch()
    process = begin(root, "run", "--force", "--only", "fit")
    try:
        tab.goto(served[0])
        tab.locator("#live", has_text="Running").wait_for()
        process.kill()
        process.communicate(timeout=30)
        tab.locator(".runs tbody tr").first.get_by_text(re.compile("Lost")).wait_for()
    finally:
        (root / "wait").unlink()
    assert newest_record(root)["status"] == "lost"


def ask(address, path="", method="GET", **headers):
    request = urllib.request.Request(address.split("?")[0] + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers, refused.read()


def raw(address, line, **headers):
    "The status of a request as it stands: urllib and browsers tidy a path up."
    host, port = address.split("/")[2].split(":")
    head = "".join(
        f"{name}: {value}\r\n" for name, value in {"Host": host, "Connection": "close", **headers}.items()
    )
    with socket.create_connection((host, int(port))) as wire:
        wire.sendall(f"{line} HTTP/1.1\r\n{head}\r\n".encode())
        return int(wire.makefile("rb").readline().split()[1])


def test_nothing_is_seen_without_the_token_and_nothing_beside_the_pages(project, served):
    root, (a, b, _) = project
    address, _ = served
    token = address.split("token=")[1]
    paths = (
        "",
        f"{b}/fit.html",
        "status.json",
        f"compare?a={a}&b={b}",
        f"{b}/run.json",
        "nothing",
        "?token=",
    )
    assert [ask(address, path)[0] for path in paths] == [403] * len(paths)
    assert [
        ask(address, "", Authorization=f"token {wrong}")[0] for wrong in (token[:-1], token + "x", "ü")
    ] == [403] * 3
    known = {"Authorization": f"token {token}"}
    (root / "runs" / b / "artifacts" / "fit").mkdir(parents=True, exist_ok=True)
    (root / "runs" / b / "artifacts" / "fit" / "page.html").write_text("<script>alert(1)</script>")
    answer = {path: ask(address, path, **known) for path in (*paths[:4], f"{b}/artifacts/fit/page.html")}
    assert {code for code, _, _ in answer.values()} == {200}
    for _, headers, _ in answer.values():
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert (
            "default-src 'none'" in headers["Content-Security-Policy"]
            and "no-cache" in headers["Cache-Control"]
        )
    _, headers, _ = answer[f"{b}/artifacts/fit/page.html"]
    assert headers["Content-Disposition"] == "attachment" and "sandbox" in headers["Content-Security-Policy"]
    other_names = ("/artifacts/fit/page.html", "./artifacts/fit/page.html", "x/../artifacts/fit/page.html",
                   "artifacts/fit/page.html/", "artifacts//fit/page.html")  # fmt: skip
    assert {raw(address, f"GET /{b}/{path}", **known) for path in other_names} == {404}
    hidden = (
        "run.json",
        "fit.ipynb",
        "tags/x",
        ".work/x",
        "fit.log",
        "../index.html",
        "%2e%2e/%2e%2e/workbench.toml",
    )
    assert {ask(address, f"{b}/{path}", **known)[0] for path in hidden} <= {403, 404}
    beside = (
        "/../workbench.toml",
        "//etc/passwd",
        "/%2fetc/passwd",
        f"/{b}/..%2f..%2fworkbench.toml",
        f"/{b}/fit.html%00",
    )
    assert {raw(address, f"GET {path}", **known) for path in beside} <= {400, 403, 404}
    assert raw(address, f"GET /{b}/fit.html", **known) == 200
    assert [ask(address, "", method, **known)[0] for method in ("POST", "PUT", "DELETE")] == [405] * 3
    assert token not in "".join(body.decode() for _, _, body in answer.values())


def test_the_token_becomes_a_cookie_and_leads_nowhere_else(project, served):
    address, _ = served
    token = address.split("token=")[1]

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    def first(url):
        try:
            urllib.request.build_opener(Stay).open(url)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.headers

    code, headers = first(address)
    assert code == 302 and headers["Location"] == "/"
    assert (
        "HttpOnly" in headers["Set-Cookie"]
        and "SameSite=Lax" in headers["Set-Cookie"]
        and token not in headers["Set-Cookie"]
    )
    cookie = headers["Set-Cookie"].split(";")[0]
    assert ask(address, "", Cookie=cookie)[0] == 200 and ask(address, "", Cookie=cookie + "0")[0] == 403
    _, headers = first(address.replace("/?", "//elsewhere.example/?"))
    assert headers["Location"] == "/elsewhere.example/"


def test_a_server_refuses_to_stand_open(project):
    root, _ = project
    for options, said in (
        (["--host", "0.0.0.0", "--no-token"], "no token on 0.0.0.0"),
        (["--token", "guess-me"], "the token is too short"),
    ):
        code, answer, _ = call(root, "serve-gallery", *options)
        assert code == 2 and said in answer["error"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, answer, _ = call(root, "serve-gallery", "--port", taken.getsockname()[1])
    assert code == 2 and "Choose another with --port" in answer["error"]


def test_the_address_for_a_team_is_one_that_others_can_open(project):
    root, _ = project
    process = begin(root, "serve-gallery", "--host", "0.0.0.0", "--port", "0")
    try:
        process.stderr.readline()
        address = process.stderr.readline().strip()
        assert address.startswith(f"http://{socket.gethostname()}:") and "?token=" in address
        port, token = address.split(":")[2].split("/")[0], address.split("=")[1]
        assert ask(f"http://127.0.0.1:{port}/", Authorization=f"token {token}")[0] == 200
    finally:
        process.terminate()
    rest = process.stderr.read()  # what readline has taken in already, communicate would lose
    process.communicate(timeout=30)
    assert "without encryption" in rest


def test_without_a_token_only_this_machine_is_answered(project):
    root, _ = project
    process = begin(root, "serve-gallery", "--port", "0", "--no-token")
    try:
        process.stderr.readline()
        address = process.stderr.readline().strip()
        assert ask(address)[0] == 200 and raw(address, "GET /", Host="evil.example") == 403
    finally:
        process.terminate()
        process.communicate(timeout=30)
