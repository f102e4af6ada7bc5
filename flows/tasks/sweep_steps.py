"""The steps of a sweep: a run that was asked to look for better settings first, and trains by those that it found.

The version that comes of it is what a run with those settings in params.yaml would make, trained from its beginning:
how it was found is told by its run's tag ``preface.sweep``. What a sweep does is in ``components/training/sweep.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from components import markdown
from components.config.params import MethodName, Record
from components.config.sweep_params import apply_overrides
from components.data.prepare import read_examples
from components.io.atomic import write_text
from components.provenance.fingerprint import fingerprint, sweep_fingerprint
from components.records import METHODS
from flows.orchestration import concurrency, run_logging
from flows.orchestration.cancellation import Watch
from flows.orchestration.prefect_api import best_effort
from flows.orchestration.step import network_step, step
from flows.run import bases, place
from flows.run.job import Job
from flows.run.metric_log import MetricLog
from flows.tasks import run_steps, steps
from registry.mlflow.store import Store

if TYPE_CHECKING:
    from components.training.loop import Observe
    from components.training.sweep import Trial, Tried

FAULT = "preface.sweep.fault"  # tag of the MLflow run of a trial that diverged


class Search(Job):
    """A sweep on its way; ``fingerprint`` is of everything that its choice follows from."""

    methods: tuple[MethodName, ...]

    @property
    def result_file(self) -> Path:
        """What it came to: as good as new for as long as nothing that it follows from changes."""
        return self.root / ".preface" / "sweeps" / f"{self.task}-{self.fingerprint[:16]}.json"


class Found(Record):
    """The settings that won, by dotted name, and the MLflow run of the sweep that says the rest."""

    run: str
    method: MethodName
    choice: dict[str, Any]


def chosen(job: Job, method: MethodName | None) -> Job:
    """The job with the settings that do best on its validation rows.

    Args:
        method: among whose settings to look; those of every method that the sweep has a space for if None.
    """
    search = search_of(job, (method,) if method else METHODS)
    with steps.fingerprint_lock(search):
        if not search.result_file.exists():
            steps.place_rows(search)
            run = open_sweep(search)
            run_logging.about(run=run)
            with run_steps.closing(run), concurrency.training_slot():
                try_settings(search, run)
            run_logging.about(run="")  # what follows has a run of its own
        found = Found.model_validate_json(search.result_file.read_text(encoding="utf-8"))
        shutil.rmtree(search.folder, ignore_errors=True)
    return with_settings(job, found)


def search_of(job: Job, methods: Sequence[MethodName]) -> Search:
    """What will be looked for."""
    from components.training.sweep import trials_of

    trials_of(job.params, methods)  # a space that offers no choice is told before anything is brought
    mark = sweep_fingerprint(job.params, methods, job.base.hash, job.data.content_hash)
    return Search(**{**dict(job), "fingerprint": mark, "methods": tuple(methods)})


def with_settings(job: Job, found: Found) -> Job:
    """The job as it would be with those settings in params.yaml."""
    params = job.params.with_settings(found.method, found.choice)
    mark = fingerprint(params, found.method, job.base.hash, job.data.content_hash)
    return job.model_copy(update={"params": params, "method": found.method, "fingerprint": mark, "sweep": found.run})


@network_step("open sweep", seconds=None)  # it may have to fetch a base
def open_sweep(search: Search) -> str:
    """The MLflow run above those of the trials; that of a sweep that was killed here goes on."""
    bases.ensure(search.root, search.params.base, search.base)
    space = search.params.sweep.model_dump(mode="json") if search.params.sweep else {}
    run = _opened(search, search.fingerprint, "sweep", {}, {"methods": list(search.methods), **space})
    Store().log_dataset(run, search.task, search.data.dvc_md5, search.params.data.source, "training")
    return run


@step(name="sweep")
def try_settings(search: Search, run: str) -> None:
    """Train the trials, each a run in MLflow under the sweep's own, and write down which won."""
    from components.training import sweep

    base, examples, store = bases.of_job(search), read_examples(search.examples_folder), Store()
    opened: dict[int, str] = {}
    with Watch(lambda figures, step: None) as watch, ExitStack() as logs:

        def observe(trial: Trial) -> Observe:
            opened[trial.number] = _open_trial(search, trial, run)
            log = logs.enter_context(MetricLog(store, opened[trial.number]))

            def both(figures: dict[str, float], step: int) -> None:
                log(figures, step)
                watch(figures, step)

            return both

        @logs.push
        def stopped(kind: type[BaseException] | None, *_: object) -> bool:
            for child in opened.values() if kind else ():
                store.end_run(child, "KILLED")
            return False

        trials = sweep.trials_of(search.params, search.methods)
        tried = sweep.sweep(base, search.params, trials, examples, search.folder, observe)
    for each in tried:
        # One that was out before a kill was not begun again; its run waits for its end all the same.
        child = opened.get(each.trial.number) or _open_trial(search, each.trial, run)
        store.log_metrics(child, [("best_validation_loss", each.loss, each.steps)])
        if each.fault:
            store.tag_run(child, FAULT, each.fault)
        store.end_run(child, "FINISHED")
    best = tried[0]
    store.log_metrics(run, [("best_validation_loss", best.loss, best.steps)])
    store.tag_run(run, "preface.sweep.winner", json.dumps({best.trial.method: best.trial.choice}))
    _tell(search, tried)
    found = Found(run=run, method=best.trial.method, choice=dict(best.trial.choice))
    write_text(search.result_file, found.model_dump_json(indent=1))


def _open_trial(search: Search, trial: Trial, parent: str) -> str:
    mark = f"{search.fingerprint}/{trial.number}"
    tags = {"mlflow.parentRunId": parent}
    return _opened(search, mark, f"trial-{trial.number}", tags, {"method": trial.method, **trial.choice})


def _opened(search: Search, mark: str, name: str, tags: dict[str, str], said: dict[str, Any]) -> str:
    """A new run of that mark, or the one that was left open in this project folder."""
    store = Store()
    left = store.unfinished(search.task, mark, place.of(search.root))
    if left is not None:
        return left
    own = {"preface.sweep.fingerprint": search.fingerprint, "preface.fingerprint": mark, **place.tags(search.root)}
    return store.start_run(search.task, f"{search.task}-{name}-{search.fingerprint[:8]}", own | tags, said)


def _tell(search: Search, tried: list[Tried]) -> None:
    """The trials by how far they came, and what one writes into params.yaml to train by the best from now on."""
    log, best = get_run_logger(), tried[0].trial
    rows = [
        {"trial": str(each.trial), "steps": each.steps, "validation loss": round(each.loss, 4), "fault": each.fault}
        for each in tried
    ]
    for row in rows:
        log.info("%s: after %s steps, validation loss %s %s", *row.values())
    line = yaml.safe_dump({best.method: apply_overrides({}, best.choice)}, default_flow_style=True).strip()[1:-1]
    log.info("%s won; scheduled runs train by it once params.yaml says, under %s: `%s`", best, search.task, line)
    with best_effort("the sweep's table"):  # MLflow has it all
        create_table_artifact(
            markdown.cells(rows), key=f"sweep-{search.task}", description=f"{search.task}: trials of the sweep"
        )
