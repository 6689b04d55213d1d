"""Label Studio: 10,000 items with predictions there, 10,000 annotations back, beside the SDK's own calls on one server.

Run by `make bench`, or `python tests/benches/bench_studio.py [items]`. A server of its own, in its own process; each work is
measured in a process of its own, its memory is told above what the imports take. Answers are checked before times are told.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from measure import peak

from mlworkbench.core.store import Store
from mlworkbench.labels.history import History
from mlworkbench.labels.pull import pull
from mlworkbench.labels.push import push, result_of, tasks_there
from mlworkbench.labels.server import start_server, stop_server
from mlworkbench.labels.studio import connect
from mlworkbench.labels.taxonomy import Label, Taxonomy
from mlworkbench.labels.write_back import write_back

TOPICS = Taxonomy([Label("nlp"), Label("vision"), Label("mlops"), Label("other")])
FEW = 100  # of what the SDK does one by one


def items_of(count):
    words = "a project that learns something from data and says what it found "
    texts = [f"{words * 3} {n}" for n in range(count)]
    return pl.DataFrame({"item": [f"i{n}" for n in range(count)], "title": texts})


def model_of(items, version="m1"):
    labels = pl.Series([TOPICS.names[n % 4] for n in range(items.height)])
    return items.select("item", label=labels, score=pl.lit(0.7), model_version=pl.lit(version))


def ours(studio, name, count, folder):
    return studio.project(f"{name} {count}", TOPICS, ["title"]), History(Store(folder))


def work_push(project, history, count):
    done = push(project, items_of(count), model_of(items_of(count)), progress=False)
    assert (done.items, done.predictions) == (count, count)


def work_push_again(project, history, count):
    done = push(project, items_of(count), model_of(items_of(count)), progress=False)
    assert (done.items, done.predictions, done.there) == (0, 0, count)


def work_predictions(project, history, count):
    assert (
        push(project, items_of(count), model_of(items_of(count), "m2"), progress=False).predictions == count
    )


def work_pull(project, history, count):
    done = pull(project, history, progress=False)
    assert done.events == count == history.current().height


def work_pull_again(project, history, count):
    assert pull(project, history, progress=False).events == 0


def work_write_back(project, history, count):
    assert write_back(project, history, progress=False).created == history.current().height == 1000


def work_sdk_push(project, history, count):
    body = [
        {
            "data": {"title": title},
            "predictions": [{"result": result_of(project, [label]), "score": 0.7, "model_version": "m1"}],
        }
        for title, label in zip(items_of(count)["title"], model_of(items_of(count))["label"], strict=True)
    ]
    done = project.studio.client.projects.import_tasks(
        project.id, request=body, request_options={"timeout": 600}
    )
    assert done.task_count == done.prediction_count == count


def work_sdk_pull(project, history, count):
    tasks = project.studio.client.tasks.list(
        project=project.id, page_size=500, request_options={"timeout": 600}
    )
    assert sum(len(task.annotations) for task in tasks) == count


def work_sdk_export(project, history, count):
    tasks = project.studio.client.projects.exports.as_json(project.id, timeout=600)
    assert sum(len(task["annotations"]) for task in tasks) == count


def work_sdk_create(project, history, count):
    for task in tasks_there(project)["task"].head(FEW):
        project.studio.client.annotations.create(task, result=result_of(project, ["nlp"]))


def work_nothing(project, history, count):
    pass


def main_one(url, name, work, count, folder):
    "One work in this process: seconds and peak memory."
    with connect(url) as studio:
        project, history = ours(studio, name, count, folder)
        start = time.perf_counter()
        globals()[f"work_{work}"](project, history, count)
        print(json.dumps([time.perf_counter() - start, peak()]))


def measured(server, name, work, count, folder):
    command = [sys.executable, __file__, "--one", server.url, name, work, str(count), str(folder)]
    done = subprocess.run(
        command, env={"LABEL_STUDIO_API_KEY": server.token, "PATH": ""}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def annotate_all(server, name, count):
    with connect(server.url, server.token) as studio:
        project = studio.project(f"{name} {count}", TOPICS, ["title"])
        chosen = {"selectedItems": {"all": True, "excluded": []}, "model_version": "m1"}
        action = {"id": "predictions_to_annotations", "project": project.id}
        studio.request("POST", "api/dm/actions", action, chosen)


def told(name, seconds, memory, base, count, note=""):
    print(
        f"{name:46} {seconds:7.1f} s {count / seconds:8,.0f}/s {memory - base:6,.0f} MB  {note}", flush=True
    )


def main(count):
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder, "studio"))
        try:
            bench(server, count, folder)
        finally:
            stop_server(Path(folder, "studio"))


def bench(server, count, folder):
    base = measured(server, "ours", "nothing", count, Path(folder, "none"))[1]
    print(
        f"Label Studio, {count:,} items with a prediction each; memory above the {base:,} MB of the imports"
    )
    for size in (count // 5, count):  # a fifth: memory does not grow with the items
        store = Path(folder, f"store-{size}")
        for work in ("push", "push_again", "predictions"):
            told(f"{work} ({size:,})", *measured(server, "ours", work, size, store), base, size)
        annotate_all(server, "ours", size)
        for work in ("pull", "pull_again"):
            told(f"{work} ({size:,})", *measured(server, "ours", work, size, store), base, size)
    told("SDK: tasks.list", *measured(server, "ours", "sdk_pull", count, store), base, count)
    told("SDK: exports.as_json", *measured(server, "ours", "sdk_export", count, store), base, count)
    told("SDK: import_tasks, one call", *measured(server, "sdk", "sdk_push", count, store), base, count)
    told("SDK: annotations.create", *measured(server, "sdk", "sdk_create", count, store), base, FEW)
    store = Path(folder, "decisions")
    with connect(server.url, server.token) as studio:
        project, history = ours(studio, "written", 1000, store)
        push(project, items_of(1000), progress=False)
    for item in items_of(1000)["item"]:
        history.record(item, "nlp", annotator="eva")
    told("write_back (1,000)", *measured(server, "written", "write_back", 1000, store), base, 1000)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        url, name, work, count, folder = sys.argv[2:]
        main_one(url, name, work, int(count), folder)
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
