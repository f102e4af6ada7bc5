"""Runs that nobody looks after any more: which are taken for dead, when, and what is done about them.

On a real Prefect server that runs nothing by itself; time passes by saying what time it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Crashed, Pending, Running, Scheduled
from prefect.workers.process import ProcessWorker

from components.errors import PrefaceError
from flows import fleet
from flows.fleet import Ended
from flows.orchestration import deployments, events, notifications
from flows.orchestration.prefect_api import asking
from flows.orchestration.recovery import AGAIN, ATTEMPTS, recover_crashed_runs
from tests.flows.orchestration.test_late import declared

pytestmark = pytest.mark.flow
POOL, CONTAINERS = "rescue", "rescue-containers"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def tasks(on_server: str) -> Iterator[dict[str, UUID]]:
    """The deployments of two tasks; they go afterwards."""
    deployments.sync(declared(film="1h", story="2h"), POOL)
    with asking() as client:
        yield {each.name: each.id for each in deployments.ours(client) if each.work_pool_name == POOL}
    deployments.sync(declared(), POOL)


def made(deployment: UUID, *states: Any, at: datetime | None = None, tags: tuple[str, ...] = (), **more: Any) -> UUID:
    """A run that was in these states, one after the other."""
    with asking() as client:
        state = Scheduled(scheduled_time=at or now())
        run = client.create_flow_run_from_deployment(deployment, state=state, tags=tags, parameters=more)
        for each in states:
            client.set_flow_run_state(run.id, each, force=True)
    return run.id


def read(run: UUID) -> FlowRun:
    with asking() as client:
        return client.read_flow_run(run)


def what(run: UUID, when: datetime | None = None) -> list[str]:
    """What is done about it at that time."""
    return [each.what for each in recover_crashed_runs(when) if each.run == str(run)]


def test_a_crash_is_found_by_when_it_came_however_long_the_run_was_queued(tasks: dict[str, UUID]) -> None:
    queued = made(tasks["film"], Running(), Crashed(), at=now() - 5 * DAY)
    old = made(tasks["story"], Running(), Crashed())

    assert "started again" in what(queued)[0]
    assert AGAIN in read(queued).tags

    assert what(queued) == [], "once"
    with asking() as client:
        client.update_flow_run(old, tags=[])
    assert what(old, now() + 3 * DAY) == [], "what crashed days ago is history"


@pytest.mark.parametrize("kind", ["process", "docker"])
def test_a_run_that_a_worker_took_and_never_started_frees_its_task_soon(
    tasks: dict[str, UUID], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process starts within seconds; a container waits for a machine and an image."""
    deployment = tasks["film"]
    if kind == "docker":
        deployments.sync(declared(), POOL)
        with asking() as client:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=CONTAINERS, type=kind, base_job_template=template))
        deployments.sync(declared(film="1h"), CONTAINERS)
        with asking() as client:
            deployment = next(each.id for each in deployments.ours(client) if each.name == "film")
    run = made(deployment, Pending(name="Submitting"))

    assert what(run, now() + MINUTE) == []
    found = what(run, now() + 3 * MINUTE)
    assert bool(found) is (kind == "process")
    if kind == "docker":
        assert what(run, now() + 11 * MINUTE)
        deployments.sync(declared(), CONTAINERS)
    assert read(run).state_name == "Crashed"


@pytest.mark.parametrize("name", notifications.FLOWS)
def test_every_flow_of_ours_that_is_killed_is_marked(on_server: str, name: str) -> None:
    """None of them stays Running for ever, whichever command it was."""

    @flow(name=name)
    def ours() -> None:
        """Nothing."""

    with asking() as client:
        run = client.create_flow_run(ours, state=Running())
    assert what(run.id, now() + MINUTE) == []
    assert "no sign of it" in what(run.id, now() + 3 * MINUTE)[0]
    assert read(run.id).state_name == "Crashed"


def test_every_flow_that_a_command_runs_is_looked_after() -> None:
    """A new flow that nobody put on the list would be missed."""
    import importlib
    import pkgutil

    from prefect import Flow

    import flows

    found = set()
    for module in pkgutil.walk_packages(flows.__path__, "flows."):
        if module.name == "flows.engine":
            continue
        for each in vars(importlib.import_module(module.name)).values():
            if isinstance(each, Flow):
                found.add(each.name)

    assert found == set(notifications.FLOWS)


Heard = list[str]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """The events that were told."""
    told: Heard = []
    monkeypatch.setattr(events, "tell", lambda event, task, payload: told.append(f"{event} {payload['run']}"))
    return told


def refusing(patch: pytest.MonkeyPatch, run: UUID) -> Callable[[], None]:
    """The server takes no tags of this run, until what is returned is called."""
    real, broken = SyncPrefectClient.update_flow_run, [True]

    def update(client: SyncPrefectClient, flow_run_id: UUID, **more: Any) -> Any:
        if broken and flow_run_id == run:
            request = httpx.Request("PATCH", "http://server")
            raise httpx.HTTPStatusError("refused", request=request, response=httpx.Response(422, request=request))
        return real(client, flow_run_id, **more)

    patch.setattr(SyncPrefectClient, "update_flow_run", update)
    return broken.clear


def test_given_up_is_told_once_also_where_its_mark_is_not_taken_at_first(
    tasks: dict[str, UUID], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the server refuses of one run keeps no other from being started again."""
    lost = made(tasks["film"], Running(), Crashed(), attempt=ATTEMPTS)
    other = made(tasks["story"], Running(), Crashed())
    mended = refusing(monkeypatch, lost)

    assert "started again" in what(other)[0]
    assert what(lost) == []
    assert heard == []

    mended()
    assert "given up" in what(lost)[0]
    assert what(lost) == []
    assert heard == [f"{events.GIVEN_UP} {lost}"]


def test_an_inner_error_over_one_run_keeps_no_other_waiting_and_is_told(
    tasks: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Prefect answers for a run whose deployment was removed, and made again, while the run held a slot."""
    dead, other = made(tasks["film"], Running()), made(tasks["story"], Running(), Crashed())
    set_state = SyncPrefectClient.set_flow_run_state

    def failing(client: SyncPrefectClient, run: UUID, *args: Any, **options: Any) -> Any:
        if run == dead:
            request = httpx.Request("POST", "http://127.0.0.1/api")
            raise httpx.HTTPStatusError("inner", request=request, response=httpx.Response(500, request=request))
        return set_state(client, run, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SyncPrefectClient, "set_flow_run_state", failing)
        with pytest.raises(PrefaceError, match="answered 500"):
            recover_crashed_runs(now() + 10 * MINUTE)

    assert AGAIN in read(other).tags
    assert "no sign of it" in what(dead, now() + 10 * MINUTE)[0]


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Ended]]:
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.1)

    @flow
    def following(mark: str, asked: list[str], tick: Any) -> Any:
        return {each.task: each for each in fleet.follow(mark, asked, lambda ended: ended, tick)}

    return following


def test_a_fleet_does_not_wait_for_runs_that_are_gone(
    tasks: dict[str, UUID], follow: Callable[..., dict[str, Ended]]
) -> None:
    """A task that is taken out of params.yaml loses its deployment, and Prefect deletes what was queued of it."""
    mark = f"fleet:{uuid4()}"
    made(tasks["film"], tags=(mark,), task="film")
    done = made(tasks["story"], Running(), tags=(mark,), task="story")
    looks = []

    def tick() -> None:
        looks.append(1)
        if len(looks) == 2:
            deployments.sync(declared(story="2h"), POOL)  # film is out of it
        if len(looks) == 4:
            with asking() as client:
                client.set_flow_run_state(done, Cancelled(), force=True)
        assert len(looks) < 50, "it would wait for ever"

    ended = follow(mark, ["film", "story"], tick)

    assert (ended["film"].result, ended["film"].failed) == ("Vanished", True)
    assert "params.yaml" in ended["film"].message
    assert ended["story"].result == "Cancelled"


def test_a_fleet_does_not_wait_for_a_crash_that_cannot_be_started_again(
    tasks: dict[str, UUID], follow: Callable[..., dict[str, Ended]]
) -> None:
    mark = f"fleet:{uuid4()}"
    run = made(tasks["film"], Running(), tags=(mark,), task="film")
    deployments.sync(declared(story="2h"), POOL)
    assert "no sign of it" in what(run, now() + 3 * MINUTE)[0]
    looks = []

    def tick() -> None:
        looks.append(1)
        assert len(looks) < 50, "it would wait for ever"

    assert follow(mark, ["film"], tick)["film"].result == "Crashed"
