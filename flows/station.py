"""One machine that keeps params.yaml's schedules running: Prefect's own server, its worker, and who looks after them.

`preface schedule` and `make up` run it. Where PREFECT_API_URL names a server that one is used and none is started, so
the same process is a worker of a larger set. It plans nothing itself: Prefect does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from components import params as params_file
from components.errors import ParamsError, PrefaceError, SetupError
from flows import places, services, ui
from flows.services import HOST, Service

SYNC_SECONDS, RESCUE_SECONDS = 2.0, 15.0
POLL_SECONDS = "2"  # Prefect's own 10 would leave a worker idle for longer than a small run takes
T = TypeVar("T")


def parts(
    environment: Mapping[str, str],
    pool: str,
    at_once: int,
    first: Callable[[], object],
    port: int = ui.PREFECT_PORT,
    page: bool = False,
) -> list[Service]:
    """What there is to start: a server if none is named, a worker of the pool, and MLflow's page if that is wanted.

    Args:
        first: done before the worker starts; it makes the pool.
    """
    found = [part for part in ui.pages(environment, prefect_port=port) if page or part.name == "Prefect"]
    api = environment.get("PREFECT_API_URL", f"http://{HOST}:{port}/api")
    worker = ("-m", "prefect", "worker", "start", "--pool", pool, "--limit", str(at_once))
    own = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": POLL_SECONDS}
    return [*found, Service("Worker", None, worker, own, needs="Prefect", first=first, restart=True)]


@dataclass
class Keeper:
    """Looks after the schedules while everything runs: registers what params.yaml says, and starts dead runs again."""

    root: Path
    pool: str
    _seen: tuple[int, int] | None = None
    _said: str = ""
    _next_sync: float = 0.0
    _next_rescue: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Called all the time; does something now and then. A fault is said once, and tried again."""
        now = time.monotonic()
        try:
            if now >= self._next_sync:
                self._next_sync = now + SYNC_SECONDS
                self.sync()
            if now >= self._next_rescue:
                self._next_rescue = now + RESCUE_SECONDS
                self._rescue()
                self._said = ""
        except PrefaceError as error:
            if str(error) != self._said:
                services.say(f"error: {error}; looking again soon")
            self._said = str(error)

    def sync(self) -> None:
        """Register what params.yaml says, if it changed."""
        file = self.root / "params.yaml"
        stat = file.stat()
        seen = (stat.st_mtime_ns, stat.st_size)
        if seen == self._seen:
            return
        from flows import deployments

        try:
            declared = params_file.load(file)
        except ParamsError as error:
            self._seen = seen  # said once; what was registered goes on
            services.say(f"error: {error}\nthe schedules stay as they were until params.yaml is mended")
            return
        for change in deployments.sync(declared, self.root, self.pool):
            if change.change != "unchanged":
                services.say(f"{change.task}: {change.change}, schedule {change.schedule}")
        self._seen = seen

    def _rescue(self) -> None:
        from flows.late import supersede
        from flows.rescue import rescue

        for each in rescue():
            services.say(f"{each.task}: {each.what}")
        if count := supersede():
            services.say(f"{count} late runs were superseded by later ones")


def run(root: Path, pool: str, at_once: int, port: int = ui.PREFECT_PORT, page: bool = False) -> None:
    """Keep everything running until Ctrl-C."""
    keeper = Keeper(root, pool)
    found = parts(os.environ, pool, at_once, keeper.sync, port, page)
    os.environ.setdefault("PREFECT_API_URL", f"http://{HOST}:{port}/api")
    services.serve(found, _folder(root), keeper.tick)


def around(root: Path, pool: str, at_once: int, work: Callable[[], T]) -> T:
    """Do something that needs workers: those of the server that is named, or some that run as long as it takes."""
    if "PREFECT_API_URL" in os.environ:
        return work()
    done: list[T] = []

    def once() -> None:
        done.append(work())
        raise KeyboardInterrupt  # ends what serves it

    port = services.free_port()
    found = parts(os.environ, pool, at_once, Keeper(root, pool).sync, port)
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    folder = _folder(root)
    services.serve(found, folder, once)
    return done[0]


def _folder(root: Path) -> Path:
    folder = root / places.STATION
    folder.mkdir(parents=True, exist_ok=True)
    if there := services.alive(folder):
        raise SetupError(
            f"workers of {root} are kept running already, by the process {there[0][1]} on this machine; end it with"
            " Ctrl-C or `make down`"
        )
    return folder
