"""The steps that the flows share: each reads, calls a component or the registry, and writes.

What crosses from one step to the next is a path or a small frozen record, never a tensor or a model. What a step is:
``step.py``. Why a run trains at all is asked in ``reason_steps.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from components import markdown
from components.base.machine import machine_of
from components.config import params as params_file
from components.config.params import MethodName
from components.data.prepare import read_examples
from components.errors import NotFound, PromotionConflict, PromotionRefused
from components.gates.decide import Decision, decide
from components.io.atomic import write_text
from components.provenance.fingerprint import fingerprint
from flows.dvc import by_hash, repro
from flows.orchestration import events
from flows.orchestration.cancellation import Watch
from flows.orchestration.concurrency import Spent
from flows.orchestration.prefect_api import best_effort
from flows.orchestration.step import network_step, step
from flows.pages.gate_page import gate_markdown, report_rows
from flows.run import bases, fetch
from flows.run.candidate import draft, from_elsewhere
from flows.run.job import Candidate, Fetched, Import, Job, Promotion, Registered
from flows.run.metric_log import MetricLog
from flows.tasks import warm_start
from flows.tasks.run_steps import CHECKPOINT, FLOW_RUN
from registry import queries
from registry.artifact import adapter_folder
from registry.mlflow.store import Store
from registry.protocol import Version
from registry.releases import lifecycle, registration
from registry.releases.projection import repair

if TYPE_CHECKING:
    from components.evaluation.report import Report


@network_step("prepare data", seconds=None)
def prepare_data(root: str, task: str) -> repro.DataVersion:
    """Bring base and data up to date through DVC."""
    return repro.prepare(Path(root), [task])[task]


@step(name="plan")
def plan(
    root: str, task: str, method: MethodName | None, force: bool, data: repro.DataVersion, base: str | None = None
) -> Job:
    """Read params.yaml and settle what would be trained; on another base than the task's own if one is named.

    Then a pass waits in Staging, whatever the task says: whoever asked promotes it, and changes params.yaml with it.
    """
    settings = params_file.load(Path(root) / "params.yaml")
    chosen = settings.task(task)
    if base:
        chosen = chosen.model_copy(update={"base": settings.base(base), "promotion": "manual"})
    used, pinned = method or chosen.method, settings.bases[chosen.base]
    mark = fingerprint(chosen, used, pinned.hash, data.content_hash)
    return Job(
        root=Path(root), task=task, params=chosen, method=used, base=pinned, data=data, fingerprint=mark, forced=force
    )


@network_step("look for the fingerprint")
def registered(job: Job, first: str = "") -> Registered | None:
    """The version that was already trained from exactly this, if any; what a kill left of it is mended before.

    Args:
        first: the flow run whose first or later attempt this is; where it was forced, its own version is meant.
    """
    store = Store()
    alike = [version for version in store.by_fingerprint(job.task, job.fingerprint) if version.ready]
    if not alike:
        return None
    repair(store, job.task)
    own = [version for version in alike if first and _flow_run(store, version) == first]
    counts = own if own and job.forced else alike
    found = store.version(job.task, min(version.number for version in counts))
    waits, refused = found.stage == "Staging", found.gate.verdict == "refused"
    return Registered(number=found.number, run=found.run_id, refused=refused, waits=waits, own=bool(own))


def _flow_run(store: Store, version: Version) -> str:
    """Prefect's run that made a version; empty where its MLflow run is gone for good."""
    try:
        return store.run(version.run_id).tags.get(FLOW_RUN, "")
    except NotFound:
        return ""


@contextmanager
def fingerprint_lock(job: Job) -> Iterator[None]:
    """One run of a fingerprint at a time in this project folder; freed when its process dies.

    Whoever waited finds the other's version registered, or goes on from its checkpoint.
    """
    locks = job.root / ".preface" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / job.folder.name):
        yield


@network_step("place the rows")
def place_rows(job: Job) -> None:
    """The run's own copy of its rows: out of the workspace, or by their hash out of DVC's cache or a remote."""
    by_hash.place(job.root, job.task, job.data, job.examples_folder)


@network_step("push data")
def push_data(job: Job) -> None:
    """Copy the prepared rows to the DVC remote: a version's rows can be had again from anywhere, by their hash."""
    by_hash.push(job.root, job.task, job.data.lock_entry)


@step(name="train")
def train_adapter(job: Job, run: str, start: Fetched | None = None) -> Candidate:
    """Train, or go on from the checkpoint of an interrupted run; every step's figures go to MLflow.

    Args:
        start: a version to train from as well.
    """
    import safetensors.torch

    from components.training import adapter_training

    base, examples = bases.of_job(job), read_examples(job.examples_folder)
    checkpoint, table = job.folder / CHECKPOINT, warm_start.table(start) if start else None
    with MetricLog(Store(), run) as metrics, Watch(metrics) as observe:
        trained = adapter_training.train_adapter(
            base, job.task, job.params, job.method, examples, checkpoint, observe, table
        )
        metrics({"train_seconds": trained.seconds, "best_validation_loss": trained.best_loss}, trained.best_step)
    file = job.folder / "adapter.safetensors"
    safetensors.torch.save_file({adapter_folder.TENSOR: trained.table}, file)
    return Candidate(file=file, starts=dict(trained.starts))


@step(name="measure baselines")
def measure_baselines(job: Job) -> Path:
    """Ask the baselines the test rows; once, for as long as base, rows and wording are the same."""
    from components.data.template import Template
    from components.evaluation import baselines

    file, examples = job.baselines_file, read_examples(job.examples_folder)
    if not file.exists():
        base, texts = bases.of_job(job), [row.text for row in examples.of("test")]
        rows = examples.of("train"), examples.of("validation")
        found = baselines.run(base, job.params, Template.of(job.params), *rows, texts)
        write_text(file, json.dumps({name: asdict(answers) for name, answers in found.items()}, indent=1))
    return file


@network_step("fetch the champion", seconds=None)  # its base may have to be fetched as well
def champion(job: Job) -> Fetched | None:
    """Today's Production version, fetched to be asked the candidate's test rows, and its base if that is another."""
    store = Store()
    found = queries.current(store, job.task, "Production")
    if found is None:
        return None
    bases.obtain(job.root, found.tag("base_hash"))
    return fetch.fetched(store, found, job.folder / "champion")


@step(name="evaluate")
def evaluate_adapter(job: Job, candidate: Candidate, baselines: Path, rival: Fetched | None) -> Path:
    """Score the candidate, the baselines and the champion on the held-out test split."""
    from safetensors.torch import load_file

    from flows.run import contestants

    base = bases.of_job(job)
    asked = contestants.in_words_of(base, job.params, job.method, load_file(candidate.file)[adapter_folder.TENSOR])
    report = contestants.report(base, job, asked, baselines, rival)
    report = report.model_copy(update={"starts": candidate.starts})
    return write_text(job.folder / "report.json", report.model_dump_json(indent=1))


@step(name="gate")
def gate(job: Job, report_file: Path) -> Decision:
    """Decide, and show report and verdict on the run's page."""
    report = report_in(report_file)
    baselines = {name: scored.metrics for name, scored in report.baselines.items()}
    decision = decide(report.candidate.metrics, baselines, report.in_production(), job.params.gate, report.unopposed())
    rows, page = report_rows(report), gate_markdown(report, decision)
    with best_effort("the gate's page"):  # MLflow has both
        create_table_artifact(
            markdown.cells(rows), key=f"report-{job.task}", description=f"{job.task}: scores on the test split"
        )
        create_markdown_artifact(page, key=f"gate-{job.task}", description=f"{job.task}: gate")
    return decision


@network_step("register")
def register_version(
    job: Job, run: str, candidate: Candidate, report_file: Path, decision: Decision, spent: Spent
) -> Registered:
    """Write the adapter folder, register it with its report and what it cost, and clear the run's own folder."""
    from safetensors.numpy import load_file

    base, store = bases.of_job(job), Store()
    verdict, folder = job.folder / "gate.json", job.folder / "adapter"
    write_text(verdict, decision.model_dump_json(indent=1))
    report = report_in(report_file)
    figures = {f"test_{name}": value for name, value in report.candidate.metrics.items()} | spent.model_dump()
    store.log_metrics(run, [(name, float(value), 0) for name, value in figures.items()])
    said = draft(
        job.task, job.params, job.method, base.hash, base.shape, job.data, job.fingerprint, report, machine_of(base),
        job.root, job.start,
    )  # fmt: skip
    declared = ""
    if isinstance(job, Import):
        said, declared = from_elsewhere(said, job.imported), job.imported.declared
    adapter_folder.write(folder, load_file(candidate.file)[adapter_folder.TENSOR], said)
    version = registration.register(
        store, folder, run, verdict, job.data.dvc_md5, job.forced, declared, evidence=[report_file]
    )
    shutil.rmtree(job.folder)
    return Registered(number=version.number, duplicate_of=version.tag("duplicate_of"))


@network_step("promote")
def promote_version(job: Job, version: int) -> None:
    """Put a version that passed into Production, as params.yaml asks for this task."""
    moved = lifecycle.promote(Store(), job.task, version, reason="promotion: auto", base_hash=job.base.hash)
    events.moved(moved)


def promote_passed(job: Job, made: Registered, decision: Decision) -> Promotion:
    """Put a candidate that passed into Production, where the task asks for that."""
    return _promote(job, made.number) if decision.passed and not made.duplicate_of else Promotion()


def promote_waiting(job: Job, known: Registered | None) -> Promotion:
    """The same for a version that passed in an earlier run, which ended before it could do so."""
    return _promote(job, known.number) if known and known.waits else Promotion()


def _promote(job: Job, version: int) -> Promotion:
    if not job.promotes:
        return Promotion()
    try:
        promote_version(job, version)
    except (PromotionConflict, PromotionRefused) as error:  # something came in between
        return Promotion(kept=str(error))
    return Promotion(done=True)


def report_in(file: Path) -> Report:
    from components.evaluation.report import Report

    return Report.model_validate_json(file.read_text(encoding="utf-8"))
