"""The steps of the flow: each reads, calls a component or the registry, and writes. Prefect lives here and in retrain.

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
from functools import lru_cache, partial
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
from components.params import MethodName
from flows import data_step
from flows.candidate import draft
from flows.gate_page import gate_markdown, report_rows
from flows.job import InProduction, Job, Registered
from flows.metric_log import MetricLog
from registry import artifact, lifecycle
from registry.store import Store

if TYPE_CHECKING:
    from components.base_model import Base
    from components.report import Report


def _network_fault(_task: object, _run: object, state: Any) -> bool:
    """Retry what another try may mend: a source or a store that did not answer. Nothing else."""
    return isinstance(state.result(raise_on_failure=False), SourceUnavailable | StoreUnavailable)


def _step(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    return task(cache_policy=NO_CACHE, persist_result=False, **options)


def _network_step(name: str) -> Callable[[Callable[..., Any]], Any]:
    return _step(name=name, retries=3, retry_delay_seconds=[1, 4, 16], retry_condition_fn=_network_fault)


@lru_cache(maxsize=1)
def _base(folder: Path, expected_hash: str, name: str) -> Base:
    """The frozen base, loaded and verified once a process however many steps need it."""
    from components.base_model import load

    return load(folder, expected_hash, name)


@_network_step("prepare data")
def prepare_data(root: str, task: str) -> data_step.DataVersion:
    """Bring base and data up to date through DVC."""
    return data_step.prepare(Path(root), [task])[task]


@_step(name="plan")
def plan(root: str, task: str, method: MethodName | None, force: bool, data: data_step.DataVersion) -> Job:
    """Read params.yaml and settle what would be trained."""
    settings = params_file.load(Path(root) / "params.yaml")
    chosen = settings.task(task)
    used, base = method or chosen.method, settings.bases[chosen.base]
    mark = fingerprint(chosen, used, base.hash, data.content_hash)
    return Job(
        root=Path(root), task=task, params=chosen, method=used, base=base, data=data, fingerprint=mark, forced=force
    )


@_network_step("look for the fingerprint")
def registered(job: Job) -> Registered | None:
    """The version that was already trained from exactly this, if any."""
    alike = [version for version in Store().by_fingerprint(job.task, job.fingerprint) if version.ready]
    first = min(alike, key=lambda version: version.number, default=None)
    return Registered(number=first.number, refused=first.tag("gate") == "refused") if first else None


@_network_step("open run")
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


@_step(name="train")
def train_adapter(job: Job, run: str) -> Path:
    """Train, or go on from the checkpoint of an interrupted run; every step's figures go to MLflow."""
    import safetensors.torch

    from components.batches import rows_of
    from components.methods import build
    from components.report import wording
    from components.training import train

    base = _base(job.base_folder, job.base.hash, job.params.base)
    examples, template = read_examples(job.examples_folder), wording(job.params)
    rows, validation = (rows_of(base, template, examples.of(split)) for split in ("train", "validation"))
    method, settings = build(base, job.params, job.method), job.params.settings(job.method).training
    with MetricLog(Store(), run) as metrics:
        trained = train(
            base, method, rows, validation, settings,
            checkpoint=job.folder / "checkpoint.safetensors", observe=metrics, title=f"{job.task} {job.method}",
        )  # fmt: skip
        metrics({"train_seconds": trained.seconds, "best_validation_loss": trained.best_loss}, trained.best_step)
    file = job.folder / "adapter.safetensors"
    safetensors.torch.save_file({artifact.TENSOR: trained.table}, file)
    return file


@_step(name="measure baselines")
def measure_baselines(job: Job) -> Path:
    """Ask the baselines the test rows; once, for as long as base, rows and wording are the same."""
    from components import baselines
    from components.report import wording

    file, examples = job.baselines_file, read_examples(job.examples_folder)
    if not file.exists():
        base, texts = _base(job.base_folder, job.base.hash, job.params.base), [row.text for row in examples.of("test")]
        rows = examples.of("train"), examples.of("validation")
        found = baselines.run(base, job.params, wording(job.params), *rows, texts)
        _write(file, json.dumps({name: asdict(answers) for name, answers in found.items()}, indent=1))
    return file


@_network_step("fetch the champion")
def champion(job: Job) -> InProduction | None:
    """Today's Production version, fetched to be asked the candidate's test rows."""
    store, folder = Store(), job.folder / "champion"
    found = lifecycle.current(store, job.task, "Production")
    if found is None:
        return None
    # A store takes its downloads away with it: the next step needs a copy that stays.
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.download(found), folder)
    return InProduction(number=found.number, folder=folder)


@_step(name="evaluate")
def evaluate_adapter(job: Job, adapter: Path, baselines: Path, rival: InProduction | None) -> Path:
    """Score the candidate, the baselines and the champion on the held-out test split."""
    import torch
    from safetensors.torch import load_file

    from components.baselines import Answers
    from components.inference import answer, from_artifact
    from components.report import evaluate
    from components.template import Template

    base = _base(job.base_folder, job.base.hash, job.params.base)
    answers, reason = None, ""
    if rival:
        stored = artifact.read(rival.folder)
        said, labels = stored.manifest, job.params.data.labels
        if said.base.hash != job.base.hash:
            reason = (
                f"it needs the base {said.base.hash}, the candidate's is {job.base.hash}; take the "
                "champion rules out of the gate for the first version on a new base"
            )
        elif set(said.labels or ()) != set(labels or ()):
            reason = (
                f"it answers with the labels {sorted(said.labels or ())}, the candidate with {sorted(labels or ())}"
            )
        else:
            prefix = from_artifact(base, said.method, torch.from_numpy(stored.tensor))
            own_wording = Template(said.template, said.labels, said.max_tokens)
            answers = partial(answer, base, prefix, own_wording, max_new_tokens=said.max_new_tokens)
    report = evaluate(
        base, job.task, job.params, job.method, read_examples(job.examples_folder),
        from_artifact(base, job.method, load_file(adapter)[artifact.TENSOR]),
        {name: Answers(**given) for name, given in json.loads(baselines.read_text(encoding="utf-8")).items()},
        answers, rival.number if rival else None, reason,
    )  # fmt: skip
    return _write(job.folder / "report.json", report.model_dump_json(indent=1))


@_step(name="gate")
def gate(job: Job, report_file: Path) -> Decision:
    """Decide, and show report and verdict on the run's page."""
    report = _report(report_file)
    baselines = {name: scored.metrics for name, scored in report.baselines.items()}
    decision = decide(report.candidate.metrics, baselines, report.in_production(), job.params.gate)
    create_table_artifact(
        report_rows(report), key=f"report-{job.task}", description=f"{job.task}: scores on the test split"
    )
    create_markdown_artifact(gate_markdown(report, decision), key=f"gate-{job.task}", description=f"{job.task}: gate")
    return decision


@_network_step("register")
def register_version(job: Job, run: str, adapter: Path, report_file: Path, decision: Decision) -> Registered:
    """Write the adapter folder, register it with its report, and clear the run's own folder."""
    from safetensors.numpy import load_file

    base, store = _base(job.base_folder, job.base.hash, job.params.base), Store()
    verdict, folder = job.folder / "gate.json", job.folder / "adapter"
    _write(verdict, decision.model_dump_json(indent=1))
    report = _report(report_file)
    store.log_metrics(run, [(f"test_{name}", value, 0) for name, value in report.candidate.metrics.items()])
    said = draft(
        job.task, job.params, job.method, base.hash, base.shape, job.data, job.fingerprint, report, job.root
    )  # fmt: skip
    artifact.write(folder, load_file(adapter)[artifact.TENSOR], said)
    store.log_files(run, [report_file], lifecycle.GATE_FOLDER)
    version = lifecycle.register(store, folder, run, verdict, job.data.dvc_md5, forced=job.forced)
    shutil.rmtree(job.folder)
    return Registered(number=version.number, duplicate_of=version.tag("duplicate_of"))


@_network_step("promote")
def promote_version(job: Job, version: int) -> None:
    """Put a version that passed into Production, as params.yaml asks for this task."""
    lifecycle.promote(Store(), job.task, version, reason="promotion: auto", base_hash=job.base.hash)


def _write(file: Path, text: str) -> Path:
    """Whole or not at all: a file that is there is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    return part.replace(file)


def _report(file: Path) -> Report:
    from components.report import Report

    return Report.model_validate_json(file.read_text(encoding="utf-8"))
