"""A TCP proxy between a client and a Label Studio that can lose what it carries; small helpers of studio tests."""

import re
import socket
import threading
from contextlib import closing, suppress


class Proxy:
    "Carries HTTP/1.1 to `url`. `plan(request line)` says what becomes of a request: pass, cut, lose, hold, or an answer."

    def __init__(self, url, plan=lambda line: "pass"):
        self.target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.plan, self.lines = plan, []
        self.reached, self.release = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.release.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(30)

    def _accept(self):
        with suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.threads.append(threading.Thread(target=self._serve, args=[client], daemon=True))
                self.threads[-1].start()

    def _serve(self, client):
        with closing(client), suppress(OSError), socket.create_connection(self.target) as server:
            while (request := self._message(client)) and self._carry(client, server, request):
                pass

    def _carry(self, client, server, request):
        line = request.partition(b"\r\n")[0].decode()
        self.lines.append(line)
        fate = self.plan(line)
        if isinstance(fate, bytes):  # the server is not asked
            client.sendall(fate)
            return True
        if fate == "cut":  # half of it arrives
            server.sendall(request[: len(request) // 2])
            return False
        if fate == "hold":  # until the test has done what it wants meanwhile
            self.reached.set()
            self.release.wait(60)
        server.sendall(request)
        answer = self._message(server)
        if fate == "lose":
            return False
        client.sendall(answer)
        return True

    @staticmethod
    def _message(source):  # headers and body of one request or answer
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := source.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        parts, missing = [data], int(length[1] if length else 0) - len(body)
        while missing > 0:
            if not (more := source.recv(65536)):
                return b""
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)


def answer(status, body=b""):
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def once(word, fate, number=1):
    "A plan: the nth request whose line holds a word gets a fate, all others pass."
    seen = []

    def plan(line):
        if not re.search(word, line):
            return "pass"
        seen.append(line)
        return fate if len(seen) == number else "pass"

    return plan


def after(word, number):
    "A plan: what holds a word is cut, but for the first ones."
    seen = []

    def plan(line):
        seen.extend([line] if re.search(word, line) else [])
        return "cut" if re.search(word, line) and len(seen) > number else "pass"

    return plan
