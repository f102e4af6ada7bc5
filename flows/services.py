"""Processes kept running side by side: started in turn, said where they are, and all stopped together on Ctrl-C.

It does not know what they are for. A process that others need and that ends by itself ends all of them; one that may
fail for a moment is started again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from components.errors import SetupError, Stopped

HOST = "127.0.0.1"
STOP_SECONDS = 10.0
START_SECONDS = 180.0
RESTART_SECONDS = 5.0
LOOK_SECONDS = 0.3
GONE = 0.0  # when a process began that is not there any more
LIST, ITSELF = "services.json", "itself"
READY = "everything runs; Ctrl-C stops it"
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """One process to start: what it is called, the port on which it answers if it does, and how it is started.

    ``needs`` names a service that must answer first, ``first`` is done before it is started, ``restart`` says to start
    it again when it ends by itself.
    """

    name: str
    port: int | None
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    needs: str = ""
    first: Callable[[], object] = lambda: None
    restart: bool = False

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def answers(self) -> bool:
        """Whether something listens on its port."""
        with socket.socket() as probe:
            return self.port is not None and probe.connect_ex((HOST, self.port)) == 0


def serve(services: Sequence[Service], folder: Path, tick: Callable[[], None] = lambda: None) -> None:
    """Start every service, say where it is once it answers, and stop them all on Ctrl-C or when one ends by itself.

    Args:
        folder: where each one's log goes, and the list of processes by which ``stop_all`` finds them.
        tick: called all the time once everything runs; what it raises ends everything too.
    """
    try:
        with kept(services, folder) as look:
            say(READY)
            while True:
                tick()
                look()
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        say("stopped")


def around(services: Sequence[Service], folder: Path, tick: Callable[[], None], work: Callable[[], T]) -> T:
    """The same for as long as some work takes, which is done in this thread; what it returns.

    Raises:
        Stopped: Ctrl-C, which ends the work too.
        SetupError: a service that the work needs ended by itself.
    """
    fault: list[BaseException] = []
    over = threading.Event()

    def looking(look: Callable[[], None]) -> None:
        try:
            while not over.wait(LOOK_SECONDS):
                tick()
                look()
        except BaseException as error:
            fault.append(error)
            signal.raise_signal(signal.SIGINT)

    try:
        with kept(services, folder) as look:
            beside = threading.Thread(target=looking, args=(look,), daemon=True)
            beside.start()
            try:
                return work()
            finally:
                over.set()
                beside.join(STOP_SECONDS)
    except KeyboardInterrupt as error:
        if fault:
            raise fault[0] from None
        raise Stopped("stopped; type it again, and it goes on with what is left") from error


@contextmanager
def kept(services: Sequence[Service], folder: Path) -> Iterator[Callable[[], None]]:
    """Every service runs inside, and none after it.

    What it gives is to be called often: it looks whether they still do.
    """
    for service in services:
        if service.answers:
            raise SetupError(
                f"port {service.port} is taken and {service.name} needs it; end what holds it (`make down`, if that was"
                " `make up`)"
            )
    running: dict[Service, subprocess.Popen[bytes]] = {}
    ended: dict[Service, float] = {}
    former: list[int] = []  # what one that ended by itself had started may run on, and ends with all the others

    def look() -> None:
        for service, process in list(running.items()):
            if process.poll() is None:
                continue
            if not service.restart:
                raise _ended(service, process, folder)
            if time.monotonic() - ended.setdefault(service, time.monotonic()) >= RESTART_SECONDS:
                say(f"{service.name} ended by itself, status {process.returncode}: starting it again")
                del ended[service]
                former.append(process.pid)
                running[service] = _start(service, folder)
                _note(running, folder)

    with _signals():
        try:
            _note(running, folder)
            say("starting " + " and ".join(service.name for service in services) + " ...")
            _start_all(services, running, folder)
            yield look
        finally:
            # The last one first: what needs another must not see it go.
            for process in reversed(running.values()):
                stop(process.pid)
                process.wait()
            for group in former:
                stop(group)
            (folder / LIST).unlink(missing_ok=True)


def _start_all(services: Sequence[Service], running: dict[Service, subprocess.Popen[bytes]], folder: Path) -> None:
    """All of them, those that need another once that answers."""
    waiting, deadline = list(services), time.monotonic() + START_SECONDS
    pending: list[Service] = []
    while waiting or pending:
        for service in list(waiting):
            if all(other.name != service.needs for other in [*waiting, *pending]):
                waiting.remove(service)
                service.first()
                running[service] = _start(service, folder)
                _note(running, folder)
                if service.port is not None:
                    pending.append(service)
        for service in list(pending):
            if running[service].poll() is not None:
                raise _ended(service, running[service], folder)
            if service.answers:
                pending.remove(service)
                say(f"{service.name:8} {service.address}")
        if time.monotonic() > deadline:
            names = ", ".join(service.name for service in pending)
            raise SetupError(f"{names} did not answer within {START_SECONDS:.0f} s; see {log_of(pending[0], folder)}")
        time.sleep(LOOK_SECONDS)


def _ended(service: Service, process: subprocess.Popen[bytes], folder: Path) -> SetupError:
    return SetupError(f"{service.name} ended by itself, status {process.returncode}; see {log_of(service, folder)}")


def _start(service: Service, folder: Path) -> subprocess.Popen[bytes]:
    with log_of(service, folder).open("ab") as log:
        # A session of its own: Ctrl-C in the terminal reaches this process alone, which then stops the others.
        return subprocess.Popen(
            [sys.executable, *service.command],
            cwd=folder,
            env=os.environ | service.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def stop(pid: int) -> None:
    """End a process that leads a session, kindly first, and then whatever is left of what it started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, kind)
            _wait(pid, STOP_SECONDS)
        except (ProcessLookupError, TimeoutError):
            continue


def _wait(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise TimeoutError


# --- by which others find them ----------------------------------------------------------------------------------------


def _note(running: Mapping[Service, subprocess.Popen[bytes]], folder: Path) -> None:
    """Who was started, told apart from whoever may have the number later by when it began."""
    found: list[tuple[str, int, int | None]] = [(ITSELF, os.getpid(), None)]
    found += [(service.name, process.pid, service.port) for service, process in running.items()]
    said = [{"name": name, "pid": pid, "port": port, "began": _began(pid)} for name, pid, port in found]
    file = folder / LIST
    part = file.with_suffix(".part")
    part.write_text(json.dumps(said, indent=1), encoding="utf-8")
    part.replace(file)


def _began(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        return GONE if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return GONE


def alive(folder: Path) -> list[tuple[str, int]]:
    """Name and pid of what ``serve`` started here and still runs, itself first."""
    try:
        said = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return [(one["name"], one["pid"]) for one in said if _began(one["pid"]) == one["began"] != GONE]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def port_of(folder: Path, name: str) -> int | None:
    """Where a service that ``serve`` started here answers; None if it does not run any more, or not yet."""
    try:
        said = json.loads((folder / LIST).read_text(encoding="utf-8"))
        [one] = [one for one in said if one["name"] == name and _began(one["pid"]) == one["began"] != GONE]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return int(one["port"]) if Service(name, one["port"], ()).answers else None


def stop_all(folder: Path) -> list[str]:
    """Stop exactly what ``serve`` started here, also where it was killed itself; the names of what was stopped."""
    found = alive(folder)
    for name, pid in found:
        if name == ITSELF:
            os.kill(pid, signal.SIGTERM)
            _wait(pid, STOP_SECONDS * 2 * len(found))
    for name, pid in reversed(alive(folder)):  # as ``kept`` does it
        if name != ITSELF:
            stop(pid)
    (folder / LIST).unlink(missing_ok=True)
    return [name for name, _ in found if name != ITSELF]


@contextmanager
def _signals() -> Iterator[None]:
    # Said for SIGINT too: a process that a script puts into the background begins with it ignored.
    before = {kind: signal.signal(kind, signal.default_int_handler) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def log_of(service: Service, folder: Path) -> Path:
    return folder / f"{service.name.lower()}.log"


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
