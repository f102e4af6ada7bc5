"""What was started here and still runs: a list on disk by which other commands find processes and stop them.

A process is told apart from whoever may have its number later by when it began, counted from the start of the machine:
that does not move when the clock is set. It does not know what they are for, nor who starts them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from components.errors import SetupError
from components.io import atomic

HOST = "127.0.0.1"
STOP_SECONDS = 10.0
LIST, ITSELF = "services.json", "itself"


def note(started: Sequence[tuple[str, int, int | None]], folder: Path) -> None:
    """Name, pid and port of each that was started, after those of the process that says so."""
    said = [
        {"name": name, "pid": pid, "port": port, "began": began(pid)}
        for name, pid, port in [(ITSELF, os.getpid(), None), *started]
    ]
    atomic.write_text(folder / LIST, json.dumps(said, indent=1))


def forget(folder: Path) -> None:
    (folder / LIST).unlink(missing_ok=True)


def alive(folder: Path) -> list[tuple[str, int]]:
    """Name and pid of what was started here and still runs, itself first."""
    return [(name, pid) for name, pid, _ in _running(folder)]


def port_of(folder: Path, name: str) -> int | None:
    """Where what was started here under this name answers; None if it does not run any more, or not yet."""
    ports = [port for one, _, port in _running(folder) if one == name]
    return ports[0] if len(ports) == 1 and listening(ports[0]) else None


def _running(folder: Path) -> list[tuple[str, int, int | None]]:
    try:
        said = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return [(one["name"], one["pid"], one["port"]) for one in said if began(one["pid"]) == one["began"] is not None]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def began(pid: int) -> float | None:
    """Seconds from the start of the machine to that of a process, in hundredths; None if it does not run."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return round(process.create_time() - psutil.boot_time(), 2)
    except psutil.NoSuchProcess:
        return None


def listening(port: int | None) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return port is not None and probe.connect_ex((HOST, port)) == 0


def stop(pid: int) -> None:
    """End a process that leads a session, kindly first, and then whatever is left of what it started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, kind)
            os.killpg(pid, signal.SIGCONT)  # one that was stopped hears nothing else
        except ProcessLookupError:
            continue
        _ends_within(pid, STOP_SECONDS)


def stop_all(folder: Path) -> list[str]:
    """Stop exactly what was started here, also where who started it was killed; the names of what was stopped.

    Raises:
        SetupError: something runs on all the same; the list of what was started is kept.
    """
    found = alive(folder)
    for name, pid in found:
        if name == ITSELF:
            _stop_alone(pid, STOP_SECONDS * 2 * len(found))
    for name, pid in reversed(alive(folder)):  # the last one first, as who started them does it
        if name != ITSELF:
            stop(pid)
    if left := alive(folder):
        names = ", ".join(f"{name} (process {pid})" for name, pid in left)
        raise SetupError(f"{names} did not end within {STOP_SECONDS:.0f} s, not even when killed; try again")
    forget(folder)
    return [name for name, _ in found if name != ITSELF]


def _stop_alone(pid: int, seconds: float) -> None:
    """End a process without its session, which is a terminal's perhaps."""
    with suppress(ProcessLookupError):  # it may end by itself at any moment
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        if not _ends_within(pid, seconds):
            os.kill(pid, signal.SIGKILL)
            _ends_within(pid, STOP_SECONDS)


def _ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while began(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
