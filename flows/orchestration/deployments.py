"""What params.yaml schedules, as Prefect deployments: one of the retraining flow for each task, in one work pool.

params.yaml is the one source. ``sync`` makes a server's deployments what it says, ``prefect_yaml`` writes the same for
Prefect's own `prefect deploy --all`. A task without a schedule has a deployment too: fleets and events start it.
Whether a run then trains is decided in ``components/provenance/triggers.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from components.config.params import Params
from components.config.schedule_params import ScheduleParams, duration
from components.errors import SetupError, StoreUnavailable
from components.records import Record
from flows.orchestration import events
from flows.orchestration.prefect_api import PAGE, asking
from flows.process.local_project import HEARTBEAT

POOL = "preface"
TAG = "preface"
FLOW, ENTRYPOINT = "retrain", "flows.retrain.retrain"
DESCRIPTION = "Preface's own: `preface schedule` and `preface deploy` keep it."
ANCHOR = datetime(2020, 1, 1)  # that of schedule_params.py
# Two runs of one task would train the same, one after the other: the second waits for the first.
CONCURRENCY = {"limit": 1, "collision_strategy": "ENQUEUE"}


What = Literal["added", "changed", "removed", "unchanged"]


class Change(Record):
    """What a synchronisation did to one task's deployment."""

    task: str
    change: What
    schedule: str


def described(schedule: ScheduleParams | None) -> str:
    """A schedule in words."""
    if schedule is None:
        return "none"
    when = f"cron {schedule.cron}" if schedule.cron else f"every {schedule.interval}"
    return f"{when} {schedule.timezone}{' (paused)' if schedule.paused else ''}"


def declared(params: Params, pool: str = POOL) -> dict[str, dict[str, Any]]:
    """Each task's deployment in the words of prefect.yaml."""
    found = {}
    for task, settings in params.tasks.items():
        said = {
            "name": task,
            "description": f"Retrains {task} if there is reason to; params.yaml says when and why.",
            "entrypoint": ENTRYPOINT,
            "parameters": {"task": task},
            "tags": [TAG, f"pool:{pool}"],
            "schedules": [_schedule(settings.schedule)] if settings.schedule else [],
            "triggers": [_trigger(task)],
            "concurrency_limit": dict(CONCURRENCY),
            "enforce_parameter_schema": True,
            "work_pool": {"name": pool, "job_variables": {"env": dict([HEARTBEAT])}},
        }
        # So that a look at the server tells whether it has just this.
        version = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
        found[task] = {**said, "version": version}
    return found


def _schedule(schedule: ScheduleParams) -> dict[str, Any]:
    said: dict[str, Any] = {"slug": "params", "timezone": schedule.timezone, "active": not schedule.paused}
    if schedule.cron:
        return {**said, "cron": schedule.cron}
    assert schedule.interval is not None  # one of both
    anchor = ANCHOR.replace(tzinfo=ZoneInfo(schedule.timezone))
    return {**said, "interval": duration(schedule.interval).total_seconds(), "anchor_date": anchor.isoformat()}


def _trigger(task: str) -> dict[str, Any]:
    return {
        "type": "event",
        "name": f"preface: new data of {task}",
        "enabled": True,
        "expect": [events.DATA_UPDATED],
        "match": {"prefect.resource.id": events.RESOURCE + task},
        "parameters": {"task": task, "cause": "event"},
    }


def prefect_yaml(params: Params, pool: str = POOL) -> str:
    """The file from which `prefect deploy --all` registers the same."""
    head = "# Written by `preface deploy` from params.yaml, which is the place to change things.\n"
    body = {"name": "preface", "pull": [], "deployments": list(declared(params, pool).values())}
    return head + yaml.safe_dump(body, sort_keys=False, width=120)


def sync(params: Params, pool: str = POOL) -> list[Change]:
    """Make the server's deployments what params.yaml says; nothing that was declared once and no more is left.

    A deployment that is as declared is not touched: one that somebody paused in Prefect stays paused.

    Raises:
        SetupError: a task's deployment belongs to another pool, and so perhaps to another project.
    """
    from flows.retrain import retrain

    wanted, done = declared(params, pool), []
    with asking() as client:
        ensure_pool(client, pool)
        there = {deployment.name: deployment for deployment in ours(client)}
        for task, said in wanted.items():
            before = there.get(task)
            if before is not None and before.work_pool_name != pool:
                raise SetupError(
                    f"the deployment {FLOW}/{task} is in the work pool {before.work_pool_name}, not in {pool};"
                    f" delete it with `prefect deployment delete {FLOW}/{task}`, or name that pool with --pool"
                )
            change = _change(client, before, said)
            if change != "unchanged":
                _apply(retrain, said)
            done.append(Change(task=task, change=change, schedule=described(params.tasks[task].schedule)))
        for task, gone in there.items():
            if task not in wanted and gone.work_pool_name == pool:
                client.delete_resource_owned_automations(f"prefect.deployment.{gone.id}")
                client.delete_deployment(gone.id)
                done.append(Change(task=task, change="removed", schedule="none"))
    return done


def _change(client: SyncPrefectClient, before: DeploymentResponse | None, said: dict[str, Any]) -> What:
    """Prefect registers a deployment and then its triggers: one that was cut off between them is not as declared."""
    if before is None:
        return "added"
    triggers = client.read_resource_related_automations(f"prefect.deployment.{before.id}")
    there = [each.name for each in triggers if each.name in {trigger["name"] for trigger in said["triggers"]}]
    whole = before.version == said["version"] and len(there) == len(said["triggers"])
    return "unchanged" if whole else "changed"


def _apply(flow: Any, said: dict[str, Any]) -> None:
    """Register one deployment, by the records that Prefect itself reads prefect.yaml into."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.events import DeploymentEventTrigger
    from prefect.schedules import Cron, Interval
    from prefect.types.entrypoint import EntrypointType

    schedules = []
    for each in said["schedules"]:
        more = {"timezone": each["timezone"], "active": each["active"], "slug": each["slug"]}
        if "cron" in each:
            schedules.append(Cron(each["cron"], **more))
        else:
            anchor = datetime.fromisoformat(each["anchor_date"])
            schedules.append(Interval(timedelta(seconds=each["interval"]), anchor_date=anchor, **more))
    made: RunnerDeployment = flow.to_deployment(
        said["name"],
        description=said["description"],
        parameters=said["parameters"],
        tags=said["tags"],
        schedules=schedules,
        triggers=[DeploymentEventTrigger.model_validate(trigger) for trigger in said["triggers"]],
        concurrency_limit=ConcurrencyLimitConfig(**said["concurrency_limit"]),
        enforce_parameter_schema=said["enforce_parameter_schema"],
        version=said["version"],
        work_pool_name=said["work_pool"]["name"],
        job_variables=said["work_pool"]["job_variables"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    try:
        made.apply()
    except DeploymentApplyError as error:
        raise StoreUnavailable(f"Prefect did not take the deployment {said['name']}: {error}") from error


def ours(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    """Every deployment that Preface made on the server."""
    tagged, offset = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])), 0
    while page := client.read_deployments(
        deployment_filter=tagged, sort=DeploymentSort.NAME_ASC, limit=PAGE, offset=offset
    ):
        yield from page
        offset += len(page)


def exists(client: SyncPrefectClient, deployment: UUID) -> bool:
    """Whether a deployment is there still; runs keep the number of one that was deleted."""
    try:
        client.read_deployment(deployment)
    except ObjectNotFound:
        return False
    return True


def ensure_pool(client: SyncPrefectClient, pool: str) -> None:
    """Make the pool if it is not there: one of processes.

    It names no folder and no Python of any machine: a worker's runs work in its own checkout (``engine.py``), by the
    Python that its PATH names. A pool that somebody else made (Docker, Kubernetes) is left as it is.
    """
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["command"]["default"] = "python -m flows.engine"
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=pool, type="process", base_job_template=template, description=DESCRIPTION)
        )
        return
    if found.description == DESCRIPTION and found.base_job_template != template:
        client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
