"""Prefect is told of each move once, in its own words; where it cannot be told nothing but a warning comes of it."""

from __future__ import annotations

import base64
import json
import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flows.orchestration import events as announce
from registry.protocol import Version
from registry.release_log import Action, Release
from registry.releases.lifecycle import ReleaseResult
from tests.servers.listener import listening as serving

ROOT = Path(__file__).parents[3]
KEYS = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")


class Receiver:
    """A server that keeps what it is sent: path, headers and body of each request."""

    def __init__(self, url: str) -> None:
        self.url, self.status = url, 204
        self.got: list[tuple[str, Message, Any]] = []

    @property
    def event(self) -> Any:
        """The one event that was sent."""
        ((_, _, events),) = self.got
        (event,) = events
        return event


@pytest.fixture(autouse=True)
def _nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say where Prefect is."""
    return lambda url: monkeypatch.setenv("PREFECT_API_URL", url)


@pytest.fixture
def listening() -> Iterator[Receiver]:
    """A receiver that nobody was told of."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append((self.path, self.headers, json.loads(body)))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serving(Handler) as address:
        made = Receiver(f"{address}/api")
        yield made


@pytest.fixture
def receiver(listening: Receiver, name_server: Callable[[str], None]) -> Receiver:
    """The Prefect server of this test."""
    name_server(listening.url)
    return listening


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """``answering(b"...")``: the address of a server that says just this to whoever comes first, and then nothing."""
    listeners, threads = [], []

    def serve(reply: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def once() -> None:
            connection, _ = listener.accept()
            connections.append(connection)
            connection.recv(65536)
            connection.sendall(reply)

        listeners.append(listener)
        threads.append(Thread(target=once, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/api"

    connections: list[socket.socket] = []
    yield serve
    for thread in threads:
        thread.join(5)
    for each in (*connections, *listeners):
        each.close()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was warned of."""
    caplog.set_level(logging.WARNING, logger="preface.announce")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "preface.announce"]


def moved(action: Action = "promote", previous: int | None = 1, changed: bool = True, **facts: str) -> ReleaseResult:
    now = datetime(2026, 11, 23, 20, tzinfo=UTC)
    version = Version("mood", 2, "Production", {}, "run", "somewhere", now, ready=True, aliases=())
    said = {"who": "ada", "host": "spare", "when": now.isoformat(), "reason": "better", "git_commit": ""} | facts
    return ReleaseResult(version, previous, Release(action, 2, 1, "", **said), changed=changed)


@pytest.mark.parametrize(
    ("action", "event"),
    [("promote", "preface.promotion"), ("adopt", "preface.promotion"), ("rollback", "preface.rollback")],
)
def test_a_move_is_one_event_that_says_who_moved_what_and_why(receiver: Receiver, action: Action, event: str) -> None:
    announce.moved(moved(action, override="the gate refused it"))

    ((path, headers, _),) = receiver.got
    assert path == "/api/events"
    assert headers["Content-Type"] == "application/json"
    said = receiver.event
    uuid.UUID(said.pop("id"))
    assert abs(datetime.now(UTC) - datetime.fromisoformat(said.pop("occurred"))) < timedelta(minutes=1)
    assert said == {
        "event": event,
        "resource": {"prefect.resource.id": "preface.task.mood", "prefect.resource.name": "mood"},
        "payload": {
            "task": "mood",
            "version": "2",
            "previous": "1",
            "action": action,
            "by": "ada@spare",
            "reason": "better",
            "override": "the gate refused it",
        },
    }


def test_the_first_promotion_has_no_previous_version(receiver: Receiver) -> None:
    announce.moved(moved(previous=None))
    assert receiver.event["payload"]["previous"] == ""


def test_where_nothing_changed_nothing_is_told(receiver: Receiver) -> None:
    announce.moved(moved(changed=False))
    assert receiver.got == []


def test_two_moves_are_two_events_that_nobody_takes_for_one(receiver: Receiver) -> None:
    announce.moved(moved())
    announce.moved(moved("rollback"))
    events = [events[0] for _, _, events in receiver.got]
    assert [event["event"] for event in events] == [announce.PROMOTION, announce.ROLLBACK]
    assert events[0]["id"] != events[1]["id"]


def test_anything_else_is_told_with_its_task(receiver: Receiver) -> None:
    announce.tell(announce.DATA_UPDATED, "mood", {"rows": "120"})
    assert receiver.event["event"] == "preface.data.updated"
    assert receiver.event["payload"] == {"task": "mood", "rows": "120"}


def test_prefect_reads_the_event_as_one_of_its_own(receiver: Receiver) -> None:
    from prefect.events.schemas.events import Event

    announce.moved(moved(reason="„besser“ \u2014 sagt Ada\n"))
    read = Event.model_validate_json(json.dumps(receiver.event))
    assert (read.event, read.resource.id, read.resource.name) == ("preface.promotion", "preface.task.mood", "mood")
    assert read.payload["reason"] == "„besser“ \u2014 sagt Ada\n"
    with pytest.raises(ValueError, match=r"prefect\.resource\.id"):
        Event.model_validate({**receiver.event, "resource": {"prefect.resource.name": "mood"}})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "pnu_1"}, "Bearer pnu_1"),
        ({"PREFECT_API_AUTH_STRING": "ada:löve"}, f"Basic {base64.b64encode('ada:löve'.encode()).decode()}"),
        ({"PREFECT_API_KEY": "", "PREFECT_API_AUTH_STRING": ""}, None),
        ({"PREFECT_API_KEY": "pnu_1", "PREFECT_API_AUTH_STRING": "a:b"}, "Basic YTpi"),
    ],
    ids=str,
)
def test_it_says_who_it_is_as_prefects_own_client_does(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    announce.moved(moved())
    ((_, headers, _),) = receiver.got
    assert headers["Authorization"] == expected


def test_prefects_own_client_says_who_it_is_in_the_same_words() -> None:
    from prefect.client.orchestration import SyncPrefectClient

    def header(**who: str) -> str | None:
        with SyncPrefectClient("http://127.0.0.1:9/api", **who) as client:
            return client._client.headers.get("Authorization")

    assert header(api_key="pnu_1") == "Bearer pnu_1"
    assert header(auth_string="ada:löve") == f"Basic {base64.b64encode('ada:löve'.encode()).decode()}"
    assert header(auth_string="a:b", api_key="pnu_1") == "Basic YTpi"


def test_a_slash_at_the_end_of_the_address_is_no_other_address(
    receiver: Receiver, name_server: Callable[[str], None]
) -> None:
    name_server(receiver.url + "/")
    announce.moved(moved())
    assert [path for path, _, _ in receiver.got] == ["/api/events"]


@pytest.mark.parametrize("url", [None, ""])
def test_where_no_server_is_named_nothing_is_sent(
    listening: Receiver,
    name_server: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    warned: Callable[[], list[str]],
    url: str | None,
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **_: opened.append(given))
    if url is not None:
        name_server(url)
    announce.moved(moved())
    assert (opened, listening.got, warned()) == ([], [], [])


@pytest.mark.parametrize("status", [401, 404, 422, 500])
def test_a_server_that_refuses_is_a_warning_and_is_not_asked_twice(
    receiver: Receiver, warned: Callable[[], list[str]], status: int
) -> None:
    receiver.status = status
    announce.moved(moved())
    assert len(receiver.got) == 1
    (line,) = warned()
    assert line.startswith(f"Prefect at {receiver.url} was not told of preface.promotion of mood: HTTP Error {status}")


def test_a_server_that_is_not_there_is_a_warning(
    name_server: Callable[[str], None], free_port: Callable[[], int], warned: Callable[[], list[str]]
) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    name_server(url)
    announce.moved(moved("rollback"))
    (line,) = warned()
    assert line.startswith(f"Prefect at {url} was not told of preface.rollback of mood: ")
    assert "refused" in line


def test_a_server_that_never_answers_costs_no_more_than_its_time(
    name_server: Callable[[str], None],
    answering: Callable[[bytes], str],
    warned: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert announce.SECONDS <= 5
    monkeypatch.setattr(announce, "SECONDS", 0.3)
    name_server(answering(b""))
    began = time.monotonic()
    announce.moved(moved())
    assert 0.3 <= time.monotonic() - began < 3
    (line,) = warned()
    assert "timed out" in line


@pytest.mark.parametrize(
    "url",
    [
        "http://", "file:///nowhere", "localhost:4200/api", "http://127.0.0.1:9/ä", f"http://{'a' * 70}.invalid/api",
        "127.0.0.1:4200/api", "http://[::1/api", "http://host:port/api", "http://127.0.0.1:4200/my api",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_a_warning(
    name_server: Callable[[str], None], warned: Callable[[], list[str]], url: str
) -> None:
    name_server(url)
    announce.moved(moved())
    assert [line.startswith(f"Prefect at {url} was not told of preface.promotion") for line in warned()] == [True]


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"], ids=["ssh", "endless"]
)
def test_what_does_not_speak_http_is_a_warning(
    name_server: Callable[[str], None],
    answering: Callable[[bytes], str],
    warned: Callable[[], list[str]],
    reply: bytes,
) -> None:
    name_server(answering(reply))
    announce.moved(moved())
    assert len(warned()) == 1


def test_a_key_that_no_header_can_hold_is_a_warning(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_1\n")
    announce.moved(moved())
    assert receiver.got == []
    assert len(warned()) == 1


def test_importing_it_imports_neither_prefect_nor_mlflow(tmp_path: Path) -> None:
    heavy = {"prefect", "mlflow", "httpx", "requests"}
    code = f"import sys, flows.orchestration.events; print(*sorted({heavy} & set(sys.modules)))"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
