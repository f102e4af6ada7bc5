"""THE flow: prepare -> push the rows -> train -> evaluate -> gate -> register -> promote. Read it top to bottom.

What each step does is in ``steps.py``, what a judged candidate becomes in ``endings.py``; how, in components/ and
registry/. A run that finds its fingerprint registered ends green without training. A candidate that the gate refuses is
registered all the same, with its report, and the run ends FAILED under the name GateRefused, never retried.
"""

# No `from __future__ import annotations` here: Prefect's runner pickles a served flow, and names that stand in
# annotations alone would not travel with it.

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from components.params import MethodName
from flows import steps
from flows.endings import concluded, end, outcome_of
from flows.job import Outcome


@flow(name="retrain", flow_run_name="{task}", persist_result=False)
def retrain(root: str, task: str, method: MethodName | None = None, force: bool = False) -> State[Any]:
    """Retrain one task's adapter from whatever its source holds now.

    Args:
        root: the folder of params.yaml.
        task: a task of params.yaml.
        method: another method than the task's own.
        force: train although the fingerprint is registered.
    """
    data = steps.prepare_data(root, task)
    job = steps.plan(root, task, method, force, data)
    known = steps.registered(job)
    if known and not force:
        return end(
            "Unchanged", job, known.number, f"nothing to learn: {job.why_unchanged(known)}; --force trains all the same"
        )
    steps.push_data(job)
    run = steps.open_run(job)
    with steps.closing(run):
        adapter = steps.train_adapter(job, run)
        report = steps.evaluate_adapter(job, adapter, steps.measure_baselines(job), steps.champion(job))
        decision = steps.gate(job, report)
        made = steps.register_version(job, run, adapter, report, decision)
    return concluded(job, made, decision)


def run(root: Path, task: str, method: MethodName | None = None, force: bool = False) -> Outcome:
    """Run the flow in this process and say how it ended; a refusal is an outcome, everything else that fails raises.

    Raises:
        PrefaceError: what stopped the run, as the step raised it.
    """
    state: State[Any] = retrain(str(root), task, method, force, return_state=True)
    return outcome_of(state, task)
