"""Processes kept running side by side: started in turn, said where they are, and all stopped together on Ctrl-C.

It does not know what they are for. A process that others need and that ends by itself ends all of them; one that may
fail for a moment is started again.
"""

from __future__ import annotations

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

from components.errors import SetupError, Stopped
from flows.process.process_list import HOST, STOP_SECONDS, forget, listening, note, stop

START_SECONDS = 180.0
RESTART_SECONDS = 5.0
LOOK_SECONDS = 0.3
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
        return listening(self.port)


def serve(services: Sequence[Service], folder: Path, tick: Callable[[], None] = lambda: None) -> None:
    """Start every service, say where it is once it answers, and stop them all on Ctrl-C or when one ends by itself.

    Args:
        folder: where each one's log goes, and the list by which others find them (``flows.process.process_list``).
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
                _noted(running, folder)

    with _signals():
        try:
            _noted(running, folder)
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
            forget(folder)


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
                _noted(running, folder)
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


def _noted(running: Mapping[Service, subprocess.Popen[bytes]], folder: Path) -> None:
    note([(service.name, process.pid, service.port) for service, process in running.items()], folder)


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
