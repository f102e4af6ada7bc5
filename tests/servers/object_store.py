"""An S3 server with planted faults: a proxy before moto's server, which speaks the protocol and fails as it is told.

Knows nothing of Preface. What is planted is what networks and object stores do: connections that end in the middle of a
body, bursts of errors, keys that are not accepted. What nobody planted passes unchanged.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

ALWAYS = 10**9
# As S3 words them.
ANSWERS = {
    403: ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Fault:
    """What befalls the next ``times`` requests of a method (any if empty) for a key that contains ``key``.

    ``what`` is a status to answer, or "cut": the connection ends after half of a body, the request's or the answer's.
    """

    what: int | str
    method: str
    key: str
    times: int


@dataclass
class FaultyStore:
    """An object store at ``url``; ``asked`` is what was asked of it, refused or not."""

    url: str
    asked: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def plant(self, what: int | str, method: str = "", key: str = "", times: int = ALWAYS) -> None:
        self.faults.append(Fault(what, method, key, times))

    def heal(self) -> None:
        """Whoever asks from now on is served."""
        self.faults.clear()

    def next_fault(self, method: str, path: str) -> int | str:
        with self._lock:
            self.asked.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and fault.key in path:
                    fault.times -= 1
                    return fault.what
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FaultyStore
    behind: str

    def handle_request(self) -> None:
        fault = self.store.next_fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut" and length:
            self.rfile.read(length // 2)
            self._hang_up()
            return
        if self.headers.get("Expect", "").lower() == "100-continue" and isinstance(fault, int):
            self.close_connection = True  # whoever waits for leave sends no body now
            length = 0
        body = self.rfile.read(length)
        if isinstance(fault, int):
            self._refuse(fault)
            return
        connection = http.client.HTTPConnection(self.behind, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP | {"expect"}}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP | {"content-length", "server", "date"}:
                self.send_header(name, value)
        size = str(len(content)) if self.command != "HEAD" else answer.getheader("Content-Length") or "0"
        self.send_header("Content-Length", size)
        self.end_headers()
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
        elif self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def _refuse(self, status: int) -> None:
        code, said = ANSWERS[status]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients hang up too."""


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore tries as often as ever, and waits no seconds in between."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)


@pytest.fixture
def faulty_store(bucket: Any, _object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The store of the fixture ``bucket``, asked through a proxy from now on; the bucket itself sees no fault."""
    server = _Server(("127.0.0.1", 0), _Handler)
    made = FaultyStore(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"store": made, "behind": urlsplit(_object_store).netloc})
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
