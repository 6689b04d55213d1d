"A real HTTP server that fails now and then: what is tried again, and that no row is lost or twice."

import json
import threading
import time
import traceback
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import polars as pl
import pytest

from mlworkbench.core.errors import ConfigError, DataError
from mlworkbench.core.store import Store
from mlworkbench.data.sources import by_cursor, by_link, by_number, load, load_new, read_api

ROWS = [{"id": n, "changed": f"2024-01-01 00:{n // 60:02}:{n % 60:02}"} for n in range(95)]


class Api(BaseHTTPRequestHandler):
    "Pages of ten rows; the server's `trouble` says what happens to the n-th request, if anything."

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((time.monotonic(), self.path, dict(self.headers)))
        trouble = server.trouble.get(len(server.asked), server.trouble.get("all"))
        path, query = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
        if trouble:
            return trouble(self)
        rows = [row for row in ROWS if row["changed"] >= query.get("since", "")]
        start = (
            10 * (int(query.get("page", 1)) - 1) + int(query.get("offset", 0)) + int(query.get("cursor", 0))
        )
        page, following = rows[start : start + 10], start + 10 if start + 10 < len(rows) else None
        if path == "/cursor":
            return self.answer({"data": {"rows": page}, "meta": {"next": following}})
        if path == "/address":
            return self.answer({"rows": page, "next": following and f"/address?cursor={following}"})
        link = {"Link": f'<{path}?cursor={following}>; rel="next"'} if path == "/link" and following else {}
        self.answer(page, headers=link)

    def answer(self, body, status=200, headers=None, cut=0, length=True):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content[: len(content) - cut])
        self.close_connection = bool(cut) or not length

    def log_message(self, *_):
        pass


def status(code, **headers):
    return lambda api: api.answer({"error": code}, code, {k.replace("_", "-"): v for k, v in headers.items()})


def drop(api):
    api.close_connection = True
    api.connection.close()


def cut_body(api):
    api.answer(ROWS[:10], cut=30)


def cut_quietly(api):
    api.answer(json.dumps(ROWS[:10]).encode()[:-30], length=False)


@contextmanager
def serving(trouble=None, handler=Api):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked, server.trouble = [], trouble or {}
    server.handle_error = lambda *_: None  # connections that we drop ourselves
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ids(api):
    return pl.concat(api)["id"].to_list()


@pytest.mark.parametrize(
    ("path", "rows", "paging"),
    [
        ("/number", "", by_number()),
        ("/offset", "", by_number("offset", 0, 10)),
        ("/cursor", "data.rows", by_cursor("meta.next", "cursor")),
        ("/address", "rows", by_cursor("next")),
        ("/link", "", by_link()),
    ],
)
def test_every_way_of_paging_gives_every_row_once_in_spite_of_failures(path, rows, paging):
    trouble = {
        1: status(500),
        3: status(429, Retry_After="0"),
        5: drop,
        7: cut_body,
        9: cut_quietly,
        10: status(503),
    }
    with serving(trouble) as server:
        assert ids(read_api(server.url + path, rows, paging, pause_s=0.01)) == list(range(95))
        assert len(server.asked) >= 16


@pytest.mark.parametrize("value", ["1", "date"])
def test_retry_after_is_honoured(value):
    value = formatdate(time.time() + 2, usegmt=True) if value == "date" else value
    with serving({1: status(429, Retry_After=value)}) as server:
        ids(read_api(server.url, pause_s=0.001))
        assert server.asked[1][0] - server.asked[0][0] >= 0.95


def test_who_is_told_to_wait_for_hours_does_not():
    with serving({"all": status(503, Retry_After="7200")}) as server:
        with pytest.raises(DataError, match="asks to wait 7,200 s"):
            ids(read_api(server.url))
        assert len(server.asked) == 1


def test_pauses_double():
    with serving({1: status(500), 2: status(502), 3: drop}) as server:
        ids(read_api(server.url, pause_s=0.1))
        times = [at for at, _, _ in server.asked]
        pauses = [b - a for a, b in pairwise(times)]
        assert len(pauses) == 3 and all(pause >= 0.05 * 2**n for n, pause in enumerate(pauses))


@pytest.mark.parametrize(("code", "asked"), [(401, 1), (403, 1), (404, 1), (400, 1), (500, 3), (429, 3)])
def test_what_fails_for_good(tmp_path, code, asked):
    store = Store(tmp_path)
    store.write("t", pl.DataFrame({"id": [1]}))
    with serving({"all": status(code)}) as server:
        with pytest.raises(DataError, match=f"status {code}"):
            load(store, "t", read_api(server.url, retries=2, pause_s=0.001))
        assert len(server.asked) == asked
    assert store.version("t") == 0


def test_a_server_that_fails_on_a_late_page_leaves_the_table(tmp_path):
    store = Store(tmp_path)
    store.write("t", pl.DataFrame({"id": [1]}))
    trouble = dict.fromkeys(range(6, 20), drop)
    with serving(trouble) as server, pytest.raises(DataError, match="3 attempts"):
        load(
            store,
            "t",
            read_api(server.url + "/number", paging=by_number(), retries=2, pause_s=0.001),
            evolve=True,
        )
    assert store.version("t") == 0


def test_no_server():
    with serving() as server:
        url = server.url
    with pytest.raises(DataError, match="ConnectError"):
        ids(read_api(url, retries=1, pause_s=0.001))


def test_page_limit_and_loops():
    with serving() as server:
        with pytest.raises(DataError, match="more than 3 pages"):
            ids(read_api(server.url + "/number", paging=by_number(), page_limit=3))
        with pytest.raises(DataError, match="that it gave before"):
            ids(read_api(server.url, paging=lambda body, response, params, rows: params))


def test_secrets_stay_on_their_server_and_out_of_messages(monkeypatch):
    monkeypatch.setenv("API_AUTH", "Bearer open-sesame")

    def echo(api):
        api.answer({"you sent": api.headers["Authorization"], "and": api.path}, 400)

    def elsewhere(api):
        api.answer(ROWS[:1], headers={"Link": '<http://localhost:9/next>; rel="next"'})

    def redirect(api):
        api.answer([], 302, {"Location": "http://localhost:9/"})

    for trouble, said in [(echo, "status 400"), (elsewhere, "another server"), (redirect, "status 302")]:
        with serving({"all": trouble}) as server:
            headers, params = {"Authorization": "env:API_AUTH"}, {"api_key": "hush-hush"}
            api = read_api(server.url, paging=by_link(), params=params, headers=headers)
            with pytest.raises(DataError, match=said) as caught:
                ids(api)
            assert server.asked[0][2]["Authorization"] == "Bearer open-sesame"
        told = repr(api) + "".join(traceback.format_exception(caught.value))
        assert "sesame" not in told and (trouble is not echo or "***" in str(caught.value))
        assert "hush" not in str(caught.value)
    monkeypatch.delenv("API_AUTH")
    with pytest.raises(ConfigError, match="API_AUTH"):
        ids(api)


def test_secrets_in_an_address_are_shown_nowhere():
    def echo(api):
        api.answer({"you asked": api.path}, 400)

    def again(api):
        api.answer([], headers={"Link": '</rows?api_key=hush-hush>; rel="next"'})

    def half(api):
        api.answer({"rows": []})

    key = "ab12cd34ef56ab12cd34ef56"
    for trouble, said in [
        (echo, "status 400"),
        (again, "before"),
        (half, "list of objects"),
        (drop, "attempts"),
    ]:
        with serving({"all": trouble}) as server:
            url = server.url.replace("://", "://user:open%20sesame@") + "/rows?api_key=hush-hush&lang=en"
            api = read_api(
                url, paging=by_link(), params={"token": "abracadabra", "x": key}, retries=1, pause_s=0.01
            )
            with pytest.raises(DataError, match=said) as caught:
                ids(api)
            assert server.asked[0][2]["Authorization"].startswith("Basic ")
        told = repr(api) + repr(caught.value.facts) + "".join(traceback.format_exception(caught.value))
        assert "lang=en" in repr(api) and "127.0.0.1" in str(caught.value)
        for secret in ("sesame", "hush", "abracadabra", key):
            assert secret not in told


def test_json_that_python_would_take_for_something_else():
    for body, said in [(b'[{"x": 1e999}]', "beyond 64 bits"), (b'[{"x": 1, "x": 2}]', "'x' occurs more")]:
        with serving({"all": lambda api, body=body: api.answer(body)}) as server:
            with pytest.raises(DataError, match=said):
                list(read_api(server.url))
            assert len(server.asked) == 1
    with pytest.raises(ConfigError, match="retries=-1"):
        read_api("http://localhost/", retries=-1)


def test_answers_of_the_wrong_form():
    with (
        serving({"all": lambda api: api.answer(b"<html>")}) as server,
        pytest.raises(DataError, match="is not JSON"),
    ):
        ids(read_api(server.url, retries=1, pause_s=0.001))
    with serving({"all": lambda api: api.answer({"items": []})}) as server:
        with pytest.raises(DataError, match="not a list of objects"):
            ids(read_api(server.url))
        with pytest.raises(DataError, match="Did you mean 'items'"):
            ids(read_api(server.url, "item"))
    mixed = [{"id": 1}, {"id": "two"}]
    with serving({"all": lambda api: api.answer(mixed)}) as server:
        with pytest.raises(DataError, match=r"whole number \(page 1, item 1\) and text \(page 1, item 2\)"):
            ids(read_api(server.url))
        with pytest.raises(DataError, match=r"page 1, item 2: id: 'two' \(text\) is not a Int64"):
            ids(read_api(server.url, schema={"id": pl.Int64}))


def test_incremental(tmp_path):
    store = Store(tmp_path)
    with serving() as server:
        api = read_api(server.url + "/number?lang=en", paging=by_number(), since_param="since")
        assert load_new(store, "t", api, watermark="changed", keys=["id"]).rows == 95
        assert load_new(store, "t", api, watermark="changed", keys=["id"]).rows == 0
        last = server.asked[-1][1]
        assert "lang=en" in last and "since=2024-01-01+00%3A01%3A34" in last
    with pytest.raises(DataError, match="since_param="):
        load_new(store, "t", read_api(server.url), watermark="changed", keys=["id"])
