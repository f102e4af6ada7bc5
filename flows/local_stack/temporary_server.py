"""Prefect's server for the runs of one command, where none is kept: started here, and ended with the command.

Prefect would start one by itself: one that outlives a command that is killed, that must answer within 20 seconds on the
busiest machine, and whose faults are a traceback. It knows no run.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from components import tied
from components.errors import SetupError, sanitized
from flows.local_stack import supervisor
from flows.process import local_project, process_list
from flows.process.process_list import HOST

FOLDER = Path(local_project.FOLDER) / "temporary"
SECONDS = 300.0  # an idle machine takes 5
TRIES = 3  # somebody else may take a port between our looking for it and the server's
_LOOK_SECONDS = 0.1
_log = logging.getLogger("preface.temporary_server")
_started: dict[Path, str] = {}  # root -> address


@contextmanager
def at_hand(root: Path) -> Iterator[None]:
    """Prefect has a server inside: the one that its settings name, else one that lives as long as this process.

    Raises:
        StoreUnavailable: the one that is named does not answer.
        SetupError: it is none, or ours does not start.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    if PREFECT_API_URL.value():
        from flows.orchestration.prefect_api import asking

        with asking():
            pass  # Prefect itself would end in a traceback
        yield
        return
    if root not in _started:
        _started[root] = _start(root)
    with temporary_settings({PREFECT_API_URL: _started[root], PREFECT_UI_URL: ""}):  # it has no page to name
        yield


def sweep(root: Path) -> list[str]:
    """End servers whose command is gone, where the system did not; the names of what was ended."""
    ended = []
    for folder in (root / FOLDER).glob("*"):
        owner = dict(process_list.alive(folder)).get(process_list.ITSELF)
        beginning = folder.name.isdecimal() and process_list.began(int(folder.name)) is not None
        if owner is None and not (beginning and not (folder / process_list.LIST).exists()):
            ended += process_list.stop_all(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return ended


def _start(root: Path) -> str:
    """The address of one that answers."""
    sweep(root)
    folder = root / FOLDER / str(os.getpid())
    folder.mkdir(parents=True, exist_ok=True)
    log, deadline = folder / "prefect.log", time.monotonic() + SECONDS
    for left in reversed(range(TRIES)):
        port = supervisor.free_port()
        _log.info("Starting a Prefect server for this command at http://%s:%d", HOST, port)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(os.getpid()), str(port)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        process_list.note([("Prefect", process.pid, port)], folder)
        atexit.register(_stop, process, folder)
        while process.poll() is None:
            if _answers(port):
                return f"http://{HOST}:{port}/api"
            if time.monotonic() > deadline:
                said = _last_line(log)
                _stop(process, folder)
                raise SetupError(
                    f"Prefect's server did not answer within {SECONDS:.0f} s ({said}); try again when the machine is"
                    " less busy, or start one that stays: `make up`"
                )
            time.sleep(_LOOK_SECONDS)
        said = _last_line(log)
        if not left or "address already in use" not in said:
            _stop(process, folder)
            raise SetupError(
                f"Prefect's server does not start, status {process.returncode}: {said}; its files are in"
                f" {os.environ.get('PREFECT_HOME', 'PREFECT_HOME')}"
            )
    raise AssertionError("the last try returns or raises")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower()]
    return sanitized((wrong or lines or ["no output"])[-1].strip())


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.poll() is None:
        process_list.stop(process.pid)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Be the server, until the parent that the arguments name is gone."""
    parent, port = map(int, sys.argv[1:])
    tied.tie(parent)
    import uvicorn
    from prefect.server.api.server import create_app

    # As Prefect's own: no page, and no services that plan and look after runs.
    app = create_app(ephemeral=True, final=True)
    uvicorn.run(app, host=HOST, port=port, log_level="error", lifespan="on", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
