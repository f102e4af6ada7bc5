"""Runs that are killed: once in every step, and at random moments, on a real Prefect server and a real worker.

Each task is one case, and each case kills one attempt by a real SIGKILL. Nobody does anything about it; once Prefect
has nothing more to run, every task must have exactly one version that counts, in Production, and nothing half done.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.process import process_list
from registry import queries
from tests.flows import mortal_engine
from tests.flows.station import ENDED, Station, keeping

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(3600)]
Project = Any  # tests/flows/conftest.py; test modules are not packages
Record = Callable[[str, object], None]
EDGES, MOMENTS = ("before", "after"), 20
# What registering, promoting and ending a run write, each of it in the middle of a step.
CALLS = ("register", "set_stage", "set_alias", "tag_version", "append_release", "tag_task", "untag_task", "end_run")
CASES = 80  # as many tasks as there may be cases


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def station(
    open_project: Callable[[Path], AbstractContextManager[Project]],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    orders: Path,
) -> Iterator[Station]:
    """A project of many tasks alike, whose worker starts the mortal engine."""
    with open_project(tmp_path_factory.mktemp("killed")) as project, pytest.MonkeyPatch.context() as patch:
        file = project.root / "params.yaml"
        params = yaml.safe_load(file.read_text())
        film = params["tasks"]["film"] | {"promotion": "auto"}
        for number in range(CASES):
            training = film["prefix"]["training"] | {"seed": 1000 + number, "steps": 200, "patience": 1000}
            params["tasks"][f"case-{number:02}"] = film | {"prefix": film["prefix"] | {"training": training}}
        file.write_text(yaml.safe_dump(params))
        patch.setenv(mortal_engine.ORDERS, str(orders))
        patch.setenv("OMP_NUM_THREADS", "1")  # two at once
        with keeping(project, free_port(), "--at-once", "2") as running:
            running.awaited(lambda: running.deployment(f"case-{CASES - 1:02}"))
            mortal(running)
            yield running


def mortal(station: Station) -> None:
    """From now on the pool's runs start the mortal engine; the keeper leaves a pool of another description alone."""
    pool = station.ask("work_pools/preface", None)
    template = pool["base_job_template"]
    template["variables"]["properties"]["command"]["default"] = f"{sys.executable} {mortal_engine.__file__}"
    station.ask("work_pools/preface", {"description": "a test's", "base_job_template": template}, "PATCH")


@pytest.fixture(scope="module")
def cases() -> Iterator[str]:
    """A task that no other case has had."""
    return (f"case-{number:02}" for number in range(CASES))


def start(station: Station, orders: Path, task: str, order: dict[str, Any] | None = None, **parameters: Any) -> str:
    run = station.start(task, **parameters)
    if order:
        (orders / run).write_text(json.dumps(order), encoding="utf-8")
    return run


def settled(station: Station, tasks: list[str], seconds: float = 1800) -> dict[str, list[str]]:
    """The states of every task's runs, oldest first, once nothing more is to come."""

    def over() -> dict[str, list[str]] | None:
        found = {task: runs for task, runs in station.all_runs().items() if task in tasks}
        waiting = [
            run
            for runs in found.values()
            for run in runs
            if run["state_type"] not in ENDED
            or (run["state_type"] == "CRASHED" and "preface:started-again" not in run["tags"])
        ]
        return None if waiting else {task: [run["state_name"] for run in runs] for task, runs in found.items()}

    return dict(station.awaited(over, seconds, every=3))


def violations(project: Project, task: str) -> list[str]:
    """What is not as it must be once nothing more is to come; nothing if all is well."""
    versions = project.store.versions(task) if task in project.store.tasks() else []
    counting = [version.number for version in versions if version.ready and not version.tag("duplicate_of")]
    live = queries.current(project.store, task, "Production") if versions else None
    found = []
    if len(counting) != 1:
        found.append(f"{task}: the versions {counting} count")
    if live is None or [live.number] != counting[:1]:
        found.append(f"{task}: version {live and live.number} is in Production")
    if strangers := [v.number for v in versions if not v.ready]:
        found.append(f"{task}: the versions {strangers} were never finished")
    open_runs = [run.info.run_id for run in project.mlflow_runs(task) if run.info.status == "RUNNING"]
    if open_runs:
        found.append(f"{task}: the MLflow runs {open_runs} go on for ever")
    return found


def all_violations(station: Station, tasks: list[str]) -> list[str]:
    left = [str(path) for path in (station.root / ".preface" / "runs").glob("*") if not path.name.endswith(".lock")]
    return [fault for task in tasks for fault in violations(station.project, task)] + left


def campaign(station: Station, orders: Path, asked: dict[str, dict[str, Any]], record: Record) -> int:
    """Start every task under its order, wait until nothing more is to come, and look; how many were killed."""
    for task, order in asked.items():
        start(station, orders, task, order)
    states = settled(station, list(asked))
    killed = sum(found[0] == "Crashed" for found in states.values())
    record("killed", killed)
    assert {found[-1] for found in states.values()} <= {"Promoted", "Unchanged"}
    assert all_violations(station, list(asked)) == []
    return killed


def test_killed_once_in_every_step_every_task_ends_with_one_version(
    station: Station, orders: Path, cases: Iterator[str], tmp_path: Path, record_property: Record
) -> None:
    rehearsal, said = next(cases), tmp_path / "steps"
    assert station.ended(start(station, orders, rehearsal, {"record": str(said)}))["state_name"] == "Promoted"
    names = list(dict.fromkeys(said.read_text().splitlines()))
    assert {"prepare data", "open run", "train", "evaluate", "register", "promote"} <= set(names)

    asked = {next(cases): {"step": name, "edge": edge} for name, edge in itertools.product(names, EDGES)}
    assert campaign(station, orders, asked, record_property) == len(asked), "each was killed"
    assert all_violations(station, [rehearsal]) == []


def test_killed_at_random_moments_every_task_ends_with_one_version(
    station: Station, orders: Path, cases: Iterator[str], record_property: Record
) -> None:
    rehearsal, chance = next(cases), random.Random(20)
    whole = station.ended(start(station, orders, rehearsal))["total_run_time"]
    # From the first import to the end, which two at once reach later than one alone.
    asked = {next(cases): {"seconds": chance.uniform(0.1, 8.0 + 1.5 * whole)} for _ in range(MOMENTS)}
    assert campaign(station, orders, asked, record_property) >= MOMENTS / 2


def test_killed_at_what_a_run_writes_to_the_store_every_task_ends_with_one_version(
    station: Station, orders: Path, cases: Iterator[str], record_property: Record
) -> None:
    asked = {next(cases): {"store": name, "edge": edge} for name, edge in itertools.product(CALLS, EDGES)}
    assert campaign(station, orders, asked, record_property) == len(asked), "each was killed"


def test_a_forced_run_that_is_killed_when_its_version_is_made_makes_no_second(
    station: Station, orders: Path, cases: Iterator[str]
) -> None:
    task = next(cases)
    assert station.ended(station.start(task))["state_name"] == "Promoted"
    run = start(station, orders, task, {"step": "register", "edge": "after"}, force=True)
    states = settled(station, [task])

    assert station.run(run)["state_name"] == "Crashed"
    assert states[task] == ["Promoted", "Crashed", "Promoted"]
    assert [version.number for version in station.project.store.versions(task)] == [1, 2]


def test_a_run_by_hand_that_is_killed_is_told_and_not_started_again(station: Station, cases: Iterator[str]) -> None:
    task = next(cases)
    command = [sys.executable, "-m", "cli.main", "retrain", task]
    with (station.root / "hand.log").open("w") as log:
        process = subprocess.Popen(command, cwd=station.root, env=station.environment, stdout=log, stderr=log)
    by_hand = {"flow_runs": {"deployment_id": {"is_null_": True}, "state": {"type": {"any_": ["RUNNING"]}}}}
    [run] = station.awaited(lambda: station.ask("flow_runs/filter", by_hand))
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert station.awaited(lambda: station.run(run["id"])["state_type"] == "CRASHED", seconds=300)
    assert station.runs(task) == []


def worker_of(station: Station) -> psutil.Process:
    pid = station.awaited(lambda: dict(process_list.alive(station.folder)).get("Worker"))
    return psutil.Process(pid)


def test_a_run_whose_worker_is_killed_and_a_second_of_the_same_end_with_one_version(
    station: Station, orders: Path, cases: Iterator[str]
) -> None:
    task = next(cases)
    run = start(station, orders, task)
    child = station.awaited(lambda: station.process(run))
    worker = worker_of(station)
    worker.send_signal(signal.SIGKILL)
    again = start(station, orders, task)
    station.awaited(lambda: dict(process_list.alive(station.folder)).get("Worker") not in (None, worker.pid))

    assert child.pid != worker.pid
    states = settled(station, [task])[task]
    # Its process goes on, or ends with what it can no longer write to, and is started again.
    assert station.run(run)["state_name"] in ("Promoted", "Unchanged", "Crashed")
    assert station.run(again)["state_name"] in ("Promoted", "Unchanged")
    assert states.count("Promoted") == 1
    assert all_violations(station, [task]) == []


def test_a_worker_that_is_killed_with_its_run_is_found_by_their_silence(
    station: Station, orders: Path, cases: Iterator[str]
) -> None:
    task = next(cases)
    run = start(station, orders, task)
    child = station.awaited(lambda: station.process(run))
    station.awaited(lambda: station.run(run)["state_type"] == "RUNNING")
    worker_of(station).send_signal(signal.SIGKILL)
    child.send_signal(signal.SIGKILL)
    killed = time.monotonic()

    states = settled(station, [task])

    assert time.monotonic() - killed < 300
    assert states[task] == ["Crashed", "Promoted"]
    assert all_violations(station, [task]) == []


def test_what_must_not_be_left_is_found(station: Station, cases: Iterator[str]) -> None:
    task = next(cases)
    assert violations(station.project, "film") == [
        "film: the versions [] count", "film: version None is in Production"
    ]  # fmt: skip
    assert station.ended(station.start(task))["state_name"] == "Promoted"
    assert violations(station.project, task) == []
    assert station.ended(station.start(task, force=True))["state_name"] == "Promoted"
    assert violations(station.project, task) == [
        f"{task}: the versions [1, 2] count", f"{task}: version 2 is in Production"
    ]  # fmt: skip
