"""A real JupyterLab on a folder, with settings of its own, and what a person does in it."""

import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

from flow_project import wait_for

TOKEN = "for-this-test-only"


@contextmanager
def jupyterlab(root):
    "The address of a JupyterLab that shows the folder `root`."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(root.parent / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(root.parent / name) for name in ("SETTINGS", "WORKSPACES")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}"]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    quiet = root.parent / "SETTINGS" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false"}')
    with open(root.parent / "lab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=os.environ | own, stdout=log, stderr=log, cwd=root,
        )  # fmt: skip
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/api?token={TOKEN}", server), 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _answers(address, server):
    assert server.poll() is None, "JupyterLab did not start"
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


@contextmanager
def notebook_tab(address, browser, notebook="w.ipynb", width=1280, height=900):
    "The notebook in a tab of its own, with an idle kernel."
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{address}/lab/tree/{notebook}?token={TOKEN}&reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    try:
        yield page
    finally:
        context.close()


def run_cell(tab, number):
    "Run a cell; its output area."
    cell = tab.locator(".jp-Notebook .jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    tab.keyboard.press("Control+Enter")
    return cell.locator(".jp-OutputArea")


def theme(tab, name):
    tab.locator(".lm-MenuBar-itemLabel", has_text="Settings").click()
    tab.locator(".lm-Menu-itemLabel", has_text="Theme").first.hover()
    tab.locator(".lm-Menu-itemLabel", has_text=name).first.click()
    tab.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
