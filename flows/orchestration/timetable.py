"""What runs when: each task's next run and last result as Prefect has them, and what is in Production."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from components.config.params import Params
from flows.orchestration import deployments
from flows.orchestration.late import SUPERSEDED
from flows.orchestration.prefect_api import asking
from registry import queries
from registry.mlflow.store import Store

Row = dict[str, object]
LOOKED_AT = 50
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


def rows(params: Params) -> list[Row]:
    """A row for each task of params.yaml, and for each deployment of a task that is there no more."""
    live = {each.task: each.head.version if each.head else None for each in queries.statuses(Store())}
    with asking() as client:
        there = {deployment.name: deployment for deployment in deployments.ours(client)}
        found: list[Row] = []
        for task in sorted({*params.tasks, *there}):
            deployment, settings = there.get(task), params.tasks.get(task)
            coming = last = None
            if deployment is not None:
                coming = _run(client, deployment.id, (StateType.SCHEDULED,), FlowRunSort.EXPECTED_START_TIME_ASC)
                last = _run(client, deployment.id, ENDED, FlowRunSort.EXPECTED_START_TIME_DESC)
            note = "" if settings else "not in params.yaml any more"
            if settings and deployment is None:
                note = "not registered; `preface deploy` does it"
            elif deployment is not None and deployment.paused:
                note = "paused in Prefect"
            found.append(
                {
                    "task": task,
                    "schedule": deployments.described(settings.schedule if settings else None),
                    "next run": _when(coming),
                    "last run": _when(last),
                    "result": last.state.name if last and last.state else None,
                    "production": live.get(task),
                    "note": note or None,
                }
            )
    return found


def _run(
    client: SyncPrefectClient, deployment: UUID, states: tuple[StateType, ...], sort: FlowRunSort
) -> FlowRun | None:
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
    )
    found = client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=LOOKED_AT)
    # One that a later one stands for says nothing of how the task does.
    return next((run for run in found if run.state and run.state.name != SUPERSEDED), None)


def _when(run: FlowRun | None) -> str | None:
    if run is None or run.expected_start_time is None:
        return None
    return run.expected_start_time.isoformat(timespec="seconds")
