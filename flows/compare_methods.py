"""Compare the ways to adapt a base to a task on one split and one budget: nothing is registered, all is written down.

What an arm is: ``evaluation/arms.py``; the steps: ``compare_steps.py``; how it is shown: ``compare_page.py``.
"""

# No `from __future__ import annotations` here, as in retrain.py.

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from components.errors import Stopped
from flows.local_stack import temporary_server
from flows.orchestration import cancellation, concurrency, run_logging
from flows.tasks import compare_steps, run_steps, steps
from flows.tasks.compare_steps import Shown


@flow(name="compare", flow_run_name="{task}", persist_result=False)
def compare(root: str, task: str, arms: list[str]) -> State[Any]:
    """Train and ask the arms, one after the other.

    Args:
        root: the folder of params.yaml.
        task: a task of it.
        arms: which of its arms; all of them if there are none named.
    """
    run_logging.begin(task=task)
    try:
        data = steps.prepare_data(root, task)
        comparison = compare_steps.settled(steps.plan(root, task, None, True, data), arms)
        run_logging.about(fingerprint=comparison.fingerprint)
        with steps.fingerprint_lock(comparison):
            steps.place_rows(comparison)
            run = compare_steps.open_run(comparison)
            run_logging.about(run=run)
            with run_steps.closing(run), concurrency.training_slot():
                if not set(comparison.arms).isdisjoint(comparison.params.measured_baselines):
                    compare_steps.ask_untrained(comparison)
                for arm in comparison.arms:
                    cancellation.check()
                    if arm not in comparison.params.measured_baselines:
                        compare_steps.train_arm(comparison, arm)
                shown = compare_steps.show(comparison, run)
    except Stopped as error:
        return Cancelled(message=f"{task}: {error}")
    return Completed(name="Compared", message=f"{task}: {len(comparison.arms)} arms compared", data=shown)


def run(root: Path, task: str, arms: Sequence[str]) -> Shown:
    """Run the flow in this process.

    Raises:
        Stopped: somebody cancelled it; asked for again, it goes on with the arms that it lacks.
        PrefaceError: what stopped the run, as the step raised it.
    """
    with temporary_server.at_hand(root):
        state: State[Any] = compare(str(root), task, list(arms), return_state=True)
    if isinstance(state.data, Shown):
        return state.data
    if state.is_cancelled():
        raise Stopped(state.message or f"the comparison of {task} was cancelled")
    found: Shown = state.result()
    return found
