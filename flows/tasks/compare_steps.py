"""The steps of a comparison: what is settled, each arm, and how it is shown. In order: ``compare_methods.py``.

What each arm came to is kept in a file of its own, so that a comparison that was interrupted goes on with the arms that
it lacks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import TypeAdapter

from components import markdown
from components.base.machine import machine_of
from components.config.params import Record
from components.config.params_faults import nearest
from components.data.prepare import read_examples
from components.errors import NotFound
from components.io.atomic import write_text
from components.provenance.fingerprint import comparison_fingerprint
from flows.orchestration.cancellation import Watch
from flows.orchestration.prefect_api import best_effort
from flows.orchestration.step import network_step, step
from flows.pages import compare_page
from flows.run import bases, place
from flows.run.candidate import libraries
from flows.run.job import Job
from registry.mlflow.store import Store


class Comparison(Job):
    """A comparison on its way; ``fingerprint`` is of everything that its figures follow from but the machine."""

    arms: list[str]

    @property
    def kept(self) -> Path:
        """The folder of what each arm came to, and of the page."""
        return self.root / ".preface" / "compare" / f"{self.task}-{self.fingerprint[:16]}"


class Shown(Record):
    """Where the page is, and its table."""

    page: Path
    rows: list[dict[str, Any]]


def settled(job: Job, arms: Sequence[str]) -> Comparison:
    """What will be compared.

    Raises:
        NotFound: an arm that there is not.
    """
    from components.evaluation.arms import arms_of

    possible = arms_of(job.params)
    for name in arms:
        if name not in possible:
            raise NotFound(f"{job.task} has no arm {name!r}{nearest(name, possible)}; it has {', '.join(possible)}")
    chosen = [name for name in possible if not arms or name in arms]
    mark = comparison_fingerprint(job.params, job.base.hash, job.data.content_hash)
    return Comparison(**{**dict(job), "fingerprint": mark, "arms": chosen})


@network_step("open run", seconds=None)  # it may have to fetch a base
def open_run(comparison: Comparison) -> str:
    """The MLflow run of the comparison; one that was killed here goes on."""
    bases.ensure(comparison.root, comparison.params.base, comparison.base)
    store = Store()
    if left := store.unfinished(comparison.task, comparison.fingerprint, place.of(comparison.root)):
        return left
    name = f"{comparison.task}-compare-{comparison.fingerprint[:8]}"
    tags = {"preface.fingerprint": comparison.fingerprint, **place.tags(comparison.root)}
    run = store.start_run(comparison.task, name, tags, {"arms": ", ".join(comparison.arms)})
    store.log_dataset(run, comparison.task, comparison.data.dvc_md5, comparison.params.data.source, "evaluation")
    return run


@step(name="ask what is not trained")
def ask_untrained(comparison: Comparison) -> None:
    """The gate's baselines, which are arms as well."""
    from components.evaluation import arms

    if all(_file(comparison, name).exists() for name in comparison.params.measured_baselines):
        return
    base, examples = bases.of_job(comparison), read_examples(comparison.examples_folder)
    for each in arms.untrained(base, comparison.params, examples):
        write_text(_file(comparison, each.arm), each.model_dump_json(indent=1))


@step(name="train an arm")
def train_arm(comparison: Comparison, arm: str) -> None:
    """One arm, unless an earlier try came to its end; that it cannot be is an end too.

    Raises:
        Stopped: somebody cancelled the comparison.
    """
    from components.evaluation import arms

    file = _file(comparison, arm)
    if file.exists():
        return
    base, examples = bases.of_job(comparison), read_examples(comparison.examples_folder)
    with Watch(lambda figures, step: None) as observe:
        found = arms.tried(base, comparison.base_folder, arm, comparison.params, examples, observe)
    write_text(file, found.model_dump_json(indent=1))


@network_step("show the comparison")
def show(comparison: Comparison, run: str) -> Shown:
    """Table, page and picture; in MLflow, on the run's page in Prefect, and in a folder here."""
    from components.evaluation.arms import Compared, Failed

    read = TypeAdapter[Compared | Failed](Compared | Failed)
    arms = [read.validate_json(_file(comparison, name).read_bytes()) for name in comparison.arms]
    compared = [each for each in arms if isinstance(each, Compared)]
    machine = machine_of(bases.of_job(comparison))
    rows, budget = read_examples(comparison.examples_folder).splits, comparison.params.prefix.training
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "base": f"{comparison.params.base} ({comparison.base.hash[:12]}), {machine.dtype}",
        "rows": ", ".join(f"{len(some)} {split}" for split, some in rows.items()),
        "budget": f"{budget.steps} steps of {budget.batch_size * budget.accumulate} rows for every arm, those of "
        f"prefix tuning in params.yaml; figures of one run, seed {budget.seed}"
        + ("; soft prompt and prefixes with `recompute`, the others without" if budget.recompute else ""),
        "machine": f"{machine.processor}, {machine.threads} threads",
        "libraries": ", ".join(f"{name} {number}" for name, number in {**libraries(), "peft": version("peft")}.items()),
    }
    table = compare_page.rows(comparison.params, arms)
    text = compare_page.page(comparison.task, comparison.params, arms, facts)
    page, data = comparison.kept / "compare.md", comparison.kept / "compare.json"
    compare_page.picture(comparison.params, compared, comparison.kept / "compare.png")
    write_text(page, text)
    write_text(data, json.dumps({"facts": facts, "arms": [each.model_dump(mode="json") for each in arms]}, indent=1))
    store = Store()
    store.log_files(run, [page, data, comparison.kept / "compare.png"], "compare")
    metrics = [(f"{each.arm}/{name}", value, 0) for each in compared for name, value in each.scored.metrics.items()]
    store.log_metrics(run, metrics)
    with best_effort("the comparison's page"):  # MLflow has it all
        create_table_artifact(
            markdown.cells(table), key=f"compare-{comparison.task}", description=f"{comparison.task}: arms compared"
        )
        create_markdown_artifact(text, key=f"compare-page-{comparison.task}")
    shutil.rmtree(comparison.folder, ignore_errors=True)  # the rows were placed there; what the arms came to is kept
    return Shown(page=page, rows=table)


def _file(comparison: Comparison, arm: str) -> Path:
    return comparison.kept / f"{arm}.json"
