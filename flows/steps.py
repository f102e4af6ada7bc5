"""The steps that the flows share: each reads, calls a component or the registry, and writes.

What crosses from one step to the next is a path or a small frozen record, never a tensor or a model. What a step is:
``step.py``. Why a run trains at all is asked in ``reason_steps.py``.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from components import params as params_file
from components.data import read_examples
from components.errors import Stopped, StoreUnavailable
from components.fingerprint import fingerprint
from components.gates import Decision, decide
from components.machine import machine_of
from components.params import MethodName
from flows import announce, bases, data_by_hash, data_step
from flows.cancellation import Watch, undisturbed
from flows.candidate import draft, from_elsewhere
from flows.gate_page import gate_markdown, report_rows
from flows.job import Fetched, Import, Job, Registered
from flows.metric_log import MetricLog
from flows.slots import Spent
from flows.step import durations, network_step, step, write_text
from registry import artifact, checks, lifecycle, look, registration
from registry.store import Store

if TYPE_CHECKING:
    from components.report import Report
    from registry.protocol import Version


@network_step("prepare data", seconds=None)
def prepare_data(root: str, task: str) -> data_step.DataVersion:
    """Bring base and data up to date through DVC."""
    return data_step.prepare(Path(root), [task])[task]


@step(name="plan")
def plan(
    root: str, task: str, method: MethodName | None, force: bool, data: data_step.DataVersion, base: str | None = None
) -> Job:
    """Read params.yaml and settle what would be trained; on another base than the task's own if one is named."""
    settings = params_file.load(Path(root) / "params.yaml")
    chosen = settings.task(task)
    if base:
        chosen = chosen.model_copy(update={"base": settings.base(base)})
    used, pinned = method or chosen.method, settings.bases[chosen.base]
    mark = fingerprint(chosen, used, pinned.hash, data.content_hash)
    return Job(
        root=Path(root), task=task, params=chosen, method=used, base=pinned, data=data, fingerprint=mark, forced=force
    )


@network_step("look for the fingerprint")
def registered(job: Job) -> Registered | None:
    """The version that was already trained from exactly this, if any."""
    alike = [version for version in Store().by_fingerprint(job.task, job.fingerprint) if version.ready]
    first = min(alike, key=lambda version: version.number, default=None)
    if first is None:
        return None
    waits, refused = first.stage == "Staging", first.gate.verdict == "refused"
    return Registered(number=first.number, run=first.run_id, refused=refused, waits=waits)


@contextmanager
def alone(job: Job) -> Iterator[None]:
    """One run of a fingerprint at a time on this machine; freed when its process dies.

    Whoever waited finds the other's version registered, or goes on from its checkpoint.
    """
    locks = job.root / ".preface" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / job.folder.name):
        yield


@network_step("settle")
def settle(job: Job, known: Registered | None) -> None:
    """Close what a killed run of the same left behind: its MLflow run, and its folder."""
    store = Store()
    left = store.unfinished(job.task, job.fingerprint, socket.gethostname())
    if left is not None:
        store.end_run(left, "FINISHED" if known and left == known.run else "KILLED")
    shutil.rmtree(job.folder, ignore_errors=True)


@network_step("place the rows")
def place_rows(job: Job) -> None:
    """The run's own copy of its rows: out of the workspace, or by their hash out of DVC's cache or a remote."""
    data_by_hash.place(job.root, job.task, job.data, job.examples_folder)


@network_step("push data")
def push_data(job: Job) -> None:
    """Copy the prepared rows to the DVC remote: a version's rows can be had again from anywhere, by their hash."""
    data_by_hash.push(job.root, job.task, job.data.lock_entry)


@network_step("open run")
def open_run(job: Job, reasons: str = "") -> str:
    """Start the MLflow run: parameters, dataset, tags and why; or go on with that of a run that was killed here."""
    bases.ensure(job.root, job.params.base, job.base)
    store, settings, host = Store(), job.params.settings(job.method), socket.gethostname()
    left = store.unfinished(job.task, job.fingerprint, host)
    if left is not None:
        if left not in {version.run_id for version in store.by_fingerprint(job.task, job.fingerprint)}:
            return left
        store.end_run(left, "FINISHED")  # killed when its version was made: a forced run makes another
    flat = {**settings.model_dump(mode="json", exclude={"training"}), **settings.training.model_dump(mode="json")}
    name = f"{job.task}-{job.method}-{job.fingerprint[:8]}"
    tags = {"preface.fingerprint": job.fingerprint, "preface.host": host, "preface.reasons": reasons}
    run = store.start_run(job.task, name, tags, {"method": job.method, **flat})
    store.log_dataset(run, job.task, job.data.dvc_md5, job.params.data.source, "training")
    return run


@contextmanager
def closing(run: str) -> Iterator[None]:
    """End the MLflow run: FINISHED, FAILED if its steps raise, KILLED if they were stopped from outside.

    A store that is down does not hide why.
    """
    status, fault = "KILLED", ""
    try:
        yield
        status = "FINISHED"
    except Stopped:
        raise
    except Exception as error:
        status, fault = "FAILED", f"{type(error).__name__}: {error}"
        raise
    finally:
        took = [(f"seconds/{name}", seconds, 0) for name, seconds in durations.get({}).items()]
        try:
            with undisturbed():  # cancelled by its own look, it may be sent the worker's signal too
                Store().log_metrics(run, took)
                Store().end_run(run, status, fault)
        except StoreUnavailable:
            if status == "FINISHED":
                raise


@step(name="train")
def train_adapter(job: Job, run: str) -> Path:
    """Train, or go on from the checkpoint of an interrupted run; every step's figures go to MLflow."""
    import safetensors.torch

    from components import adapter_training

    base, examples = bases.of_job(job), read_examples(job.examples_folder)
    checkpoint = job.folder / "checkpoint.safetensors"
    with MetricLog(Store(), run) as metrics:
        trained = adapter_training.train_adapter(
            base, job.task, job.params, job.method, examples, checkpoint, observe=Watch(metrics)
        )
        metrics({"train_seconds": trained.seconds, "best_validation_loss": trained.best_loss}, trained.best_step)
    file = job.folder / "adapter.safetensors"
    safetensors.torch.save_file({artifact.TENSOR: trained.table}, file)
    return file


@step(name="measure baselines")
def measure_baselines(job: Job) -> Path:
    """Ask the baselines the test rows; once, for as long as base, rows and wording are the same."""
    from components import baselines
    from components.report import wording

    file, examples = job.baselines_file, read_examples(job.examples_folder)
    if not file.exists():
        base, texts = bases.of_job(job), [row.text for row in examples.of("test")]
        rows = examples.of("train"), examples.of("validation")
        found = baselines.run(base, job.params, wording(job.params), *rows, texts)
        write_text(file, json.dumps({name: asdict(answers) for name, answers in found.items()}, indent=1))
    return file


@network_step("fetch the champion")
def champion(job: Job) -> Fetched | None:
    """Today's Production version, fetched to be asked the candidate's test rows."""
    store = Store()
    found = look.current(store, job.task, "Production")
    return fetched(store, found, job.folder / "champion") if found else None


def fetched(store: Store, version: Version, to: Path) -> Fetched:
    """A copy of a version's adapter folder, verified; a store takes its own downloads away with it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(store.download(version), to)
    checks.compare(to, version)
    return Fetched(task=version.task, number=version.number, folder=to, digest=version.tag("manifest_digest"))


@step(name="evaluate")
def evaluate_adapter(job: Job, adapter: Path, baselines: Path, rival: Fetched | None) -> Path:
    """Score the candidate, the baselines and the champion on the held-out test split."""
    from safetensors.torch import load_file

    from flows import contest

    base = bases.of_job(job)
    asked = contest.in_words_of(base, job.params, job.method, load_file(adapter)[artifact.TENSOR])
    report = contest.report(base, job, asked, baselines, rival)
    return write_text(job.folder / "report.json", report.model_dump_json(indent=1))


@step(name="gate")
def gate(job: Job, report_file: Path) -> Decision:
    """Decide, and show report and verdict on the run's page."""
    report = report_in(report_file)
    baselines = {name: scored.metrics for name, scored in report.baselines.items()}
    decision = decide(report.candidate.metrics, baselines, report.in_production(), job.params.gate, report.unopposed())
    create_table_artifact(
        report_rows(report), key=f"report-{job.task}", description=f"{job.task}: scores on the test split"
    )
    create_markdown_artifact(gate_markdown(report, decision), key=f"gate-{job.task}", description=f"{job.task}: gate")
    return decision


@network_step("register")
def register_version(
    job: Job, run: str, adapter: Path, report_file: Path, decision: Decision, spent: Spent
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
        job.root,
    )  # fmt: skip
    declared = ""
    if isinstance(job, Import):
        said, declared = from_elsewhere(said, job.imported), job.imported.declared
    artifact.write(folder, load_file(adapter)[artifact.TENSOR], said)
    store.log_files(run, [report_file], registration.GATE_FOLDER)
    version = registration.register(store, folder, run, verdict, job.data.dvc_md5, job.forced, declared)
    shutil.rmtree(job.folder)
    return Registered(number=version.number, duplicate_of=version.tag("duplicate_of"))


@network_step("promote")
def promote_version(job: Job, version: int) -> None:
    """Put a version that passed into Production, as params.yaml asks for this task."""
    moved = lifecycle.promote(Store(), job.task, version, reason="promotion: auto", base_hash=job.base.hash)
    announce.moved(moved)


def report_in(file: Path) -> Report:
    from components.report import Report

    return Report.model_validate_json(file.read_text(encoding="utf-8"))
