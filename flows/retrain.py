"""THE flow: prepare -> why? -> push the rows -> train -> evaluate -> gate -> register -> promote. Read it downwards.

What each step does is in ``steps.py`` and ``run_steps.py``, why a run trains in ``reason_steps.py``, what a judged
candidate becomes in ``outcome.py``, all in tasks/; how, in components/ and registry/. A run that finds its fingerprint
registered ends green without training. A candidate that the gate refuses is registered all the same, with its report,
and the run ends FAILED under the name GateRefused, never retried.
"""

# No `from __future__ import annotations` here: Prefect reads the annotations of a deployed flow.

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from components.config.params import MethodName
from components.errors import Stopped
from flows.dvc.repro import DataVersion
from flows.local_stack import temporary_server
from flows.orchestration import concurrency, run_logging
from flows.process import local_project
from flows.run.job import Outcome
from flows.tasks import reason_steps, run_steps, steps, sweep_steps, warm_start
from flows.tasks.outcome import outcome_of, registered_outcome, skipped_outcome
from flows.tasks.reason_steps import Cause


@flow(name="retrain", flow_run_name="{task}", persist_result=False)
def retrain(
    task: str,
    root: str | None = None,
    method: MethodName | None = None,
    force: bool = False,
    base: str | None = None,
    data: DataVersion | None = None,
    cause: Cause = "schedule",
    attempt: int = 1,
    first: str = "",
    sweep: bool = False,
) -> State[Any]:
    """Retrain one task's adapter from whatever its source holds now, if there is reason to.

    Args:
        task: a task of params.yaml.
        root: the folder of params.yaml; that of the working directory if not given.
        method: another method than the task's own.
        force: train although the fingerprint is registered.
        base: another base than the task's own.
        data: rows that were prepared and pushed already; a run that is given some prepares nothing.
        cause: who wants it: somebody by hand, a schedule, an event, a fleet or a rebase.
        attempt: which this is, where earlier ones crashed.
        first: the first of them, by its id in Prefect.
        sweep: look for better settings first, among those that params.yaml names.
    """
    run_logging.begin(task=task)
    root, handed = root or str(local_project.find_root(Path.cwd())), data is not None
    try:
        with run_steps.record_early_failure(task):
            data = data or steps.prepare_data(root, task)
            job = steps.plan(root, task, method, force, data, base)
            if sweep:
                job = sweep_steps.chosen(job, method)
            job = warm_start.settled(job)
            run_logging.about(fingerprint=job.fingerprint)
            with steps.fingerprint_lock(job):
                known = steps.registered(job, first := first or str(flow_run.id))
                verdict = reason_steps.weigh(job, cause, known)
                if verdict.action != "train":
                    run_steps.clean_up(job, known)
                    return skipped_outcome(job, verdict, known, steps.promote_waiting(job, known))
                steps.place_rows(job)
                if not handed:
                    steps.push_data(job)
                run = run_steps.open_run(job, str(verdict), first)
                run_logging.about(run=run)
                with run_steps.closing(run), concurrency.training_slot() as held:
                    candidate = steps.train_adapter(job, run, warm_start.fetched(job))
                    report = steps.evaluate_adapter(job, candidate, steps.measure_baselines(job), steps.champion(job))
                    decision = steps.gate(job, report)
                    made = steps.register_version(job, run, candidate, report, decision, held.spent())
            return registered_outcome(job, made, decision, steps.promote_passed(job, made, decision))
    except Stopped as error:
        return Cancelled(message=f"{task}: {error}")


def run(root: Path, task: str, method: MethodName | None = None, force: bool = False, sweep: bool = False) -> Outcome:
    """Run the flow in this process and say how it ended; a refusal is an outcome, everything else that fails raises.

    Raises:
        PrefaceError: what stopped the run, as the step raised it.
    """
    with temporary_server.at_hand(root):
        state: State[Any] = retrain(task, str(root), method, force, cause="hand", sweep=sweep, return_state=True)
    return outcome_of(state, task)
