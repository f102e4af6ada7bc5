"""Evaluate a registered version again: today's rows, rules and champion, the version's own bytes and wording.

A gate report is about what was in Production when it was made; one that compared with another version promotes nothing.
This makes a new one, without training. Refused or passed, the new verdict counts, and Staging follows it.
"""

# No `from __future__ import annotations` here, as in retrain.py.

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.local_stack import temporary_server
from flows.orchestration import run_logging
from flows.run.job import Outcome
from flows.tasks import evaluate_steps, steps
from flows.tasks.outcome import end, outcome_of


@flow(name="evaluate", flow_run_name="{address}", persist_result=False)
def evaluate(root: str, address: str) -> State[Any]:
    """Judge one registered version by what is true today.

    Args:
        root: the folder of params.yaml.
        address: TASK@7, TASK@staging or TASK@production.
    """
    run_logging.begin(task=address.partition("@")[0])
    version = evaluate_steps.fetch_version(root, address)
    data = steps.prepare_data(root, version.task)
    job = evaluate_steps.plan(root, version, data)
    run_logging.about(fingerprint=job.fingerprint, version=version.number)
    steps.place_rows(job)
    rival = steps.champion(job)
    report = evaluate_steps.evaluate_version(job, steps.measure_baselines(job), rival)
    decision = steps.gate(job, report)
    stage = evaluate_steps.record(job, report, decision)
    live = job.alone(rival)
    if not decision.passed:
        stays = "; it stays in Production until somebody rolls it back" if live else ""
        return end("GateRefused", job, version.number, f"version {version.number}: {decision.reasons}{stays}")
    beside = live or (f"compared with version {rival.number} in Production" if rival else "nothing is in Production")
    waits = ", and it waits in Staging" if stage == "Staging" else ""
    return end("Passed", job, version.number, f"version {version.number} passed its gate ({beside}){waits}")


def run(root: Path, address: str) -> Outcome:
    """Run the flow in this process and say how it ended; a refusal is an outcome, everything else that fails raises.

    Raises:
        PrefaceError: what stopped the run, as the step raised it.
    """
    with temporary_server.at_hand(root):
        state: State[Any] = evaluate(str(root), address, return_state=True)
    return outcome_of(state, address)
