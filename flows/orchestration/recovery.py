"""Finds runs that were killed, marks them as crashed, and starts them again where they were: from their checkpoint.

Looked at now and then and not waited for: an event that was lost while a server restarted would leave a run for ever.
Starting one again is safe however often it is asked for: Prefect makes one run of one idempotency key, one run of a
fingerprint works in a project folder at a time (``steps.alone``), and of two versions of a fingerprint one counts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed, Scheduled

from components.records import Record
from flows.orchestration import deployments, events
from flows.orchestration.notifications import FLOWS
from flows.orchestration.prefect_api import asking, pages_of, runs_of

SILENT = timedelta(seconds=100)  # three heartbeats, and a little
# From a worker's taking a run to the run's first sign: a process has to import what it needs, on a busy machine; a
# container platform finds a machine and pulls an image first.
PROCESS_STARTS, CONTAINER_STARTS = timedelta(seconds=120), timedelta(minutes=10)
REMEMBERED = timedelta(days=2)  # a crash that nobody looked for meanwhile is not started again
ALIVE = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
ATTEMPTS = 5
AGAIN = "preface:started-again"  # the tag of a crashed run that has a successor, or that was given up
_log = logging.getLogger("preface.rescue")


class Rescued(Record):
    """What was done about one run."""

    run: str
    task: str
    what: str


def recover_crashed_runs(now: datetime | None = None) -> list[Rescued]:
    """Mark dead runs of ours as crashed, and start those of deployments again; one in cancelling ends as cancelled."""
    now = now or datetime.now(UTC)
    faults: list[httpx.HTTPStatusError] = []
    with asking() as client:
        pools = {deployment.id: deployment.work_pool_name for deployment in deployments.ours(client)}
        ids = list(pools)
        done = []
        for run in [*(runs_of(client, ids, ALIVE) if ids else ()), *alone(client, ids)]:
            silence = now - _last_sign(client, run)
            if silence > SILENT and silence > _bound(
                client, run, pools.get(run.deployment_id) if run.deployment_id else None
            ):
                why = f"no sign of it for {silence.total_seconds():.0f} s: its process is gone"
                ending = Cancelled if run.state_type == StateType.CANCELLING else Crashed
                with _one_at_a_time(run, faults):
                    client.set_flow_run_state(run.id, ending(message=why))
                    done.append(_told(run, why))
        # By when they ended, not by when they were to start: a run may have been queued for days.
        for run in runs_of(client, ids, (StateType.CRASHED,), ended_after=now - REMEMBERED) if ids else ():
            if AGAIN not in run.tags:
                with _one_at_a_time(run, faults):
                    done.append(_again(client, run, now))
        if faults:
            raise faults[0]
    return done


def _bound(client: SyncPrefectClient, run: FlowRun, pool: str | None) -> timedelta:
    """How long the run may be silent."""
    if run.state_type != StateType.PENDING:
        return SILENT
    if pool is None or client.read_work_pool(pool).type == "process":
        return PROCESS_STARTS
    return CONTAINER_STARTS


@contextmanager
def _one_at_a_time(run: FlowRun, faults: list[httpx.HTTPStatusError]) -> Iterator[None]:
    """A run that Prefect's server refuses keeps no other waiting; it is tried again at the next look.

    An inner error (500) may be of that one run: one whose deployment was removed while it ran gets it for the five
    minutes that its lease of a slot lives on. It goes into ``faults`` and is told when the others had their turn.
    """
    try:
        yield
    except (httpx.HTTPStatusError, PrefectException) as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500:
            if error.response.status_code > 500:  # the server as a whole
                raise
            faults.append(error)
            return
        _log.warning("%s (%s): Prefect's server refuses what is to be done about it: %s", _task(run), run.id, error)


def alone(client: SyncPrefectClient, known: Collection[UUID]) -> list[FlowRun]:
    """Runs of our flows that are not over and have no deployment, or none any more.

    Those are what commands do in their own process, and what goes on of a task that was taken out of params.yaml.
    """
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ALIVE))))
    found = pages_of(client, wanted, FlowFilter(name=FlowFilterName(any_=list(FLOWS))))
    others = {run.deployment_id for run in found} - set(known)
    gone = {each for each in others if each is None or not deployments.exists(client, each)}
    return [run for run in found if run.deployment_id in gone]


def _last_sign(client: SyncPrefectClient, run: FlowRun) -> datetime:
    """When the run last changed its state or sent a heartbeat."""
    assert run.state is not None
    heartbeats = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
        occurred=EventOccurredFilter.model_validate({"since": run.state.timestamp}),
    )
    newest = client.read_events(heartbeats, limit=1).events  # newest first
    return max([run.state.timestamp, *(event.occurred for event in newest)])


def _again(client: SyncPrefectClient, run: FlowRun, now: datetime) -> Rescued:
    """Start a crashed run again as it was; a little later each time, and not for ever."""
    attempt = int(run.parameters.get("attempt", 1))
    if attempt >= ATTEMPTS:
        what = f"given up: it crashed {attempt} times; see {run.name} ({run.id}) on Prefect's page"
        _mark(client, run)  # before it is told: what is told and not marked would be told at every look
        events.tell(events.GIVEN_UP, _task(run), {"what": what, "run": str(run.id)})
    else:
        assert run.deployment_id is not None  # as asked for
        when = now + timedelta(seconds=5 * 2 ** (attempt - 1))
        after = client.create_flow_run_from_deployment(
            run.deployment_id,
            parameters={**run.parameters, "attempt": attempt + 1, "first": run.parameters.get("first") or str(run.id)},
            state=Scheduled(scheduled_time=when, message=f"again: {run.name} ({run.id}) crashed"),
            tags=[tag for tag in run.tags if tag != AGAIN],
            idempotency_key=f"again-{run.id}",
        )
        what = f"started again as {after.id}, attempt {attempt + 1}"
        _mark(client, run)
    return _told(run, what)


def _mark(client: SyncPrefectClient, run: FlowRun) -> None:
    client.update_flow_run(run.id, tags=[*run.tags, AGAIN])


def _task(run: FlowRun) -> str:
    return str(run.parameters.get("task", run.name))


def _told(run: FlowRun, what: str) -> Rescued:
    found = Rescued(run=str(run.id), task=_task(run), what=what)
    _log.warning("%s (%s): %s", found.task, run.id, what)
    return found
