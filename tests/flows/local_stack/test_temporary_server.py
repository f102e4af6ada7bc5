"""The Prefect server of one command: it ends with the command, however that ends, and its faults are one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from components.errors import SetupError
from flows.local_stack import temporary_server
from flows.process import process_list
from tests.conftest import Site

ROOT = Path(__file__).parents[3]
COMMAND = """
import sys, time
from pathlib import Path
from flows.local_stack import temporary_server
with temporary_server.at_hand(Path.cwd()):
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        client.read_flows()
    from prefect.utilities.urls import url_for
    assert url_for("flow-run", "11111111-1111-4111-8111-111111111111") is None, "it has no page"
    print("asked", flush=True)
    if sys.argv[1:] == ["waits"]:
        time.sleep(600)
"""


def environment(folder: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return plain | {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT)}


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def servers(folder: Path) -> list[psutil.Process]:
    """Every process that has the folder's database for its own."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT_HOME") == str(folder / "prefect") and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def awaited_none(folder: Path, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not servers(folder):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.flow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_leaves_no_server(tmp_path: Path, kind: signal.Signals) -> None:
    with command(tmp_path, "waits") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        assert len(servers(tmp_path)) == 2, "the command and one server"
        process.send_signal(kind)
        process.wait()

        assert awaited_none(tmp_path)


@pytest.mark.flow
def test_a_command_that_ends_leaves_neither_server_nor_files(tmp_path: Path) -> None:
    with command(tmp_path) as process:
        out, _ = process.communicate(timeout=250)

    assert (out, process.returncode) == ("asked\n", 0)
    assert servers(tmp_path) == []
    assert list((tmp_path / temporary_server.FOLDER).iterdir()) == []


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_the_next_command_ends_servers_that_are_nobodys(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Where the system does not end them with their command."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = tmp_path / temporary_server.FOLDER / str(dead.pid)
    folder.mkdir(parents=True)
    process_list.note([("Prefect", sleeper.pid, None)], folder)
    file = folder / process_list.LIST
    file.write_text(file.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {dead.pid}'))

    assert temporary_server.sweep(tmp_path) == ["Prefect"]

    assert sleeper.wait(10) != 0
    assert not folder.exists()


def test_those_of_commands_that_run_are_left_alone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    theirs = tmp_path / temporary_server.FOLDER / str(os.getpid())
    begins = tmp_path / temporary_server.FOLDER / str(sleeper.pid)  # it has not written its list yet
    for folder in (theirs, begins):
        folder.mkdir(parents=True)
    process_list.note([("Prefect", sleeper.pid, None)], theirs)

    assert temporary_server.sweep(tmp_path) == []

    assert sleeper.poll() is None
    assert theirs.exists()
    assert begins.exists()


def test_a_process_that_has_the_number_of_a_dead_one_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    folder = tmp_path / temporary_server.FOLDER / "99999999"
    folder.mkdir(parents=True)
    process_list.note([("Prefect", sleeper.pid, None)], folder)
    file = folder / process_list.LIST
    file.write_text(file.read_text().replace('"began": ', '"began": 1'))

    assert temporary_server.sweep(tmp_path) == []

    assert sleeper.poll() is None
    assert not folder.exists()


def server_that(patch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """What is started in a server's place."""
    real = subprocess.Popen

    def instead(arguments: list[str], **options: object) -> object:
        return real([sys.executable, "-c", code, *arguments[3:]], **options)  # type: ignore[call-overload]

    patch.setattr(temporary_server.subprocess, "Popen", instead)  # type: ignore[attr-defined]


def test_one_that_does_not_start_is_told_by_the_last_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; print('Traceback ...'); sys.exit('sqlite3.OperationalError: disk I/O error')"
    server_that(monkeypatch, tmp_path, code)

    with pytest.raises(SetupError, match=r"does not start, status 1: sqlite3.OperationalError: disk I/O error") as told:
        temporary_server._start(tmp_path)

    assert "\n" not in str(told.value)
    assert list((tmp_path / temporary_server.FOLDER).iterdir()) == []


def test_one_that_is_too_slow_is_told_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_that(monkeypatch, tmp_path, "import time; print('making tables', flush=True); time.sleep(600)")
    monkeypatch.setattr(temporary_server, "SECONDS", 3.0)

    with pytest.raises(SetupError, match=r"did not answer within 3 s .*try again.*`make up`"):
        temporary_server._start(tmp_path)

    assert not any("time.sleep" in " ".join(child.cmdline()) for child in psutil.Process().children())


def test_a_port_that_somebody_took_meanwhile_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.exit('[Errno 98] error while attempting to bind: address already in use')"
    server_that(monkeypatch, tmp_path, code)
    asked: list[int] = []
    port = temporary_server.supervisor.free_port
    monkeypatch.setattr(temporary_server.supervisor, "free_port", lambda: asked.append(port()) or asked[-1])

    with pytest.raises(SetupError, match="address already in use"):
        temporary_server._start(tmp_path)

    assert len(asked) == temporary_server.TRIES


NAMED = """
from pathlib import Path
from components.errors import PrefaceError
from flows.local_stack import temporary_server
try:
    with temporary_server.at_hand(Path.cwd()):
        print("begun")
except PrefaceError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:9/api", "does not answer (ConnectError"),
        ("http://127.0.0.1:port/api", "no address of a server"),
        ("me:secret@127.0.0.1:4200/api", "PREFECT_API_URL=***@127.0.0.1:4200/api is no address of a server"),
        ("{site}/page", "is no Prefect server of this version"),
        ("{site}/other", "Major versions must match"),
        ("{site}/closed", "answered 401: ; set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"),
    ],
)
def test_a_server_that_is_named_and_is_none_is_told_before_a_run(
    tmp_path: Path, site: Site, address: str, told: str
) -> None:
    site.put("/page/admin/version", b"<html>Prefect</html>")
    site.put("/other/admin/version", b'"1.4.0"')
    site.put("/closed/admin/version", status=401)
    named = environment(tmp_path) | {"PREFECT_API_URL": address.format(site=site.url)}

    done = subprocess.run([sys.executable, "-c", NAMED], cwd=tmp_path, env=named, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "secret" not in done.stdout
