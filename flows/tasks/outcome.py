"""How a run ends: the state that Prefect shows, and the outcome that the command line tells.

A gate's refusal is a FAILED state under the name GateRefused, told apart from a crash, and so is an Alert: a version in
Production that is not what it should be, with nothing new to learn from. Neither is retried.
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from components.errors import PrefaceError, Stopped
from components.gates.decide import Decision
from components.provenance.triggers import Verdict
from flows.orchestration import run_logging
from flows.run.job import Job, Outcome, Promotion, Registered


def registered_outcome(job: Job, made: Registered, decision: Decision, promotion: Promotion) -> State[Any]:
    """The ending of a candidate that was registered."""
    version = made.number
    if made.duplicate_of:
        return end("Duplicate", job, version, f"version {made.duplicate_of} came first out of another run of the same")
    if not decision.passed:
        return end("GateRefused", job, version, f"version {version} was registered, not staged: {decision.reasons}")
    return _passed(job, version, promotion)


def skipped_outcome(job: Job, verdict: Verdict, known: Registered | None, promotion: Promotion) -> State[Any]:
    """The ending of a run that trains nothing."""
    if known is None:
        return end("Unchanged", job, 0, f"nothing to learn: {verdict}")
    if promotion.done or promotion.kept:
        return _passed(job, known.number, promotion)
    if verdict.action == "alert":
        waits = f"; version {known.number} waits in Staging: `preface promote {job.task}`" if known.waits else ""
        return end("Alert", job, known.number, f"{verdict}{waits}")
    return end("Unchanged", job, known.number, f"nothing to learn: {verdict}; --force trains all the same")


def _passed(job: Job, version: int, promotion: Promotion) -> State[Any]:
    """The ending of a version that passed: in Production, or in Staging and why."""
    said = f"version {version} passed its gate and"
    if promotion.done:
        return end("Promoted", job, version, f"{said} is in Production")
    return end("Staged", job, version, f"{said} waits in Staging" + f": {promotion.kept}" * bool(promotion.kept))


def end(name: str, job: Job, version: int, message: str) -> State[Any]:
    """An ending: its name, and what to say of the version."""
    run_logging.about(version=version)
    outcome = Outcome(task=job.task, method=job.method, result=name, version=version, message=message)
    ending = Failed if outcome.refused else Completed
    state: State[Any] = ending(name=name, message=f"{job.task}: {message}", data=outcome)
    return state


def outcome_of(state: State[Any], task: str) -> Outcome:
    """What a run came to; a refusal is an outcome, everything else that fails raises.

    Raises:
        Stopped: somebody cancelled it.
        PrefaceError: what stopped the run, as the step raised it.
    """
    if isinstance(state.data, Outcome):
        return state.data
    if state.is_cancelled():
        raise Stopped(state.message or f"the run of {task} was cancelled")
    result = state.result(raise_on_failure=False)
    if isinstance(result, Outcome):
        return result
    if isinstance(result, BaseException):
        raise result
    raise PrefaceError(f"the run of {task} ended as {state.name}: {state.message}")
