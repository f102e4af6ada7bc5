"""How a fleet grows: `preface retrain --all` over 10, 30 and 100 tasks, on two workers of a real Prefect server.

    python -m benchmarks.fleet                    three sizes; writes benchmarks/results/fleet.json
    python -m benchmarks.fleet --tasks 10 --steps 400

Every task trains the same tiny base for as many steps. The work is what Prefect counts as the runs' own time, from a
run's first line to its last, summed; the ideal is that divided by the two workers. The wall clock runs from the moment
in which the first run could start to the end of the last one, and so holds what a worker needs to notice a run and to
start a Python for it. Each size begins with an empty registry, server and cache; what preparing and pushing all data
took stands beside it. Fails where a task did not end Promoted or has not exactly one version.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from benchmarks import tiny_project
from components.base.machine import CPUINFO, cpu_kind
from flows.local_stack import supervisor
from flows.process import local_project, process_list

RESULTS = Path(__file__).parent / "results" / "fleet.json"
WORKERS = 2


@contextmanager
def two_workers(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A kept station, which is a server and a worker, and one worker more; the API's address and their environment."""
    port, folder = supervisor.free_port(), root / local_project.STATION
    api = f"http://{process_list.HOST}:{port}/api"
    own = tiny_project.environment(root, OMP_NUM_THREADS="1")
    first = ["-m", "cli.main", "schedule", "--port", str(port)]
    second = ["-m", "prefect", "worker", "start", "--pool", "preface", "--limit", "1"]
    started = [_start(root, own, "station", first)]
    try:
        deadline = time.monotonic() + 300
        while "Worker" not in dict(process_list.alive(folder)):
            if time.monotonic() > deadline or started[0].poll() is not None:
                raise SystemExit((root / "station.log").read_text())
            time.sleep(0.3)
        own |= {"PREFECT_API_URL": api}
        started.append(_start(root, own | {"PREFECT_WORKER_QUERY_SECONDS": "2"}, "second", second))
        yield api, own
    finally:
        for process in reversed(started):
            process_list.stop(process.pid)
            process.wait()
        process_list.stop_all(folder)


def _start(root: Path, own: dict[str, str], name: str, command: list[str]) -> subprocess.Popen[bytes]:
    with (root / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *command], cwd=root, env=own, stdout=log, stderr=log, start_new_session=True
        )


def asked(api: str, path: str, body: object) -> Any:
    request = urllib.request.Request(f"{api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def measure(room: Path, tasks: int, steps: int) -> dict[str, Any]:
    """One campaign over so many tasks."""
    root = room / f"fleet-{tasks}"
    names = tiny_project.make(root, tasks, steps)
    with two_workers(root) as (api, own):
        began = time.time()
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "retrain", "--all"], cwd=root, env=own, capture_output=True, text=True
        )
        took = time.time() - began
        runs: list[Any] = []
        while page := asked(api, "flow_runs/filter", {"offset": len(runs), "limit": 200}):
            runs += page
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    runs = [run for run in runs if run["name"] in names]
    endings = {(run["name"], run["state_name"]) for run in runs}
    assert endings == {(name, "Promoted") for name in names}, endings
    assert versions(root) == dict.fromkeys(names, 1), versions(root)
    work = sum(run["total_run_time"] for run in runs)
    first = min(moment(run["created"]) for run in runs)
    wall = max(moment(run["end_time"]) for run in runs) - first
    return {
        "tasks": tasks,
        "seconds": {
            "whole command": round(took, 1),
            "preparing and pushing all data": round(first - began, 1),
            "wall": round(wall, 1),
            "work": round(work, 1),
            "a run": round(work / tasks, 2),
        },
        "wall over work divided by workers": round(wall / (work / WORKERS), 3),
        "wall a task": round(wall / tasks, 2),
    }


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def versions(root: Path) -> dict[str, int]:
    """How many versions each task has."""
    from registry.mlflow.store import Store

    store = Store(f"sqlite:///{root}/.preface/mlflow.db")
    return {task: len(store.versions(task)) for task in store.tasks()}


def tell(said: dict[str, Any], file: Path, of: Sequence[str] = ("prefect", "mlflow", "dvc", "torch")) -> None:
    """Print figures, and keep them with when and on what they were taken."""
    libraries = {name: installed(name) for name in of}
    whole = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **said,
        "versions": libraries | {"python": platform.python_version()},
        "hardware": f"{cpu_kind(CPUINFO)}, {os.cpu_count()} cores",
    }
    part = file.with_name(f".{file.name}")
    part.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    print(json.dumps(whole, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        sizes = [measure(Path(room), tasks, given.steps) for tasks in given.tasks]
    said = {
        "workers": WORKERS,
        "steps": given.steps,
        "sizes": sizes,
        "wall a task, over that of the fewest": [
            round(size["wall a task"] / sizes[0]["wall a task"], 3) for size in sizes
        ],
    }
    tell(said, RESULTS)


if __name__ == "__main__":
    main()
