"""Runs that were planned while everything was down: of each task the newest that is due is left, and nothing else ends.

On a real Prefect server that plans nothing by itself: what it plans is asked for, for hours that are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Running, Scheduled

from components.config import params
from components.config.params import Params, ScheduleParams
from flows.orchestration import deployments, late
from flows.orchestration.prefect_api import PAGE, asking, runs_of

ROOT = Path(__file__).parents[3]
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
POOL = "late"
Supersede = Callable[[datetime], int]

pytestmark = pytest.mark.flow


def declared(**intervals: str) -> Params:
    """The project's own params.yaml with tasks that run so often."""
    own = params.load(ROOT / "params.yaml")
    film = own.task("movie-sentiment")
    tasks = {
        name: film.model_copy(update={"schedule": ScheduleParams(interval=each)}) for name, each in intervals.items()
    }
    return own.model_copy(update={"tasks": tasks})


@pytest.fixture
def tasks(on_server: str) -> Iterator[dict[str, UUID]]:
    """The deployments of three tasks, one of them of every minute; they go with their runs."""
    deployments.sync(declared(), POOL)
    deployments.sync(declared(film="1h", story="2h", minutes="1m"), POOL)
    with asking() as client:
        yield {each.name: each.id for each in deployments.ours(client)}
    deployments.sync(declared(), POOL)


def plan(deployment: UUID, start: datetime, end: datetime) -> None:
    """Let Prefect's own scheduler plan for a time, whether it is over or not."""
    between = {"start_time": start.isoformat(), "end_time": end.isoformat()}
    many = {"max_runs": 1000, "min_runs": 1000, "min_time": (end - start).total_seconds()}
    with asking() as client:
        path = {"id": deployment}
        client.request("POST", "/deployments/{id}/schedule", path_params=path, json=between | many)


def every_run(*ids: UUID) -> list[FlowRun]:
    """Whatever they were to do and whatever became of it, the earliest first."""
    with asking() as client:
        found = runs_of(client, ids, list(StateType))
    return sorted(found, key=when)


def when(run: FlowRun) -> datetime:
    assert run.expected_start_time is not None
    return run.expected_start_time


def by_hand(deployment: UUID, moment: datetime) -> UUID:
    """Ask for a run as `prefect deployment run` does."""
    with asking() as client:
        return client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=moment)).id


class Many:
    """A task of every minute with more late runs than one page holds."""

    def __init__(self, minutes: UUID, page: int) -> None:
        self.now, self.minutes = datetime.now(UTC), minutes
        plan(minutes, self.now - (page + 10) * MINUTE, self.now)
        self.late = every_run(minutes)
        assert len(self.late) > page

    def check(self, supersede: Supersede) -> None:
        """That the newest is left alone."""
        assert supersede(self.now) == len(self.late) - 1

        left = [run.id for run in every_run(self.minutes) if run.state_type == StateType.SCHEDULED]
        assert left == [self.late[-1].id]
        assert supersede(self.now) == 0


class Scene:
    """Two tasks with runs of every kind: planned and late, at work, to come, and asked for by hand."""

    def __init__(self, tasks: dict[str, UUID]) -> None:
        self.now = now = datetime.now(UTC)
        self.ids = [tasks["film"], tasks["story"]]
        for each in self.ids:
            plan(each, now - 8 * HOUR, now + 5 * HOUR)
        self.working = every_run(tasks["film"])[0].id
        with asking() as client:
            client.set_flow_run_state(self.working, Running(), force=True)
        due = [[run for run in every_run(each) if when(run) <= now and run.id != self.working] for each in self.ids]
        assert [len(runs) for runs in due] == [7, 4]
        # What each run is to end for.
        self.wanted = {run.id: runs[-1] for runs in due for run in runs[:-1]}
        for each in self.ids:
            for ago in (3 * HOUR, timedelta(0)):
                by_hand(each, now - ago)
        self.before = {run.id for run in every_run(*self.ids)}
        assert sum(when(run) > now for run in every_run(*self.ids)) >= 7

    def check(self, supersede: Supersede) -> None:
        """That exactly the newest due run of each task is left of those that were planned."""
        assert supersede(self.now) == len(self.wanted)

        after = {run.id: run for run in every_run(*self.ids)}
        assert set(after) == self.before
        ended = {number: run for number, run in after.items() if run.state_type == StateType.CANCELLED}
        assert set(ended) == set(self.wanted)
        assert {run.state_name for run in ended.values()} == {late.SUPERSEDED}
        for number, run in ended.items():
            assert run.state is not None
            assert run.state.message == f"the run of {when(self.wanted[number])} stands for it"
        assert after[self.working].state_type == StateType.RUNNING
        others = {run.state_type for number, run in after.items() if number not in {*ended, self.working}}
        assert others == {StateType.SCHEDULED}

        assert supersede(self.now) == 0
        again = {run.id for run in every_run(*self.ids) if run.state_type == StateType.CANCELLED}
        assert again == set(self.wanted)


def spoilt(old: str, new: str) -> Supersede:
    """``cancel_superseded_runs`` with a fault in it."""
    text = Path(late.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1
    module: Any = ModuleType("spoilt")
    exec(compile(text.replace(old, new), "spoilt", "exec"), vars(module))  # noqa: S102
    fault: Supersede = module.cancel_superseded_runs
    return fault


def test_the_newest_due_run_of_each_task_is_left_and_whatever_was_not_planned_or_is_not_due(
    tasks: dict[str, UUID],
) -> None:
    Scene(tasks).check(late.cancel_superseded_runs)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("run.auto_scheduled and ", ""),
        (", before=now", ""),
        ("*earlier, newest =", "newest, *earlier ="),
        ("due[run.deployment_id]", "due[None]"),
        ("Cancelled(name=SUPERSEDED,", "Cancelled("),
        ("(StateType.SCHEDULED,)", "(StateType.SCHEDULED, StateType.RUNNING)"),
        ("(StateType.SCHEDULED,)", "(StateType.SCHEDULED, StateType.CANCELLED)"),
    ],
)
def test_a_fault_in_what_is_ended_would_be_noticed(tasks: dict[str, UUID], old: str, new: str) -> None:
    scene, fault = Scene(tasks), spoilt(old, new)

    with pytest.raises(AssertionError):
        scene.check(fault)


def test_by_itself_it_goes_by_the_clock(tasks: dict[str, UUID]) -> None:
    begun = datetime.now(UTC)
    plan(tasks["minutes"], begun - 10 * MINUTE, begun + HOUR)

    count = late.cancel_superseded_runs()

    runs = every_run(tasks["minutes"])
    assert {run.state_type for run in runs[:count]} == {StateType.CANCELLED}
    assert {run.state_type for run in runs[count:]} == {StateType.SCHEDULED}
    assert begun - MINUTE < when(runs[count]) <= datetime.now(UTC), "the newest that was due while it looked"


def test_nothing_ends_where_nothing_is_late_and_where_there_is_no_task(on_server: str) -> None:
    now = datetime.now(UTC)
    deployments.sync(declared(), POOL)
    assert late.cancel_superseded_runs(now) == 0

    deployments.sync(declared(film="1h"), POOL)
    with asking() as client:
        [film] = [each.id for each in deployments.ours(client)]
    plan(film, now - HOUR, now + 2 * HOUR)
    assert late.cancel_superseded_runs(now) == 0
    assert {run.state_type for run in every_run(film)} == {StateType.SCHEDULED}
    deployments.sync(declared(), POOL)


def test_what_somebody_else_deployed_is_theirs(tasks: dict[str, UUID]) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    @flow
    def foreign() -> None:
        """Never run."""

    now = datetime.now(UTC)
    hourly = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=HOUR), active=True)
    with asking() as client:
        theirs = client.create_deployment(client.create_flow(foreign), "theirs", schedules=[hourly], tags=["theirs"])
    plan(theirs, now - 5 * HOUR, now)
    late_ones = every_run(theirs)
    assert len(late_ones) == 5

    assert late.cancel_superseded_runs(now) == 0
    assert [run.state_type for run in every_run(theirs)] == [StateType.SCHEDULED] * 5


@pytest.mark.slow
def test_more_late_runs_than_prefect_tells_at_once_are_all_superseded_but_one(tasks: dict[str, UUID]) -> None:
    Many(tasks["minutes"], PAGE).check(late.cancel_superseded_runs)


def test_a_look_at_the_first_page_alone_would_be_noticed(tasks: dict[str, UUID]) -> None:
    scene, fault = Many(tasks["minutes"], 5), spoilt("before=now)", "before=now)[:5]")

    with pytest.raises(AssertionError):
        scene.check(fault)
