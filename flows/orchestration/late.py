"""Runs that a schedule planned and nobody ran while everything was down: of one task the newest stands for all of them.

Prefect keeps every late run and would work off each in turn. They would all look at the same rows as the newest, and
keep workers from what is due now.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled

from flows.orchestration import deployments
from flows.orchestration.prefect_api import asking, runs_of

SUPERSEDED = "Superseded"


def cancel_superseded_runs(now: datetime | None = None) -> int:
    """End every planned run that is due where a later one of its task is due too; how many there were."""
    now = now or datetime.now(UTC)
    with asking() as client:
        due = defaultdict[UUID | None, list[FlowRun]](list)
        ids = [deployment.id for deployment in deployments.ours(client)]
        for run in runs_of(client, ids, (StateType.SCHEDULED,), before=now) if ids else ():
            if run.auto_scheduled and run.expected_start_time is not None:
                due[run.deployment_id].append(run)
        count = 0
        for runs in due.values():
            *earlier, newest = sorted(runs, key=lambda run: run.expected_start_time or now)
            for run in earlier:
                why = f"the run of {newest.expected_start_time} stands for it"
                client.set_flow_run_state(run.id, Cancelled(name=SUPERSEDED, message=why))
                count += 1
        return count
