"""Many tasks at once: the data of all prepared and pushed here, then one run each on whatever workers there are.

A run is handed its rows by hash, so that no worker prepares anything. A task that fails fails alone. The runs are those
of the tasks' own deployments: what happens to one that is killed is the business of ``orchestration/recovery.py``.
"""

# No `from __future__ import annotations` here, as in retrain.py.

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from components import markdown
from components.config import params as params_file
from components.errors import PrefaceError, SetupError, SourceUnavailable, Stopped, StoreUnavailable
from components.records import Record
from flows.dvc import repro
from flows.dvc.repro import DataVersion
from flows.orchestration import deployments, run_logging
from flows.orchestration.cancellation import is_cancelled
from flows.orchestration.prefect_api import asking, best_effort, pages_of
from flows.orchestration.recovery import AGAIN, recover_crashed_runs
from flows.orchestration.step import network_step, step
from flows.tasks.reason_steps import Cause

LOOK_SECONDS, SECONDS_A_TASK = 1.0, 0.02  # a look reads every run: a thousand are looked at every 20 s
SOURCE_RETRIES = (1, 4, 16)  # seconds before each, as steps that ask the network have it
NOT_STARTED, VANISHED = "NotStarted", "Vanished"
LOOKS = 2  # without a run before it counts as gone: one that is listed page by page may slip through once


class Ended(Record):
    """How one task's run ended: the name of its state, and its message; ``failed`` if somebody should look."""

    task: str
    result: str
    message: str
    seconds: float = 0.0
    failed: bool = False

    def row(self) -> dict[str, Any]:
        return {"task": self.task, "result": self.result, "seconds": round(self.seconds, 1), "message": self.message}


@step(name="prepare and push all data")
def prepare_all(root: str, tasks: list[str]) -> tuple[dict[str, DataVersion], list[Ended]]:
    """Every task's rows, in the DVC remote; and the tasks that have none, with the reason."""
    log, found, left = get_run_logger(), dict[str, DataVersion | PrefaceError](), tasks
    for wait in (*SOURCE_RETRIES, None):
        found |= repro.prepare_each(Path(root), left, say=log.info)
        left = [task for task, each in found.items() if isinstance(each, SourceUnavailable)]
        if not left or wait is None:
            break
        log.warning("%d sources did not answer; asking again in %d s", len(left), wait)
        time.sleep(wait)
    made = {task: each for task, each in found.items() if isinstance(each, DataVersion)}
    lost = [_lost(task, each) for task, each in found.items() if isinstance(each, PrefaceError)]
    try:
        if made:
            repro.push(Path(root), list(made))
    except PrefaceError:  # of one remote, one way to fail; but a cache may lack files of one task alone
        for task in list(made):
            try:
                repro.push(Path(root), [task])
            except PrefaceError as error:
                del made[task]
                lost.append(_lost(task, error))
    return made, lost


def _lost(task: str, error: PrefaceError) -> Ended:
    return Ended(task=task, result=NOT_STARTED, message=str(error), failed=True)


@network_step("start the runs")
def start_all(
    mark: str, pool: str, data: dict[str, DataVersion], cause: Cause, forced: Collection[str], base: str | None
) -> None:
    """One run of each task's deployment; asked for again after a fault, it makes no second."""
    with asking() as client:
        there = {each.name: each for each in deployments.ours(client) if each.work_pool_name == pool}
        if missing := sorted(set(data) - set(there)):
            raise SetupError(f"the pool {pool} has no deployment of {', '.join(missing)}; `preface deploy` makes them")
        for task, rows in data.items():
            client.create_flow_run_from_deployment(
                there[task].id,
                parameters={"data": asdict(rows), "cause": cause, "force": task in forced, "base": base},
                tags=[mark],
                idempotency_key=f"{mark}-{task}",
                name=task,
            )


def follow(mark: str, tasks: list[str], done: Callable[[Ended], Ended], tick: Callable[[], None]) -> list[Ended]:
    """Wait until every task's last run has ended; a server that is away for a while is waited for too.

    A run that is gone from the server has ended: Prefect deletes what waits for a worker with its deployment.

    Args:
        done: called with each as it ends; what it returns counts.
        tick: called all the time; what it raises ends the waiting.
    """
    ended, missing = dict[str, Ended](), Counter[str]()
    log, said = get_run_logger(), ""
    while len(ended) < len(tasks):
        try:
            tick()
            with asking() as client:
                last = _last_runs(client, mark)
                over = {task for task, run in last.items() if _is_over(client, run)}
        except StoreUnavailable as error:
            if not said:
                log.warning("%s; looking again", error)
            said = str(error)
        else:
            said = ""
            for task in tasks:
                run = last.get(task)
                missing[task] = 0 if run else missing[task] + 1
                if task in ended or (task not in over if run else missing[task] < LOOKS):
                    continue
                ended[task] = done(_ended(task, run) if run else _vanished(task))
                log.info("%s: %s (%d of %d)", task, ended[task].result, len(ended), len(tasks))
        time.sleep(max(LOOK_SECONDS, len(tasks) * SECONDS_A_TASK))
    return list(ended.values())


def call_off(mark: str) -> int:
    """Cancel the runs that wait for a worker still; those at work go on to their end. How many there were."""
    with asking() as client:
        waiting = FlowRunFilterStateType(any_=[StateType.SCHEDULED])
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[mark]), state=FlowRunFilterState(type=waiting))
        runs = pages_of(client, wanted)
        for run in runs:
            client.set_flow_run_state(run.id, Cancelled(message="the fleet was stopped before it began"))
    return len(runs)


def _last_runs(client: SyncPrefectClient, mark: str) -> dict[str, FlowRun]:
    """The last run of each task: one that crashed has a successor under the same mark."""
    found = pages_of(client, FlowRunFilter(tags=FlowRunFilterTags(all_=[mark])))
    last: dict[str, FlowRun] = {}
    for run in found:
        task, attempt = str(run.parameters["task"]), int(run.parameters.get("attempt", 1))
        if task not in last or attempt > int(last[task].parameters.get("attempt", 1)):
            last[task] = run
    return last


def _is_over(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether nothing more will come of it: a crashed run is started again, until it is given up."""
    if run.state is None or not run.state.is_final():
        return False
    if run.state.type != StateType.CRASHED or AGAIN in run.tags:
        return True
    # One whose deployment is gone cannot be started again.
    return run.deployment_id is None or not deployments.exists(client, run.deployment_id)


def _vanished(task: str) -> Ended:
    why = (
        "its run is gone from Prefect's server, deleted by hand or with its deployment; is the task still in"
        " params.yaml?"
    )
    return Ended(task=task, result=VANISHED, message=why, failed=True)


def _ended(task: str, run: FlowRun) -> Ended:
    assert run.state is not None  # it is over
    return Ended(
        task=task,
        result=str(run.state.name),
        message=(run.state.message or "").removeprefix(f"{task}: "),
        seconds=run.total_run_time.total_seconds(),
        failed=run.state.type != StateType.COMPLETED,
    )


@step(name="table of outcomes")
def page(ended: list[Ended]) -> None:
    """The table on the fleet's page."""
    with best_effort("the table of outcomes"):  # the command prints it too
        rows = markdown.cells([each.row() for each in ended])
        create_table_artifact(rows, key="fleet", description="How each task's run ended")


@flow(name="fleet", flow_run_name="fleet", persist_result=False)
def fleet(root: str, tasks: list[str], force: bool = False, pool: str = deployments.POOL) -> State[Any]:
    """Retrain many tasks.

    Args:
        root: the folder of params.yaml.
        tasks: of params.yaml.
        force: train although nothing changed.
        pool: whose workers do it.
    """
    run_logging.begin()
    return campaign(root, tasks, tasks if force else (), None, pool, "fleet")


def campaign(
    root: str,
    tasks: list[str],
    forced: Collection[str],
    base: str | None,
    pool: str,
    cause: Cause,
    done: Callable[[Ended], Ended] = lambda ended: ended,
) -> State[Any]:
    """What a flow over many tasks does: prepare, push, start, follow, and a table of how each ended.

    Stopped, by Ctrl-C or on Prefect's page, it calls off what has not begun.
    """
    context, log = FlowRunContext.get(), get_run_logger()
    assert context is not None  # a flow's body
    assert context.flow_run is not None
    own, mark = context.flow_run.id, f"{cause}:{context.flow_run.id}"

    def look() -> None:
        if is_cancelled(own):
            raise Stopped("cancelled")
        recover_crashed_runs()

    data, ended = prepare_all(root, tasks)
    if data:
        try:
            start_all(mark, pool, data, cause, forced, base)
            log.info("%d runs wait for workers of the pool %s", len(data), pool)
            ended = [*ended, *follow(mark, list(data), done, _now_and_then(look))]
        except (Stopped, KeyboardInterrupt, TerminationSignal) as error:
            with suppress(PrefaceError):  # a server that is away, or that goes too
                log.warning("stopped: %d runs had not begun and are called off", call_off(mark))
            if isinstance(error, Stopped):
                return Cancelled(message=f"{cause}: {error}")
            raise
    order = {task: place for place, task in enumerate(tasks)}
    ended.sort(key=lambda each: order[each.task])
    page(ended)
    bad = [each.task for each in ended if each.failed]
    said = f"{len(ended) - len(bad)} of {len(ended)} tasks ended well" + (f"; not {', '.join(bad)}" if bad else "")
    if bad:
        return Failed(name="SomeFailed", message=said, data=ended)
    return Completed(message=said, data=ended)


def _now_and_then(work: Callable[[], object], seconds: float = 5.0) -> Callable[[], None]:
    """``work``, at most so often."""
    last = time.monotonic()

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            work()

    return tick


def run(root: Path, tasks: list[str], force: bool = False, pool: str = deployments.POOL) -> list[Ended]:
    """Run the flow in this process; how each task ended.

    Raises:
        PrefaceError: what kept the fleet as a whole from its work.
    """
    deployments.sync(params_file.load(root / "params.yaml"), pool)
    return outcomes_of(fleet(str(root), tasks, force, pool=pool, return_state=True))


def outcomes_of(state: State[Any]) -> list[Ended]:
    """How each task of a campaign ended.

    Raises:
        Stopped: somebody cancelled it.
        PrefaceError: what kept it as a whole from its work.
    """
    if state.is_cancelled():
        raise Stopped(state.message or "cancelled")
    result = state.data if isinstance(state.data, list) else state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return list(result)
