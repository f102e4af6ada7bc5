"""The MLflow page and the Prefect page on the embedded stores, until Ctrl-C. `make ui` runs it.

For looking, on this machine alone. It starts no page for a store that a server of its own already shows
(MLFLOW_TRACKING_URI or PREFECT_API_URL set), and it knows nothing of what the stores hold.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.errors import PrefaceError, SetupError
from flows import places

HOST = "127.0.0.1"
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Page:
    """One server to start: what it is called, where it will be seen, and how it is started."""

    name: str
    port: int
    command: tuple[str, ...]

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"


def pages(environment: Mapping[str, str], mlflow_port: int = 5000, prefect_port: int = 4200) -> list[Page]:
    """What there is to start: the embedded stores only."""
    found = []
    store = environment["MLFLOW_TRACKING_URI"]
    if not store.startswith(("http://", "https://")):
        # The store's own artifact folder is read in place; nothing is proxied, so no second folder appears.
        mlflow = ("-m", "mlflow", "ui", "--backend-store-uri", store, "--no-serve-artifacts", "--workers", "1")
        found.append(Page("MLflow", mlflow_port, (*mlflow, "--host", HOST, "--port", str(mlflow_port))))
    if "PREFECT_API_URL" not in environment:
        prefect = ("-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port))
        found.append(Page("Prefect", prefect_port, prefect))
    return found


def serve(found: list[Page], folder: Path) -> None:
    """Start every page, say where it is once it answers, and stop them all on Ctrl-C or when one ends by itself.

    What the servers say goes to ``folder``, a log each.
    """
    for page in found:
        if _answers(page):
            raise SetupError(f"port {page.port} is taken and {page.name} needs it; end what holds it, then 'make ui'")
    # Said for SIGINT too: a process that a script puts into the background begins with it ignored.
    before = {kind: signal.signal(kind, signal.default_int_handler) for kind in (signal.SIGINT, signal.SIGTERM)}
    running: dict[Page, subprocess.Popen[bytes]] = {}
    waiting = list(found)
    try:
        for page in found:
            with _log(page, folder).open("wb") as log:
                # A session of its own: Ctrl-C in the terminal reaches this process alone, which then stops the others.
                running[page] = subprocess.Popen(
                    [sys.executable, *page.command], cwd=folder, stdout=log, stderr=log, start_new_session=True
                )
        _say("starting " + " and ".join(page.name for page in found) + " ...")
        while all(process.poll() is None for process in running.values()):
            for page in [page for page in waiting if _answers(page)]:
                waiting.remove(page)
                _say(f"{page.name:8} {page.address}" + ("" if waiting else "    (Ctrl-C stops)"))
            time.sleep(0.3)
        ended = next(page for page, process in running.items() if process.poll() is not None)
        raise SetupError(f"{ended.name} ended by itself, status {running[ended].returncode}; see {_log(ended, folder)}")
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        for process in running.values():
            _stop(process)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _answers(page: Page) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, page.port)) == 0


def _log(page: Page, folder: Path) -> Path:
    return folder / f"{page.name.lower()}-page.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, kindly first, and then whatever is left of what it started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(STOP_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    root = places.enter()
    store = root / ".preface"
    found = pages(os.environ)
    if not found:
        servers = f"{os.environ['MLFLOW_TRACKING_URI']} and {os.environ['PREFECT_API_URL']}"
        raise SetupError(f"both stores have servers of their own; open {servers}")
    if not store.is_dir():
        raise SetupError(f"{store} does not exist: nothing has run here yet; try 'make demo' first")
    serve(found, store)


if __name__ == "__main__":
    try:
        main()
    except PrefaceError as error:
        sys.exit(f"error: {error}")
