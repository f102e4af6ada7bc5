"""One machine that keeps params.yaml's schedules running: Prefect's own server, its worker, and who looks after them.

`preface schedule` and `make up` run it. Where PREFECT_API_URL names a server that one is used and none is started, so
the same process is a worker of a larger set. It plans nothing itself: Prefect does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from components.config import params as params_file
from components.errors import ParamsError, PrefaceError, SetupError
from flows.local_stack import supervisor, temporary_server, ui
from flows.local_stack.supervisor import Service
from flows.process import local_project, process_list
from flows.process.process_list import HOST

SYNC_SECONDS, RESCUE_SECONDS = 2.0, 15.0
POLL_SECONDS = "2"  # Prefect's own 10 would leave a worker idle for longer than a small run takes
T = TypeVar("T")
Stamp = tuple[int, int]  # of a file: when it was changed, and its size


def parts(
    environment: Mapping[str, str],
    root: Path,
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
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    own = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": POLL_SECONDS}
    own |= {"PREFACE_ROOT": str(root), "PATH": path}  # what the runs of this worker work in, and by
    return [*found, Service("Worker", None, worker, own, needs="Prefect", first=first, restart=True)]


@dataclass
class ScheduleSupervisor:
    """Looks after the schedules while everything runs: registers what params.yaml says, and starts dead runs again."""

    root: Path
    pool: str
    _done: Stamp | None = None
    _seen: Stamp | None = None
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
                self._said = ""  # the server answers
        except PrefaceError as error:
            if str(error) != self._said:
                supervisor.say(f"error: {error}; looking again soon")
            self._said = str(error)

    def sync(self) -> None:
        """Register what params.yaml says, if it changed; once two looks see the same, as one may come amid writing."""
        file = self.root / "params.yaml"
        try:
            stat = file.stat()
        except FileNotFoundError:  # being replaced just now
            return
        seen, before = (stat.st_mtime_ns, stat.st_size), self._seen
        self._seen = seen
        if seen == self._done or (self._done is not None and seen != before):
            return
        from flows.orchestration import deployments

        try:
            declared = params_file.load(file)
        except ParamsError as error:
            self._done = seen  # said once; what was registered goes on
            supervisor.say(f"error: {error}\nthe schedules stay as they were until params.yaml is mended")
            return
        for change in deployments.sync(declared, self.pool):
            if change.change != "unchanged":
                supervisor.say(f"{change.task}: {change.change}, schedule {change.schedule}")
        self._done = seen

    def _rescue(self) -> None:
        from flows.orchestration.late import cancel_superseded_runs
        from flows.orchestration.recovery import recover_crashed_runs

        if count := cancel_superseded_runs():  # the shorter work first: a fault in the other keeps it from nothing
            supervisor.say(f"{count} late runs were superseded by later ones")
        for each in recover_crashed_runs():
            supervisor.say(f"{each.task}: {each.what}")


def run(root: Path, pool: str, at_once: int, port: int = ui.PREFECT_PORT, page: bool = False) -> None:
    """Keep everything running until Ctrl-C."""
    keeper = ScheduleSupervisor(root, pool)
    found = parts(os.environ, root, pool, at_once, keeper.sync, port, page)
    os.environ.setdefault("PREFECT_API_URL", f"http://{HOST}:{port}/api")
    supervisor.serve(found, _folder(root), keeper.tick)


def around(root: Path, pool: str, at_once: int, work: Callable[[], T]) -> T:
    """Do something that needs workers: those of the server that is named, or some that run as long as it takes."""
    if "PREFECT_API_URL" in os.environ:
        return work()
    port, keeper = supervisor.free_port(), ScheduleSupervisor(root, pool)
    found = parts(os.environ, root, pool, at_once, keeper.sync, port)
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    return supervisor.around(found, _folder(root), keeper.tick, work)


def _folder(root: Path) -> Path:
    """Where what is kept running is listed; what belongs to nobody any more is ended first."""
    folder = root / local_project.STATION
    folder.mkdir(parents=True, exist_ok=True)
    temporary_server.sweep(root)
    there = dict(process_list.alive(folder))
    if process_list.ITSELF in there:
        raise SetupError(
            f"workers of {root} are kept running already, by the process {there[process_list.ITSELF]} on this machine;"
            " end it with Ctrl-C or `make down`"
        )
    if there:  # who kept them was killed
        supervisor.say(f"ended {', '.join(process_list.stop_all(folder))}, which nobody kept any more")
    return folder
