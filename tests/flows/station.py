"""A project whose schedules are kept running by a real `preface schedule`: Prefect's own server and worker, and us.

For tests that ask what Prefect's server says; they do so by its REST interface, as somebody at its page would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.process import local_project, process_list

SECONDS = 400  # a wait's end, for the slowest machine; what is there sooner is found sooner
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Station:
    """What runs, and questions to it."""

    def __init__(self, project: Any, port: int) -> None:
        self.project, self.api = project, f"http://127.0.0.1:{port}/api"
        self.root: Path = project.root
        self.folder = self.root / local_project.STATION

    def ask(self, path: str, body: object, method: str | None = None) -> Any:
        """Ask as Prefect's own clients do: a server whose database is busy answers 503, and is asked again."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}/{path}", data, headers, method=method)
        for wait in (1, 2, 4, 8):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    said = answer.read()
                return json.loads(said) if said else None
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(wait)
        pytest.fail(f"{path}: the server was busy four times on end")

    def deployment(self, task: str) -> Any:
        found = self.ask("deployments/filter", {"deployments": {"name": {"any_": [task]}}})
        return found[0] if found else None

    def runs(self, task: str, *states: str) -> list[Any]:
        """A task's runs in these states, the newest first."""
        deployment = self.deployment(task)
        wanted: dict[str, Any] = {"deployment_id": {"any_": [deployment["id"]]}} if deployment else {}
        if states:
            wanted["state"] = {"type": {"any_": list(states)}}
        found: list[Any] = self.ask("flow_runs/filter", {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC"})
        return found if deployment else []

    def all_runs(self) -> dict[str, list[Any]]:
        """Every task's runs, oldest first, in few questions."""
        found: list[Any] = []
        while page := self.ask("flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "offset": len(found)}):
            found += page
        runs: dict[str, list[Any]] = {}
        for run in found:
            runs.setdefault(str(run["parameters"].get("task")), []).append(run)
        return runs

    def start(self, task: str, **parameters: Any) -> str:
        """Start a run now; its id."""
        body = {"parameters": parameters, "idempotency_key": str(uuid.uuid4())}
        made = self.ask(f"deployments/{self.deployment(task)['id']}/create_flow_run", body)
        return str(made["id"])

    def run(self, run_id: str) -> Any:
        return self.ask(f"flow_runs/{run_id}", None)

    def ended(self, run_id: str) -> Any:
        """The run, once it has ended."""
        return self.awaited(lambda: found if (found := self.run(run_id))["state_type"] in ENDED else None)

    def awaited(self, look: Callable[[], Any], seconds: float = SECONDS, every: float = 0.3) -> Any:
        """What ``look`` finds, once it finds something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(every)
        logs = {path.name: path.read_text()[-3000:] for path in self.folder.glob("*.log")}
        pytest.fail(f"nothing within {seconds} s; {self.said()[-2000:]} {logs}")

    def said(self) -> str:
        return (self.root / "said.log").read_text(encoding="utf-8")

    def process(self, run_id: str) -> psutil.Process | None:
        """The process that works on a run."""
        for process in psutil.process_iter(["cmdline"]):
            if "engine" in " ".join(process.info["cmdline"] or ()):  # of flows/, or the mortal one
                try:
                    if process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                        return process
                except psutil.Error:
                    continue
        return None

    def preface(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, as somebody types it."""
        command = [sys.executable, "-m", "cli.main", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    @property
    def environment(self) -> dict[str, str]:
        own = {"PREFECT_HOME": str(self.root / ".preface" / "prefect"), "PYTHONPATH": str(self.root)}
        return os.environ | own


@contextmanager
def keeping(project: Any, port: int, *options: str) -> Iterator[Station]:
    """Everything runs, and the deployments are there."""
    station = Station(project, port)
    command = [sys.executable, "-m", "cli.main", "schedule", "--port", str(port), *options]
    with (station.root / "said.log").open("wb") as out:
        process = subprocess.Popen(command, cwd=station.root, stdout=out, stderr=out, env=station.environment)
    try:
        station.awaited(lambda: "Worker" in {name for name, _ in process_list.alive(station.folder)} or process.poll())
        assert process.poll() is None, station.said()
        yield station
    finally:
        process_list.stop_all(station.folder)
        process.wait()
