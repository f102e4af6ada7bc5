"""The steps that the flows share: each reads, calls a component or the registry, and writes.

What crosses from one step to the next is a path or a small frozen record, never a tensor or a model. Tasks use
NO_CACHE, since Prefect's cache keys do not see a change in the code that a thin task calls; the fingerprint is the
cache. Only steps that touch a network are retried, and only for its faults.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from components import params as params_file
from components.base_hash import require
from components.data import read_examples
from components.errors import SourceUnavailable, StoreUnavailable
from components.fingerprint import fingerprint
from components.gates import Decision, decide
from components.machine import machine_of
from components.params import MethodName
from flows import data_by_hash, data_step
from flows.candidate import draft, from_elsewhere
from flows.gate_page import gate_markdown, report_rows
from flows.job import Fetched, Import, Job, Registered
from flows.metric_log import MetricLog
from registry import artifact, checks, lifecycle, look, registration
from registry.store import Store

if TYPE_CHECKING:
    from components.base_model import Base
    from components.report import Report
    from registry.protocol import Version


def _network_fault(_task: object, _run: object, state: Any) -> bool:
    """Retry what another try may mend: a source or a store that did not answer. Nothing else."""
    return isinstance(state.result(raise_on_failure=False), SourceUnavailable | StoreUnavailable)


def step(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    return task(cache_policy=NO_CACHE, persist_result=False, **options)


def network_step(name: str) -> Callable[[Callable[..., Any]], Any]:
    return step(name=name, retries=3, retry_delay_seconds=[1, 4, 16], retry_condition_fn=_network_fault)


def base_of(job: Job) -> Base:
    """The job's frozen base."""
    return load_base(job.base_folder, job.base.hash, job.params.base)


@lru_cache(maxsize=1)
def load_base(folder: Path, expected_hash: str, name: str) -> Base:
    """Loaded and verified once a process however many steps need it."""
    from components.base_model import load

    return load(folder, expected_hash, name)


@network_step("prepare data")
def prepare_data(root: str, task: str) -> data_step.DataVersion:
    """Bring base and data up to date through DVC."""
    return data_step.prepare(Path(root), [task])[task]


@step(name="plan")
def plan(root: str, task: str, method: MethodName | None, force: bool, data: data_step.DataVersion) -> Job:
    """Read params.yaml and settle what would be trained."""
    settings = params_file.load(Path(root) / "params.yaml")
    chosen = settings.task(task)
    used, base = method or chosen.method, settings.bases[chosen.base]
    mark = fingerprint(chosen, used, base.hash, data.content_hash)
    return Job(
        root=Path(root), task=task, params=chosen, method=used, base=base, data=data, fingerprint=mark, forced=force
    )


@network_step("look for the fingerprint")
def registered(job: Job) -> Registered | None:
    """The version that was already trained from exactly this, if any."""
    alike = [version for version in Store().by_fingerprint(job.task, job.fingerprint) if version.ready]
    first = min(alike, key=lambda version: version.number, default=None)
    return Registered(number=first.number, refused=first.gate.verdict == "refused") if first else None


@network_step("push data")
def push_data(job: Job) -> None:
    """Copy the prepared rows to the DVC remote: a version's rows can be had again from anywhere, by their hash."""
    data_by_hash.push(job.root, job.task, job.data.lock_entry)


@network_step("open run")
def open_run(job: Job) -> str:
    """Start the MLflow run: parameters, dataset and tags."""
    require(job.base_folder, job.base.hash)
    store, settings = Store(), job.params.settings(job.method)
    flat = {**settings.model_dump(mode="json", exclude={"training"}), **settings.training.model_dump(mode="json")}
    name = f"{job.task}-{job.method}-{job.fingerprint[:8]}"
    run = store.start_run(job.task, name, {"preface.fingerprint": job.fingerprint}, {"method": job.method, **flat})
    store.log_dataset(run, job.task, job.data.dvc_md5, job.params.data.source, "training")
    return run


@contextmanager
def closing(run: str) -> Iterator[None]:
    """End the MLflow run as FINISHED, or as FAILED if its steps raise; a store that is down does not hide why."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        try:
            Store().end_run(run, status)
        except StoreUnavailable:
            if status == "FINISHED":
                raise


@step(name="train")
def train_adapter(job: Job, run: str) -> Path:
    """Train, or go on from the checkpoint of an interrupted run; every step's figures go to MLflow."""
    import safetensors.torch

    from components import adapter_training

    base, examples = base_of(job), read_examples(job.examples_folder)
    checkpoint = job.folder / "checkpoint.safetensors"
    with MetricLog(Store(), run) as metrics:
        trained = adapter_training.train_adapter(
            base, job.task, job.params, job.method, examples, checkpoint, observe=metrics
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
        base, texts = base_of(job), [row.text for row in examples.of("test")]
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

    base = base_of(job)
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
def register_version(job: Job, run: str, adapter: Path, report_file: Path, decision: Decision) -> Registered:
    """Write the adapter folder, register it with its report, and clear the run's own folder."""
    from safetensors.numpy import load_file

    base, store = base_of(job), Store()
    verdict, folder = job.folder / "gate.json", job.folder / "adapter"
    write_text(verdict, decision.model_dump_json(indent=1))
    report = report_in(report_file)
    store.log_metrics(run, [(f"test_{name}", value, 0) for name, value in report.candidate.metrics.items()])
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
    lifecycle.promote(Store(), job.task, version, reason="promotion: auto", base_hash=job.base.hash)


def write_text(file: Path, text: str) -> Path:
    """Whole or not at all: a file that is there is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    return part.replace(file)


def report_in(file: Path) -> Report:
    from components.report import Report

    return Report.model_validate_json(file.read_text(encoding="utf-8"))
