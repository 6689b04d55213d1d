"""Items and labels to a real Label Studio and back: two annotators, broken connections, killed processes, conflicts."""

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from flow_project import call, newest_record, step_of, write_project
from studio_proxy import Proxy, after, answer, once

from mlworkbench.core.errors import ConfigError
from mlworkbench.core.project import Project, Step
from mlworkbench.core.store import Store
from mlworkbench.labels import pull as pulling
from mlworkbench.labels import push as pushing
from mlworkbench.labels import studio as studios
from mlworkbench.labels.history import History
from mlworkbench.labels.installation import StudioError
from mlworkbench.labels.pull import pull
from mlworkbench.labels.push import push, result_of, tasks_there
from mlworkbench.labels.review import Review
from mlworkbench.labels.studio import connect, tasks_of
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.labels.write_back import write_back

TOPICS = Taxonomy([Label("nlp", "Text", aliases=("language",)), Label("vision"), Label("mlops")])
IMPORT = r"POST /api/projects/\d+/import "
PAGES = r"GET /api/tasks/\?.*fields=all"


@pytest.fixture(scope="module")
def studio(studio_server):
    with connect(studio_server.url, studio_server.token) as studio:
        yield studio


@pytest.fixture(scope="module")
def ben(studio_server):
    with connect(studio_server.url, studio_server.annotator("ben@example.com")) as studio:
        yield studio


@pytest.fixture
def project(studio):
    return studio.project(f"p {uuid.uuid4()}", TOPICS, ["title"])


@pytest.fixture
def history(tmp_path):
    return History(Store(tmp_path / "store"))


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(studios, "PAUSE_S", 0.01)


def items_of(count, words="title"):
    return pl.DataFrame(
        {"item": [f"i{n}" for n in range(count)], "title": [f"{words} {n}" for n in range(count)]}
    )


@contextmanager
def through(proxy, project):
    "The same project, reached by way of a proxy."
    with connect(proxy.url, project.studio.token) as studio:
        yield replace(project, studio=studio)


def tasks(project):  # item -> task
    return dict(tasks_there(project).select("item", "task").rows())


def annotate(studio, project, task, label, **more):
    body = {"result": result_of(project, [label]) if label else []} | more
    return studio.request("POST", f"api/tasks/{task}/annotations/", body=body)


def accept_all(project, version="m"):
    "An annotation of each prediction by one call of the server: all have the same time."
    chosen = {"selectedItems": {"all": True, "excluded": []}, "model_version": version}
    action = {"id": "predictions_to_annotations", "project": project.id}
    project.studio.request("POST", "api/dm/actions", action, chosen)


def predicted(items, label="nlp"):
    return items.select("item", label=pl.lit(label), model_version=pl.lit("m"))


def change(studio, project, annotation, label):
    return studio.request(
        "PATCH", f"api/annotations/{annotation['id']}/", body={"result": result_of(project, [label])}
    )


def delete(studio, path):
    studio.client._client_wrapper.httpx_client.request(path, method="DELETE")


def labels_now(history):
    return {item: labels[0] for item, labels in history.current().select("item", "labels").rows()}


def facts(history):
    return (
        history.events()
        .select("event", "item", "action", "labels", "annotator", "undoes")
        .collect()
        .sort("event")
    )


# connecting


def test_connect_says_what_is_wrong(studio_server, monkeypatch):
    token = studio_server.token
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="studio start"):
        connect()
    with pytest.raises(ConfigError, match="LABEL_STUDIO_API_KEY"):
        connect(studio_server.url)
    for spoilt in ("to\nken", "tökén"):
        with pytest.raises(ConfigError, match="not a readable access token") as refused:
            connect(studio_server.url, spoilt)
        assert spoilt not in str(refused.value)
    with pytest.raises(StudioError, match=r"does not answer \(ConnectError"):
        connect("http://127.0.0.1:9", token)
    with pytest.raises(StudioError, match="refuses the token") as refused:
        connect(studio_server.url, "0123456789abcdef" * 3)
    assert "0123456789abcdef" not in str(refused.value)
    with pytest.raises(StudioError, match="no Label Studio there"):
        connect(f"{studio_server.url}/elsewhere", token)
    monkeypatch.setenv("LABEL_STUDIO_URL", f"{studio_server.url}/")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", f"{token}\n")  # as it comes from a file
    with connect() as studio:
        assert studio.version.startswith("1.23") and token not in repr(studio)
    with connect(folder=studio_server.folder) as studio:
        assert studio.url == studio_server.url


def test_a_server_of_another_version_and_a_busy_one(studio_server, monkeypatch):
    other = answer("200 OK", b'{"release": "1.9.2"}')
    with (
        Proxy(studio_server.url, once("version", other)) as proxy,
        pytest.raises(StudioError, match=r"is Label Studio 1\.9\.2. Accepted: 1\.20 to 2\.0"),
    ):
        connect(proxy.url, studio_server.token)
    busy = iter([answer("503 Busy"), answer("502 Bad gateway"), answer("500 Locked")])
    plan = lambda line: next(busy, "pass") if "users" in line else "pass"  # noqa: E731
    with Proxy(studio_server.url, plan) as proxy, connect(proxy.url, studio_server.token) as studio:
        assert studio.users()[1] == studio.user
        proxy.plan = lambda line: answer("503 Busy")
        with pytest.raises(StudioError, match="503; 5 att"):
            studio.users()
        proxy.plan = lambda line: "hold"
        monkeypatch.setattr(studios, "TIMEOUT_S", 0.2)
        with pytest.raises(StudioError, match=r"ReadTimeout.*; 1 att"):
            studio.users()
        monkeypatch.setattr(studios, "FIRST_S", 0.2)
        monkeypatch.setattr(studios, "TIMEOUT_S", 60)
        with pytest.raises(StudioError, match=r"ReadTimeout.*; 1 att"):
            connect(proxy.url, studio_server.token)


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")  # the SDK's own
def test_personal_access_tokens_are_refreshed_and_expire(studio_server, studio, project, history, caplog):
    caplog.set_level(logging.DEBUG)
    token = studio.request("POST", "api/token/")["token"]
    with Proxy(studio_server.url) as proxy, connect(proxy.url, token) as known:
        assert known.user == studio.user
        tokens = known.client._client_wrapper._tokens_client
        expired = _jwt(tokens._access_token, exp=1_600_000_000)
        tokens._set_access_token(expired)
        assert known.users() == studio.users()
        assert sum("/api/token/refresh/" in line for line in proxy.lines) == 2
    with pytest.raises(StudioError, match=r"refuses the token.*expired"):
        connect(studio_server.url, _jwt(token, exp=1_600_000_000))
    with pytest.raises(StudioError, match="refuses the token"):  # the server never gave it
        connect(studio_server.url, _jwt(token, exp=4_000_000_000))
    assert token not in caplog.text and studio_server.token not in caplog.text

    push(project, items_of(3), progress=False)
    with connect(studio_server.url, token) as known:
        studio.request("POST", "api/token/blacklist/", body={"refresh": token})
        known.client._client_wrapper._tokens_client._set_access_token(expired)
        with pytest.raises(StudioError, match="refuses the token"):
            pull(replace(project, studio=known), history, progress=False)


def _jwt(token, **claims):
    head, body, sign = token.split(".")
    facts = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | claims
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip('=')}.{sign}"


# projects


def test_a_project_is_created_once_and_grows_with_the_taxonomy(studio):
    title = f"p {uuid.uuid4()}"
    first = studio.project(title, TOPICS, ["title"], annotators=2)
    assert studio.project(title, TOPICS, ["title"]).key == first.key
    assert studio.request("GET", f"api/projects/{first.id}/")["maximum_annotations"] == 2
    grown = studio.project(title, Taxonomy([*TOPICS.labels, Label('<other> & "more"')]), ["title"])
    assert grown.findings["message"].to_list() == ['<other> & "more" were added to the labelling page']
    parsed = studio.request("GET", f"api/projects/{first.id}/")["parsed_label_config"]
    assert parsed["label"]["labels"] == ["nlp", "vision", "mlops", '<other> & "more"']
    with pytest.raises(ConfigError, match="labels that the taxonomy does not know: <other>"):
        studio.project(title, TOPICS, ["title"])
    with pytest.raises(ConfigError, match="shows title"):
        studio.project(title, grown.taxonomy, ["text"])


def test_a_project_that_was_deleted(studio, project, history):
    push(project, items_of(2), progress=False)
    history.record("i0", "nlp", annotator="eva")
    delete(studio, f"api/projects/{project.id}/")
    works = (pull, project, history), (write_back, project, history), (push, project, items_of(2))
    for work, *given in works:
        with pytest.raises(StudioError, match=r"status 404.*Was it deleted there\?"):
            work(*given, progress=False)
    again = studio.project(project.title, TOPICS, ["title"])
    assert again.key != project.key and push(again, items_of(2), progress=False).items == 2
    assert write_back(again, history, progress=False).created == 1


def test_tables_and_images(studio, history):
    items = pl.DataFrame({"item": ["a"], "photo": ["http://127.0.0.1:9/a.png"], "rows": [3], "kind": ["x"]})
    project = studio.project(f"p {uuid.uuid4()}", TOPICS, image="photo", table=["rows", "kind"])
    push(project, items, progress=False)
    data = studio.request("GET", f"api/tasks/{tasks(project)['a']}/")["data"]
    assert data == {"photo": "http://127.0.0.1:9/a.png", "table": {"rows": 3, "kind": "x"}}
    annotate(studio, project, tasks(project)["a"], "vision")
    pull(project, history, progress=False)
    assert labels_now(history) == {"a": "vision"}


# round trips


HOSTILE = {
    "script": "<script>document.title='run'</script><img src=x onerror=alert(1)> & \"quotes\" 'too'",
    "arabic": "مرحبا بالعالم \u202e reversed \u202c",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 vs é, \u0000 \u2028 \\u0041 $title {{x}}",
    "empty": "",
    "large": "Länge 🐍 " * 900_000,
}


def test_any_text_comes_back_as_it_was(studio, project, history):
    items = pl.DataFrame({"item": list(HOSTILE), "title": list(HOSTILE.values())})
    assert len(HOSTILE["large"].encode()) > 10_000_000
    assert push(project, items, progress=False).items == 5
    for item, task in tasks(project).items():
        assert studio.request("GET", f"api/tasks/{task}/")["data"]["title"] == HOSTILE[item]
        annotate(studio, project, task, "nlp")
    assert push(project, items, progress=False).items == 0
    assert pull(project, history, progress=False).events == 5
    assert labels_now(history) == dict.fromkeys(HOSTILE, "nlp")
    assert (
        history.current()["content"].to_list()
        == pushing.content_hash(items.sort("item"), ["title"]).to_list()
    )


def test_predictions_come_with_their_items_and_later(studio, project):
    items = items_of(4)
    rules = pl.DataFrame(
        {"item": ["i0", "i1"], "label": ["NLP", "nonsense"], "score": [0.9, 0.2], "model_version": "rules"}
    )
    pushed = push(project, items[:2], rules, progress=False)
    assert (pushed.items, pushed.predictions) == (2, 1)
    assert pushed.findings["check"].to_list() == ["unknown_label"]
    model = pl.DataFrame(
        {
            "item": items["item"],
            "label": "vision",
            "score": [0.7, None, float("nan"), 1.0],
            "model_version": "m2",
        }
    )
    both = pl.concat([rules[:1], model], how="diagonal_relaxed")
    assert push(project, items, both, progress=False).predictions == 4
    assert push(project, items, both, progress=False).predictions == 0
    assert studio.request("GET", f"api/projects/{project.id}/")["model_version"] == "m2"  # what people see
    found = studio.request("GET", "api/predictions/", {"project": project.id})
    at = {task: item for item, task in tasks(project).items()}
    shown = sorted(
        (at[x["task"]], x["model_version"], x["score"], x["result"][0]["value"]["choices"][0]) for x in found
    )
    assert shown == [
        ("i0", "m2", 0.7, "vision"), ("i0", "rules", 0.9, "nlp"), ("i1", "m2", None, "vision"),
        ("i2", "m2", None, "vision"), ("i3", "m2", 1.0, "vision"),
    ]  # fmt: skip


def test_two_annotators_edits_skips_drafts_and_deletions(studio, ben, project, history):
    push(project, items_of(5), progress=False)
    task = tasks(project)
    ann = studio.user
    first = annotate(studio, project, task["i0"], "nlp")
    annotate(ben, project, task["i0"], "vision")
    twice = [annotate(ben, project, task["i1"], label) for label in ("nlp", "mlops")]
    annotate(studio, project, task["i2"], None, was_cancelled=True)
    draft = {"result": result_of(project, ["nlp"]), "lead_time": 1}
    studio.request("POST", f"api/tasks/{task['i3']}/drafts", body=draft)
    assert pull(project, history, page=2, progress=False).events == 5
    votes = {
        (item, who): labels
        for item, who, labels in history.votes().select("item", "annotator", "labels").rows()
    }
    assert votes == {
        ("i0", ann): ["nlp"],
        ("i0", "ben@example.com"): ["vision"],
        ("i1", "ben@example.com"): ["mlops"],
    }

    change(studio, project, first, "mlops")
    change(studio, project, first, "vision")
    delete(studio, f"api/annotations/{twice[1]['id']}/")
    pull(project, history, progress=False)
    votes = {
        (item, who): labels
        for item, who, labels in history.votes().select("item", "annotator", "labels").rows()
    }
    assert votes == {
        ("i0", ann): ["vision"],
        ("i0", "ben@example.com"): ["vision"],
        ("i1", "ben@example.com"): ["nlp"],
    }
    assert history.changes("i0").filter(pl.col("annotator") == ann)["labels"].to_list() == [
        ["nlp"],
        ["vision"],
    ]

    before = facts(history)
    assert pull(project, history, full=True, progress=False).events == 0
    assert facts(history).equals(before)
    studio.request("PATCH", f"api/annotations/{first['id']}/", body={"was_cancelled": True})
    delete(studio, f"api/annotations/{twice[0]['id']}/")
    pull(project, history, progress=False)
    votes = {
        (item, who): labels
        for item, who, labels in history.votes().select("item", "annotator", "labels").rows()
    }
    assert votes == {("i0", "ben@example.com"): ["vision"]}


def test_a_pull_reads_what_has_changed_since(studio, project, history, monkeypatch):
    monkeypatch.setattr(pulling, "OVERLAP_S", -60.0)  # nothing else writes here
    push(project, items_of(7), predicted(items_of(7)), progress=False)
    accept_all(project)
    assert pull(project, history, page=2, progress=False).events == 7
    assert pull(project, history, progress=False).tasks == 0
    annotate(studio, project, tasks(project)["i5"], "mlops")
    again = pull(project, history, progress=False)
    assert (again.tasks, again.events) == (1, 1) and labels_now(history)["i5"] == "mlops"


def test_what_cannot_be_used_is_a_finding(studio, project, history):
    push(project, items_of(4), progress=False)
    task = tasks(project)
    body = {"result": [{**result_of(project, ["nlp"])[0], "value": {"choices": ["langage"]}}]}
    studio.request("POST", f"api/tasks/{task['i0']}/annotations/", body=body)
    annotate(studio, project, task["i1"], None)
    annotate(studio, project, task["i2"], "mlops")
    studio.request("POST", f"api/projects/{project.id}/import", body=[{"data": {"title": "by hand"}}])
    pulled = pull(project, history, progress=False)
    found = dict(pulled.findings.select("check", "message").rows())
    assert set(found) == {"unknown_label", "annotation_without_label", "task_without_item"}
    assert "'langage' is no label (1 annotations). The nearest is 'nlp'" in found["unknown_label"]
    assert labels_now(history) == {"i2": "mlops"}
    delete(studio, f"api/tasks/{task['i2']}/")
    found = dict(pull(project, history, progress=False).findings.select("check", "message").rows())
    assert "'i2'" in found["deleted_task"] and labels_now(history) == {"i2": "mlops"}
    assert push(project, items_of(4), progress=False).items == 1


def test_changed_texts_are_findings_and_replaced_on_request(studio, project, history):
    push(project, items_of(3), progress=False)
    annotate(studio, project, tasks(project)["i0"], "nlp")
    other = items_of(3).with_columns(
        title=pl.when(pl.col("item") == "i0").then(pl.lit("new")).otherwise("title")
    )
    found = push(project, other, progress=False).findings
    assert found["check"].to_list() == ["changed_content"] and found["value"].to_list() == [1]
    assert push(project, other, update=True, progress=False).updated == 1
    assert push(project, other, update=True, progress=False).updated == 0
    assert studio.request("GET", f"api/tasks/{tasks(project)['i0']}/")["data"]["title"] == "new"
    pull(project, history, progress=False)
    assert (
        history.current()["content"][0] == pushing.content_hash(items_of(1), ["title"])[0]
    )  # of what was read


# what breaks


def test_an_import_that_is_cut_or_whose_answer_is_lost_leaves_each_item_once(project, monkeypatch):
    monkeypatch.setattr(pushing, "CHUNK", 10)
    for fate, items in (("cut", items_of(25)), ("lose", items_of(60))):
        with (
            Proxy(project.studio.url, once(IMPORT, fate, number=2)) as proxy,
            through(proxy, project) as shaky,
        ):
            push(shaky, items, progress=False)
            assert sum("/import" in line for line in proxy.lines) > 2
        assert tasks_there(project)["item"].sort().equals(items["item"].sort())


def test_a_push_whose_connection_stays_away_says_how_far_it_got(project, monkeypatch):
    monkeypatch.setattr(pushing, "CHUNK", 10)
    broken = pytest.raises(StudioError, match=r"30 of 50 items are on the server\. Running it again goes on")
    with Proxy(project.studio.url, after(".", 3 + 4)) as proxy, through(proxy, project) as shaky, broken:
        push(shaky, items_of(50), progress=False)
    assert tasks_there(project).height == 30
    assert push(project, items_of(50), progress=False).items == 20
    assert tasks_there(project)["item"].n_unique() == tasks_there(project).height == 50


def test_a_pull_that_is_cut_goes_on_where_it_stopped(studio, project, history):
    push(project, items_of(30), predicted(items_of(30)), progress=False)
    accept_all(project)
    broken = pytest.raises(StudioError, match=r"20 tasks were read, 20 events.*Running it again goes on")
    with Proxy(project.studio.url, after(PAGES, 2)) as proxy, through(proxy, project) as shaky, broken:
        pull(shaky, history, page=10, progress=False)
    annotate(studio, project, tasks(project)["i0"], "mlops")  # of a page that was read
    rest = pull(project, history, page=10, progress=False)
    assert (rest.tasks, rest.events) == (10, 10)
    assert pull(project, history, progress=False).events == 1
    assert labels_now(history) == dict.fromkeys(items_of(30)["item"], "nlp") | {"i0": "mlops"}


WORK = """
import sys
import polars as pl
from mlworkbench.core.store import Store
from mlworkbench.labels import push as pushing, write_back as writing
from mlworkbench.labels.history import History
from mlworkbench.labels.pull import pull
from mlworkbench.labels.studio import connect
from mlworkbench.labels.taxonomy import Label, Taxonomy
pushing.CHUNK = writing.CHUNK = 10
topics = Taxonomy([Label("nlp", "Text", aliases=("language",)), Label("vision"), Label("mlops")])
url, title, store = sys.argv[1:]
project = connect(url).project(title, topics, ["title"])
items = pl.DataFrame({"item": [f"i{n}" for n in range(50)], "title": [f"title {n}" for n in range(50)]})
history = History(Store(store))
"""


@contextmanager
def killed_at(project, history, call, word, number, fate="hold"):
    "A process that does `call` is killed while its nth request of a kind is under way; then that request is carried out."
    with Proxy(project.studio.url, once(word, fate, number)) as proxy:
        environ = {"LABEL_STUDIO_API_KEY": project.studio.token, "PATH": ""}
        command = [sys.executable, "-c", WORK + call, proxy.url, project.title, history.tables.root]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        reached = proxy.reached.wait(60)
        process.kill()
        assert process.wait() == -signal.SIGKILL and reached
        yield proxy


@pytest.mark.parametrize("late", [False, True])
def test_a_push_that_is_killed_and_run_again_leaves_each_item_once(project, history, monkeypatch, late):
    "Also where the server gets the dead process's import only after the next push has looked."
    monkeypatch.setattr(pushing, "CHUNK", 10)
    with killed_at(project, history, "pushing.push(project, items)", IMPORT, 3) as proxy:
        if late:
            listed = pushing.tasks_there

            def overtaken(*args, **more):
                found = listed(*args, **more)
                proxy.release.set()
                for thread in proxy.threads[1:]:
                    thread.join(30)
                return found

            monkeypatch.setattr(pushing, "tasks_there", overtaken)
        else:
            proxy.release.set()
            for thread in proxy.threads[1:]:
                thread.join(30)
        push(project, items_of(50), progress=False)
    assert tasks_there(project)["item"].sort().equals(items_of(50)["item"].sort())


def test_a_pull_that_is_killed_and_run_again_brings_each_fact_once(studio, project, history, tmp_path):
    push(project, items_of(50), predicted(items_of(50)), progress=False)
    accept_all(project)
    with killed_at(project, history, "pull(project, history, page=10)", PAGES, 4) as proxy:
        proxy.release.set()
    rest = pull(project, history, page=10, progress=False)
    assert rest.tasks == rest.events == 20
    whole = History(Store(tmp_path / "whole"))
    pull(project, whole, progress=False)
    assert facts(history).equals(facts(whole)) and facts(whole).height == 50


@pytest.mark.parametrize("word, fate", [
    (r"POST /api/projects/\d+/import/predictions", "hold"), (r"POST /api/dm/actions", "hold"),
    (r"DELETE /api/projects/\d+/model-versions", "hold"),
])  # fmt: skip
def test_a_write_back_that_is_killed_and_run_again_writes_each_decision_once(
    studio, project, history, word, fate
):
    push(project, items_of(50), progress=False)
    for item in items_of(30)["item"]:
        history.record(item, "vision", annotator="eva")
    with killed_at(project, history, "writing.write_back(project, history)", word, 2, fate) as proxy:
        proxy.release.set()
        for thread in proxy.threads[1:]:
            thread.join(30)
    write_back(project, history, progress=False)
    assert write_back(project, history, progress=False).created == 0
    assert (
        tasks_there(project)["annotations"].sum() == 30 and sum(tasks_there(project)["annotations"] > 1) == 0
    )
    assert studio.request("GET", f"api/projects/{project.id}/model-versions/") == {}
    assert pull(project, history, progress=False).events == 0


# both sides


def test_decisions_made_here_are_written_back_once(studio, ben, project, history, tmp_path):
    push(project, items_of(4), progress=False)
    task = tasks(project)
    given = annotate(ben, project, task["i0"], "vision")
    annotate(ben, project, task["i1"], "nlp")
    pull(project, history, progress=False)
    history.record("i0", "mlops", annotator="ben@example.com")  # his own label
    history.record("i1", "mlops", annotator="eva")
    history.record("i2", "nlp", annotator="eva")
    history.record("i9", "nlp", annotator="eva")
    done = write_back(project, history, progress=False)
    assert (done.created, done.changed, done.there) == (2, 1, 0)
    assert done.findings["check"].to_list() == ["item_not_in_project"]
    assert _on_server(project) == {"i0": ["mlops"], "i1": ["mlops", "nlp"], "i2": ["nlp"]}
    assert studio.request("GET", f"api/annotations/{given['id']}/")["completed_by"] == given["completed_by"]
    assert pull(project, history, progress=False).events == 0  # nobody's vote counts twice
    other = History(Store(tmp_path / "of a colleague"))
    assert pull(project, other, progress=False).events == 4
    assert labels_now(other) == {"i0": "mlops", "i1": "mlops", "i2": "nlp"}
    again = write_back(project, history, progress=False)
    assert (again.created, again.changed) == (0, 0)
    history.record("i2", "vision", annotator="eva")
    assert write_back(project, history, progress=False).changed == 1
    assert _on_server(project)["i2"] == ["vision"]


def test_a_review_is_written_back_on_demand(project, history):
    items = items_of(3)
    push(project, items, progress=False)
    queue = items.select("item", suggested=pl.lit("nlp"))
    review = Review(items, queue, TOPICS, history, ["title"], annotator="eva", project=project)
    review.accept()
    review.relabel("vision")
    review.skip()
    assert review.write_back().created == 2
    assert _on_server(project) == {"i0": ["nlp"], "i1": ["vision"]}
    review.undo()
    review.undo()
    review.relabel("mlops")
    assert review.write_back().changed == 1
    assert _on_server(project) == {"i0": ["nlp"], "i1": ["mlops"]}


def _on_server(project):  # item -> labels
    names = {task: item for item, task in tasks(project).items()}
    found = {
        names[task["id"]]: sorted(one["result"][0]["value"]["choices"][0] for one in task["annotations"])
        for task in tasks_of(project, list(names))
    }
    return {item: labels for item, labels in found.items() if labels}


def test_what_both_sides_have_changed_is_a_finding_and_stays(studio, project, history):
    push(project, items_of(3), progress=False)
    given = {item: annotate(studio, project, task, "nlp") for item, task in tasks(project).items()}
    pull(project, history, progress=False)
    for item in ("i0", "i1"):
        history.record(item, "vision", annotator="eva")
    change(studio, project, given["i0"], "mlops")  # another label than here
    change(studio, project, given["i1"], "vision")  # the same as here
    done = write_back(project, history, progress=False)
    assert done.findings["check"].to_list() == ["conflict"] and "'i0'" in done.findings["message"][0]
    assert _on_server(project) == {"i0": ["mlops"], "i1": ["vision", "vision"], "i2": ["nlp"]}
    found = pull(project, history, progress=False).findings
    assert json.loads(found["evidence"][0])["items"] == ["i0"]
    assert history.changes("i0")["labels"].to_list() == [["nlp"], ["vision"], ["mlops"]]
    for _ in range(2):  # still nobody has looked
        assert write_back(project, history, progress=False).findings["check"].to_list() == ["conflict"]
        pull(project, history, progress=False)
    assert _on_server(project)["i0"] == ["mlops"]
    history.record("i0", "vision", annotator="eva")  # having seen both
    assert write_back(project, history, progress=False).created == 1
    assert _on_server(project)["i0"] == ["mlops", "vision"]


def test_what_was_written_back_can_be_edited_and_deleted_there(studio, project, history):
    push(project, items_of(2), progress=False)
    for item in ("i0", "i1"):
        history.record(item, "vision", annotator="eva")
    write_back(project, history, progress=False)
    pull(project, history, progress=False)
    made = {task["id"]: task["annotations"][0] for task in tasks_of(project, list(tasks(project).values()))}
    result = made[tasks(project)["i0"]]["result"]
    result[0]["value"]["choices"] = ["mlops"]  # as the page does: the rest of the result stays
    studio.request("PATCH", f"api/annotations/{made[tasks(project)['i0']]['id']}/", body={"result": result})
    delete(studio, f"api/annotations/{made[tasks(project)['i1']]['id']}/")
    assert pull(project, history, progress=False).events == 2
    assert history.votes().select("item", "annotator", "labels").rows() == [
        ("i0", studio.user, ["mlops"]), ("i0", "eva", ["vision"])
    ]  # fmt: skip
    assert pull(project, history, full=True, progress=False).events == 0


def _handle(root, *writes):
    return Step(
        Project(write_project(root, {"name": "10_sync", "code": [], "writes": list(writes)})), "10_sync"
    )


def test_a_steps_handle_says_which_tables_to_declare(project, tmp_path):
    handle = _handle(tmp_path, "label_events")
    for work in (pull, write_back):
        with pytest.raises(
            ConfigError, match=r'may not write label_sync.*writes = \["label_events", "label_sync"\]'
        ):
            work(project, History(handle), progress=False)


def test_a_draft_pulls_and_writes_back_and_is_published_or_dropped(studio, project, tmp_path, capsys):
    handle = _handle(tmp_path, "label_events", "label_sync")
    history = History(handle)
    push(project, items_of(4), progress=False)
    annotate(studio, project, tasks(project)["i0"], "mlops")
    assert pull(project, history, page=2, progress=False).events == 1
    history.record("i1", "vision", annotator="eva")
    assert write_back(project, history, progress=False).created == 1
    assert labels_now(history) == {"i0": "mlops", "i1": "vision"}
    notices = [line for line in capsys.readouterr().err.splitlines() if "draft" in line]
    assert len(notices) == len(set(notices)) > 0
    handle.discard("label_events")  # and not the table beside it
    assert labels_now(history) == {"i1": "vision"}
    assert pull(project, history, progress=False).events == 1
    history.flush()
    handle.publish()
    again = History(Step(Project(tmp_path), "10_sync"))
    assert labels_now(again) == {"i0": "mlops", "i1": "vision"}
    assert pull(project, again, progress=False).events == 0
    assert write_back(project, again, progress=False).created == 0


def test_a_step_under_the_runner_pulls_and_writes_back(studio, studio_server, project, tmp_path):
    code = f"""from mlworkbench.labels.history import History
from mlworkbench.labels.pull import pull
from mlworkbench.labels.studio import connect
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.labels.write_back import write_back
topics = Taxonomy([Label("nlp", "Text", aliases=("language",)), Label("vision"), Label("mlops")])
project, history = connect("{studio_server.url}").project("{project.title}", topics, ["title"]), History(step)
step.record(pulled=pull(project, history).events)
history.record("i1", "vision", annotator="eva")
step.record(written=write_back(project, history).created, again=write_back(project, history).created)"""
    declared = {"writes": ["label_events", "label_sync"], "secrets": ["LABEL_STUDIO_API_KEY"]}
    write_project(tmp_path, {"name": "10_sync", "code": code.split("\n\n"), **declared})
    push(project, items_of(3), progress=False)
    annotate(studio, project, tasks(project)["i0"], "mlops")
    environ = os.environ | {"LABEL_STUDIO_API_KEY": studio_server.token}
    for pulled in (1, 0):
        status, answer, said = call(tmp_path, "run", "--force", env=environ)
        metrics = step_of(newest_record(tmp_path), "10_sync")["metrics"]
        assert status == 0 and metrics["pulled"] == pulled and metrics["again"] == 0, (answer, said)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert studio_server.token.encode() not in kept


def test_what_was_undone_after_it_was_written_back_is_a_finding(studio, project, history):
    push(project, items_of(3), progress=False)
    events = {item: history.record(item, "vision", annotator="eva") for item in ("i0", "i1")}
    history.record("i2", "nlp", annotator="eva")
    second = history.record("i2", "mlops", annotator="eva")
    write_back(project, history, progress=False)
    for event in (events["i0"], second):
        history.undo(event, annotator="eva")
    for changed in (1, 0):
        done = write_back(project, history, progress=False)
        assert done.findings["check"].to_list() == ["undone_decision"] and done.changed == changed
        assert json.loads(done.findings["evidence"][0])["items"] == ["i0"]
    assert _on_server(project) == {"i0": ["vision"], "i1": ["vision"], "i2": ["nlp"]}
    (made,) = next(tasks_of(project, [tasks(project)["i0"]]))["annotations"]
    delete(studio, f"api/annotations/{made['id']}/")
    assert write_back(project, history, progress=False).findings.is_empty()


def test_predictions_of_a_request_thought_lost_are_not_there_twice(studio, project, monkeypatch):
    push(project, items_of(3), progress=False)
    listed, path, late = pushing.tasks_there, f"api/projects/{project.id}/import/predictions", []

    def overtaken(*args, **more):
        found = listed(*args, **more)
        if not late:  # the dead one's request comes through after the next push has looked
            late.extend(
                {"task": task, "result": result_of(project, ["nlp"]), "score": None, "model_version": "m"}
                for task in found["task"]
            )
            studio.request("POST", path, body=late)
        return found

    monkeypatch.setattr(pushing, "tasks_there", overtaken)
    push(project, items_of(3), predicted(items_of(3)), progress=False)
    found = studio.request("GET", "api/predictions/", {"project": project.id})
    assert sorted(one["task"] for one in found) == sorted(tasks(project).values())


def test_a_pull_that_was_broken_off_tells_what_it_found_before(studio, project, history):
    push(project, items_of(30), progress=False)
    body = {"result": [{**result_of(project, ["nlp"])[0], "value": {"choices": ["langage"]}}]}
    studio.request("POST", f"api/tasks/{tasks(project)['i0']}/annotations/", body=body)
    given = annotate(studio, project, tasks(project)["i1"], "nlp")
    pull(project, history, full=True, progress=False)
    history.record("i1", "vision", annotator="eva")
    change(studio, project, given, "mlops")
    broken = pytest.raises(StudioError, match="20 tasks were read")
    with Proxy(project.studio.url, after(PAGES, 2)) as proxy, through(proxy, project) as shaky, broken:
        pull(shaky, history, full=True, page=10, progress=False)
    rest = pull(project, history, page=10, progress=False)
    assert rest.tasks == 10 and rest.findings["check"].sort().to_list() == ["conflict", "unknown_label"]
    assert pull(project, history, progress=False).findings["check"].to_list() == ["unknown_label"]


def test_what_was_read_well_after_it_changed_is_not_read_again(studio, project, tmp_path, monkeypatch):
    push(project, items_of(6), predicted(items_of(6)), progress=False)
    accept_all(project)
    monkeypatch.setattr(
        pulling, "_newest_change", lambda project: datetime(2020, 1, 1, tzinfo=UTC)
    )  # all are listed
    for hours, again in ((0, 6), (1, 0)):
        history = History(Store(tmp_path / f"{hours}"))
        late = replace(studio, ahead=studio.ahead + timedelta(hours=hours))
        assert pull(replace(project, studio=late), history, page=4, progress=False).tasks == 6
        done = pull(project, history, progress=False)
        assert (done.tasks, done.events) == (again, 0)


@pytest.mark.slow
def test_ten_thousand_items_there_and_back(studio, project, history):
    items = items_of(10_000)
    model = items.select(
        "item", label=pl.Series(["nlp", "vision"] * 5000), score=pl.lit(0.5), model_version=pl.lit("m")
    )
    pushed = push(project, items, model, progress=False)
    assert (pushed.items, pushed.predictions, pushed.there) == (10_000, 10_000, 0)
    again = push(project, items, model, progress=False)
    assert (again.items, again.predictions, again.there) == (0, 0, 10_000)
    accept_all(project)
    pulled = pull(project, history, progress=False)
    assert (pulled.tasks, pulled.events, pulled.findings.height) == (10_000, 10_000, 0)
    assert labels_now(history) == dict(model.select("item", "label").rows())
