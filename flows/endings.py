"""How a run ends: the state that Prefect shows, and the outcome that the command line tells.

A gate's refusal is a FAILED state under the name GateRefused, told apart from a crash; it is never retried.
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from components.errors import PrefaceError
from components.gates import Decision
from flows import steps
from flows.job import Job, Outcome, Registered


def concluded(job: Job, made: Registered, decision: Decision) -> State[Any]:
    """The ending of a candidate that was registered; one that passed goes on to Production if the task says so."""
    version = made.number
    if made.duplicate_of:
        return end("Duplicate", job, version, f"version {made.duplicate_of} came first out of another run of the same")
    if not decision.passed:
        return end("GateRefused", job, version, f"version {version} was registered, not staged: {decision.reasons}")
    if job.promotes:
        steps.promote_version(job, version)
        return end("Promoted", job, version, f"version {version} passed its gate and is in Production")
    return end("Staged", job, version, f"version {version} passed its gate and waits in Staging")


def end(name: str, job: Job, version: int, message: str) -> State[Any]:
    """An ending: its name, and what to say of the version."""
    outcome = Outcome(task=job.task, method=job.method, result=name, version=version, message=message)
    ending = Failed if name == "GateRefused" else Completed
    state: State[Any] = ending(name=name, message=f"{job.task}: {message}", data=outcome)
    return state


def outcome_of(state: State[Any], task: str) -> Outcome:
    """What a run came to; a refusal is an outcome, everything else that fails raises.

    Raises:
        PrefaceError: what stopped the run, as the step raised it.
    """
    if isinstance(state.data, Outcome):
        return state.data
    result = state.result(raise_on_failure=False)
    if isinstance(result, Outcome):
        return result
    if isinstance(result, BaseException):
        raise result
    raise PrefaceError(f"the run of {task} ended as {state.name}: {state.message}")
