"""A real Label Studio 1.23: installed, started, found, ended; nothing leaves the machine; its webhooks."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import threading
from contextlib import ExitStack, closing

import httpx
import polars as pl
import psutil
import pytest
from flow_project import begin, call, end, is_alive, wait_for
from label_studio_sdk import LabelStudio

from mlworkbench.core.store import Store
from mlworkbench.labels import installation
from mlworkbench.labels.history import History
from mlworkbench.labels.installation import StudioError, install_server, is_installed, is_locked
from mlworkbench.labels.pull import pull
from mlworkbench.labels.push import push, result_of, tasks_there
from mlworkbench.labels.server import find_server, server_status, start_server, stop_server
from mlworkbench.labels.studio import connect as connect_studio
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.labels.webhooks import HEADER, Change, listen, register_webhook

CHOICES = """<View><Text name="text" value="$text"/><Choices name="label" toName="text">
<Choice value="mlops"/><Choice value="other"/></Choices></View>"""
LABEL = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["mlops"]}}]


def whoami(server, token=None, **headers):
    headers |= {"Authorization": f"Token {token or server.token}"}
    return httpx.get(f"{server.url}/api/current-user/whoami", headers=headers, trust_env=False)


def log_in(server):
    "Whether the password of its file opens the pages."
    with httpx.Client(base_url=server.url, trust_env=False) as person:
        person.get("/user/login/")
        form = {"csrfmiddlewaretoken": person.cookies["csrftoken"], "email": server.email}
        return person.post("/user/login/", data=form | {"password": server.password}).status_code == 302


@pytest.fixture
def connect():
    "The SDK's client of a server; it leaves no connection open."
    with ExitStack() as clients:

        def client(server, token=None):
            http = clients.enter_context(httpx.Client(trust_env=False, timeout=60))
            return LabelStudio(base_url=server.url, api_key=token or server.token, httpx_client=http)

        yield client


@pytest.fixture(scope="module")
def installed(studio_server):
    "The session's server has seen to it that there is one."


@pytest.fixture
def project(tmp_path):
    (tmp_path / "workbench.toml").write_text('[project]\nname = "small"\n')
    yield tmp_path
    stop_server(tmp_path / "studio")


def test_a_server_is_for_its_owner_on_this_machine_only(studio_server):
    server = find_server(studio_server.folder)
    modes = {
        name: (server.folder / name).stat().st_mode & 0o777
        for name in ("", "server.json", "server.log", ".env")
    }
    assert modes == {"": 0o700, "server.json": 0o600, "server.log": 0o600, ".env": 0o600}
    assert (server.folder / ".gitignore").read_text() == "*\n"
    listening = [
        c for c in psutil.Process(server.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN
    ]
    assert [tuple(c.laddr) for c in listening] == [("127.0.0.1", server.port)]
    assert whoami(server).json()["email"] == server.email and log_in(server)
    log = (server.folder / "server.log").read_text()
    assert server.token not in log and server.password not in log
    assert whoami(server, "0" * 40).status_code == 401
    assert whoami(server, Host="page.example").status_code == 400  # DNS rebinding
    assert "access-control-allow-origin" not in whoami(server, Origin="https://page.example").headers
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:  # who was not invited
        stranger.get("/user/signup/")
        form = {"csrfmiddlewaretoken": stranger.cookies["csrftoken"], "email": "me@page.example"}
        assert stranger.post("/user/signup/", data=form | {"password": "Sesame-street-9"}).status_code == 403


def test_an_invited_annotator_works_beside_the_owner(studio_server, connect):
    ben = studio_server.annotator("ben@example.com")
    clients = [connect(studio_server), connect(studio_server, ben)]
    project = clients[0].projects.create(title="Two people", label_config=CHOICES)
    task = (
        clients[0]
        .projects.import_tasks(project.id, request=[{"data": {"text": "a"}}], return_task_ids=True)
        .task_ids[0]
    )
    made = [client.annotations.create(task, result=LABEL).completed_by for client in clients]
    emails = {user.id: user.email for user in clients[0].users.list()}
    assert [emails[user] for user in made] == ["default_user@localhost", "ben@example.com"]


@pytest.mark.slow
def test_start_stop_and_start_again(installed, project, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "of-another-server")
    monkeypatch.setenv("DEBUG", "true")  # Label Studio would take it as meant for it
    code, started, said = call(project, "studio", "start", "--email", "ann@example.com")
    server = find_server(project / "studio")
    assert (code, started["ready"], started["url"], started["pid"]) == (
        0,
        True,
        server.url,
        server.pid,
    ) and not said
    assert server.email == "ann@example.com" and log_in(server)
    assert server.token not in json.dumps(started) and server.password not in json.dumps(started)
    environ = psutil.Process(server.pid).environ()
    assert "DEBUG" not in environ and "of-another-server" not in environ.values()
    off = ("COLLECT_ANALYTICS", "LATEST_VERSION_CHECK")
    assert [environ[f"LABEL_STUDIO_{name}"] for name in off] == ["false", "false"]
    assert environ["LABEL_STUDIO_SENTRY_DSN"] == environ["LABEL_STUDIO_FRONTEND_SENTRY_DSN"] == ""
    assert (
        call(project, "studio", "start")[1] == started == call(project, "studio", "status")[1]
    )  # once is enough

    code, answer, said = call(project, "studio", "start", "--port", server.port + 1)
    assert code == 1 and f"runs already on port {server.port}" in answer["error"] and "studio stop" in said
    assert call(project, "studio", "stop")[1]["stopped"] and not is_alive(server.pid)
    assert not call(project, "studio", "stop")[1]["stopped"]
    assert call(project, "studio", "status")[1]["running"] is False

    again = start_server(project / "studio", online=True)  # the same account, at the same place
    assert (again.url, again.token, again.password) == (server.url, server.token, server.password)
    assert (
        again.online and environ["https_proxy"] and "https_proxy" not in psutil.Process(again.pid).environ()
    )


def test_two_folders_share_no_secret(studio_server, project):
    one, other = find_server(studio_server.folder), start_server(project / "studio")
    assert whoami(one).status_code == whoami(other).status_code == 200
    assert whoami(one, other.token).status_code == whoami(other, one.token).status_code == 401
    assert one.password != other.password
    assert (one.folder / ".env").read_text() != (other.folder / ".env").read_text()
    with closing(
        sqlite3.connect(installation.installation_folder() / "template" / "label_studio.sqlite3")
    ) as db:
        assert db.execute("SELECT count(*) FROM htx_user").fetchone() == (0,)  # what is copied holds nobody
    httpx.post(  # renewed in the pages: the new one is found
        f"{other.url}/api/current-user/reset-token",
        headers={"Authorization": f"Token {other.token}"},
        trust_env=False,
    ).raise_for_status()
    renewed = find_server(project / "studio")
    assert whoami(other).status_code == 401 and whoami(renewed).status_code == 200


def test_a_killed_server_is_told_and_started_again(installed, project):
    server = start_server(project / "studio")
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: find_server(server.folder) is None)
    assert not server_status(server.folder)["running"]
    (server.folder / "server.pid").write_text(f"{os.getpgrp()} {os.getpid()}")  # its number is ours now
    assert stop_server(server.folder) is False  # and we go on
    (server.folder / "server.json").unlink()  # the password is lost: there is a new one
    again = start_server(server.folder)
    assert again.token == server.token and again.password != server.password and log_in(again)


def test_who_starts_it_may_be_interrupted_or_killed(installed, project):
    folder = project / "studio"

    def starting():
        starter = begin(project, "studio", "start")
        wait_for(lambda: (folder / "server.pid").exists())
        wait_for(lambda: len(set((folder / "server.pid").read_text().split())) == 2)  # its group's, its own
        return starter, find_server(folder).pid

    starter, pid = starting()
    assert end(starter, signal.SIGINT)[0] == 130 and not is_alive(pid)
    assert not is_locked(folder / "server.lock") and not server_status(folder)["running"]
    starter, pid = starting()  # what was half made is no hindrance
    end(starter, signal.SIGKILL)
    two = [begin(project, "studio", "start") for _ in range(2)]  # at once; both find the one that came up
    answers = [json.loads(one.communicate(timeout=120)[0]) for one in two]
    assert {(answer["pid"], answer["ready"]) for answer in answers} == {(pid, True)}


def test_a_server_that_cannot_start_says_why(installed, project):
    folder = project / "studio"
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        code, answer, _ = call(project, "studio", "start", "--port", busy.getsockname()[1])
    assert code == 1 and "is in use" in answer["error"] and "Leave the port out" in answer["error"]
    assert call(project, "studio", "start", "--port", 70000)[0] == 2
    code, answer, _ = call(project, "studio", "start", "--email", "ann")
    assert code == 2 and "'ann' is no e-mail address" in answer["error"]
    shutil.rmtree(folder)
    folder.write_text("a file")  # nothing is installed for a folder that is of no use
    code, answer, _ = call(
        project, "studio", "start", env=os.environ | {"XDG_CACHE_HOME": str(project / "cache")}
    )
    assert code == 1 and f"{folder} cannot be written" in answer["error"] and not (project / "cache").exists()
    assert (
        call(project, "studio", "status")[1]["running"]
        is call(project, "studio", "stop")[1]["stopped"]
        is False
    )
    folder.unlink()
    folder.mkdir()
    (folder / "media").write_text("a file where a folder has to be")
    with pytest.raises(StudioError, match=r"(?s)ended while it started.*FileExistsError.*media.*server.log"):
        start_server(folder, tell=lambda text: None)
    assert find_server(folder) is None and not is_locked(folder / "start.lock")
    (folder / "label_studio.sqlite3").write_text("no database at all")
    with pytest.raises(StudioError, match=r"cannot be read.*Move it away"):
        start_server(folder, tell=lambda text: None)


@pytest.fixture
def trap():
    "A proxy that leads nowhere and remembers who was asked for."
    asked, over = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve():
            while not over.is_set():
                with door.accept()[0] as guest:
                    guest.settimeout(10)
                    asked.append(guest.recv(4096).split(b"\r\n")[0].decode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}", asked
        over.set()
        socket.create_connection(door.getsockname()).close()
        thread.join()


@pytest.mark.browser
@pytest.mark.slow
def test_nothing_leaves_the_machine(installed, project, trap, connect, browser, monkeypatch):
    address, asked = trap
    monkeypatch.setattr(installation, "NOWHERE", address)
    server = start_server(project / "studio")
    client = connect(server)
    made = client.projects.create(title="Quiet", label_config=CHOICES)
    client.projects.import_tasks(made.id, request=[{"data": {"text": "a"}}])
    assert httpx.get(f"{server.url}/api/version", trust_env=False).json()["release"] == "1.23.2"
    assert asked == []

    context = browser.new_context()
    page, requests = context.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)
    page.fill("input[name=email]", server.email)
    page.fill("input[name=password]", server.password)
    page.press("input[name=password]", "Enter")
    page.goto(f"{server.url}/projects/{made.id}/data")
    page.get_by_text("Quiet").first.wait_for()
    page.goto(f"{server.url}/projects/{made.id}/settings")
    page.get_by_text("Labeling Interface").first.wait_for()
    context.close()
    assert [url for url in requests if not url.startswith((server.url, "data:", "blob:"))] == []
    # the one thing that a page has the server ask for: a hint, fetched from GitHub; so the trap is one
    httpx.get(f"{server.url}/heidi-tips", trust_env=False)
    assert set(asked) == {"CONNECT raw.githubusercontent.com:443 HTTP/1.0"}


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    "A user who has nothing installed."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return monkeypatch


def test_without_a_network_nothing_is_installed_and_it_is_said(empty_cache):
    empty_cache.setenv("PIP_INDEX_URL", "http://me:sesame-9@127.0.0.1:9/simple")
    empty_cache.setenv("PIP_RETRIES", "0")
    told = []
    with pytest.raises(StudioError, match=r"(?s)pip ended with code 1.*check the network") as failed:
        install_server(told.append)
    assert "sesame" not in str(failed.value) and "once, about 1 GB" in told[0] and not is_installed()


@pytest.mark.slow
def test_an_installation_that_is_broken_off_is_made_anew(empty_cache, project):
    lock = installation.installation_folder().with_suffix(".2.lock")
    marker = "label-studio==1.23.2"
    with socket.create_server(("127.0.0.1", 0)) as index:  # it takes calls and says nothing
        empty_cache.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/simple")

        def pips():
            lines = [(p, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
            return [p for p, line in lines if marker in line and str(project) in line[0]]

        starter = begin(project, "studio", "start")
        wait_for(pips)
        assert end(starter, signal.SIGINT)[0] == 130
        assert not pips() and not is_installed() and not is_locked(lock)
        starter = begin(project, "studio", "start")
        pip = wait_for(pips)
        end(starter, signal.SIGKILL)
        assert is_locked(lock)  # nobody else may begin as long as that pip goes on
        for process in pip:
            process.kill()
        wait_for(lambda: not is_locked(lock))
        assert not is_installed()


@pytest.fixture
def hooked(studio_server, connect):
    "A client, a project and its two tasks."
    client = connect(studio_server)
    project = client.projects.create(title="Webhooks", label_config=CHOICES).id
    tasks = [{"data": {"text": "a"}}, {"data": {"text": "b"}, "annotations": [{"result": LABEL}]}]
    yield client, project, client.projects.import_tasks(project, request=tasks, return_task_ids=True).task_ids
    client.projects.delete(project)


def test_webhooks_tell_of_what_was_made_changed_and_deleted(hooked):
    client, project, (task, _) = hooked
    told = []
    with listen(client, project, told.extend) as changes:
        registered = client.webhooks.list(project=str(project))
        assert [hook.is_active for hook in registered] == [True]
        made = client.annotations.create(task, result=LABEL).id
        wait_for(lambda: len(told) == 1)
        client.annotations.update(made, result=LABEL)
        wait_for(lambda: len(told) == 2)
        client.annotations.delete(made)
        wait_for(lambda: len(told) == 3)
        assert told == [
            Change("ANNOTATION_CREATED", project, task, made),
            Change("ANNOTATION_UPDATED", project, task, made),
            Change("ANNOTATIONS_DELETED", project, None, made),
        ]
        url, wrong = registered[0].url, {HEADER: "wrong"}
        message = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": project},
            "annotation": {"id": 1, "task": 1},
        }
        assert httpx.post(url, json=message, headers=wrong).status_code == 403
        assert httpx.post(url, json=message).status_code == 403
        for _ in range(3):  # sent again by somebody who knows the secret: only another look
            assert httpx.post(url, json=message, headers=registered[0].headers).status_code == 204
        assert httpx.post(url, content=b"\xff{", headers=registered[0].headers).status_code == 400
        wait_for(lambda: len(told) > 3)
    assert set(told[3:]) == {Change("ANNOTATION_CREATED", project, 1, 1)} and changes.calls <= len(told)
    assert client.webhooks.list(project=str(project)) == []


def test_what_is_labelled_in_the_browser_comes_into_the_history_by_itself(studio_server, tmp_path):
    topics, history = Taxonomy([Label("mlops"), Label("other")]), History(Store(tmp_path))
    with connect_studio(studio_server.url, studio_server.token) as studio:
        project = studio.project("Webhooks and a pull", topics, ["text"])
        push(project, pl.DataFrame({"item": ["a", "b"], "text": ["one", "two"]}))
        (task,) = tasks_there(project).filter(pl.col("item") == "b")["task"]
        with listen(studio.client, project.id, lambda changes: pull(project, history)) as changes:
            made = studio.client.annotations.create(task, result=result_of(project, ["mlops"])).id
            wait_for(lambda: history.current().height)
            assert history.current().select("item", "labels").rows() == [("b", ["mlops"])]
            studio.client.annotations.update(made, result=result_of(project, ["other"]))
            wait_for(lambda: history.current()["labels"].to_list() == [["other"]])
            studio.client.annotations.delete(made)
            wait_for(lambda: history.current().height == 0)
    assert changes.calls >= 3 and changes.error is None


def test_an_annotator_does_not_wait_for_a_slow_listener_and_dead_ones_are_removed(hooked, studio_server):
    client, project, (task, _) = hooked
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{gone.getsockname()[1]}/annotations"
    register_webhook(client, project, dead, "of a notebook that was killed")
    mine = client.webhooks.create(url="http://127.0.0.1:9/mine", project=project, headers={}).id
    free, told = threading.Event(), []

    def slow(changes):
        free.wait()
        told.extend(changes)

    with listen(client, project, slow):
        hooks = client.webhooks.list(project=str(project))
        assert (
            dead not in [hook.url for hook in hooks]
            and mine in [hook.id for hook in hooks]
            and len(hooks) == 2
        )
        made = [client.annotations.create(task, result=LABEL).id for _ in range(3)]
        assert told == []  # three were saved while the first is still being dealt with
        free.set()
    assert {change.annotation for change in told} == set(made)  # the end waits for what was told
    assert "Read timed out" not in (studio_server.folder / "server.log").read_text()


def test_a_webhook_for_a_project_that_is_not_there(studio_server, connect):
    client = connect(studio_server)
    before = threading.active_count()
    with pytest.raises(StudioError, match="takes no webhook for project 99999"), listen(client, 99999, print):
        pass
    assert threading.active_count() == before
