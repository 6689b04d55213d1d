"""Fixtures that need something outside Python. Where CI is set, a missing one is a failure and not a skip."""

import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from flow_project import wait_for

CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


def missing(what):
    "Skip the test, or fail it where CI is set."
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not installed")


@pytest.fixture(scope="session")
def browser():
    "Headless Chromium, with a fresh profile."
    found = shutil.which("chromium") or shutil.which("google-chrome") or missing("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS.split())
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe():
    "What axe-core calls serious or critical on an open page: the rule and where."
    from axe_playwright_python.sync_playwright import Axe

    def serious(tab, part=None):
        found = Axe().run(tab, context=part, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
        return [f"{rule['id']}: {node['target'][0]}" for rule in grave for node in rule["nodes"]]

    return serious


@pytest.fixture(scope="session")
def postgres_url():
    "A PostgreSQL server of our own on loopback, with a password; it is stopped and removed after the tests."
    found = [
        shutil.which("pg_ctl"),
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), reverse=True),
    ]
    if shutil.which("pg_config"):
        found.append(subprocess.check_output(["pg_config", "--bindir"], text=True).strip() + "/pg_ctl")
    control = next((path for path in found if path and Path(path).exists()), None) or missing("postgresql")
    # PostgreSQL refuses to run as root
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder, socket.socket() as free:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        password = Path(folder) / "password"
        password.write_text("p@ss-sesame")
        password.chmod(0o644)

        def run(*command):
            subprocess.run([*user, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

        initdb = str(Path(control).with_name("initdb"))
        login = ["-U", "tester", "-A", "scram-sha-256", f"--pwfile={password}"]
        run(initdb, "-D", f"{folder}/data", "-N", "-E", "UTF8", *login)
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c timezone=Europe/Berlin"
        run(control, "-D", f"{folder}/data", "-w", "-o", options, "-l", f"{folder}/log", "start")
        try:
            yield f"postgresql://tester:p%40ss-sesame@127.0.0.1:{port}/postgres"
        finally:
            run(control, "-D", f"{folder}/data", "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def studio_server(tmp_path_factory):
    """A real Label Studio: `url`, `token`, `folder`, and `annotator(email)`, which gives another member's token.

    The first use on a machine installs it, which takes minutes; workers wait for one another and have a server each.
    """
    from mlworkbench.labels.installation import StudioError, install_server
    from mlworkbench.labels.server import start_server, stop_server

    try:
        install_server()
    except StudioError as error:
        missing(f"Label Studio ({error})")
    server = start_server(tmp_path_factory.mktemp("label-studio") / "studio")

    @functools.cache  # who has joined stays
    def annotator(email):
        invitation = {"headers": {"Authorization": f"Token {server.token}"}, "base_url": server.url}
        with httpx.Client(**invitation, trust_env=False) as owner:
            link = owner.get("/api/invite").raise_for_status().json()["invite_url"]
        with httpx.Client(base_url=server.url, trust_env=False) as person:
            person.get(link).raise_for_status()
            form = {"csrfmiddlewaretoken": person.cookies["csrftoken"], "email": email}
            joined = person.post(link, data=form | {"password": "Sesame-street-9"})
            assert joined.status_code == 302, joined.text
            return person.get("/api/current-user/token").raise_for_status().json()["token"]

    yield SimpleNamespace(url=server.url, token=server.token, folder=server.folder, annotator=annotator)
    stop_server(server.folder)


@pytest.fixture
def visit(browser):
    "Open a page at a width and in a colour scheme; nothing may be requested or reported as an error."
    contexts, requests, complaints = [], [], []

    def open_page(path, width=1280, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(Path(path).as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
    assert all(url.startswith("file:") for url in requests) and len(requests) == len(contexts)


@contextmanager
def s3_server():
    "An S3-like server with the bucket `bench`: its process, which a test may end, with its `url`."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.url = f"http://127.0.0.1:{port}"

    def answers():
        try:
            return urllib.request.urlopen(process.url, timeout=1).close() is None
        except OSError:
            return False

    try:
        wait_for(answers)
        urllib.request.urlopen(urllib.request.Request(f"{process.url}/bench", method="PUT")).close()
        yield process
    finally:
        process.kill()
        process.wait()
