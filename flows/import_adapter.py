"""Take in an adapter that was trained elsewhere: read -> prepare -> evaluate -> gate -> register, like any candidate.

Nothing is trained and no gate is spared: it answers the task's test rows in the task's wording. A base that nothing
proves to be the task's is refused before anything is done, unless somebody answers for it by name.
"""

# No `from __future__ import annotations` here, as in retrain.py.

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.local_stack import temporary_server
from flows.orchestration import concurrency, run_logging
from flows.run.job import Outcome
from flows.tasks import import_steps, run_steps, steps
from flows.tasks.outcome import end, outcome_of, registered_outcome


@flow(name="import", flow_run_name="{task}", persist_result=False)
def take_in(root: str, task: str, folder: str, declare_base: bool = False, force: bool = False) -> State[Any]:
    """Import one adapter folder of PEFT's, or of Preface's own.

    Args:
        root: the folder of params.yaml.
        task: a task of params.yaml.
        folder: holds adapter_config.json and adapter_model.safetensors.
        declare_base: the caller answers for its base being the task's.
        force: import it although the same was imported.
    """
    run_logging.begin(task=task)
    imported = import_steps.read_folder(root, task, folder, declare_base)
    data = steps.prepare_data(root, task)
    job = import_steps.plan(root, task, imported, force, data)
    run_logging.about(fingerprint=job.fingerprint)
    with steps.fingerprint_lock(job):
        known = steps.registered(job)
        if known and not force:
            why = f"nothing new: {job.why_unchanged(known)}; --force imports it all the same"
            return end("Unchanged", job, known.number, why)
        candidate = import_steps.fit_to_base(job)
        steps.place_rows(job)
        steps.push_data(job)
        run = import_steps.open_run(job)
        run_logging.about(run=run)
        with run_steps.closing(run), concurrency.training_slot() as held:
            report = steps.evaluate_adapter(job, candidate, steps.measure_baselines(job), steps.champion(job))
            decision = steps.gate(job, report)
            made = steps.register_version(job, run, candidate, report, decision, held.spent())
    return registered_outcome(job, made, decision, steps.promote_passed(job, made, decision))


def run(root: Path, task: str, folder: Path, declare_base: bool = False, force: bool = False) -> Outcome:
    """Run the flow in this process and say how it ended; a refusal is an outcome, everything else that fails raises.

    Raises:
        PrefaceError: what stopped the run, as the step raised it.
    """
    with temporary_server.at_hand(root):
        state: State[Any] = take_in(str(root), task, str(folder.absolute()), declare_base, force, return_state=True)
    return outcome_of(state, task)
