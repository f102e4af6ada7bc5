"""The steps of evaluating a registered version again, beside those of ``steps.py``."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.config import params as params_file
from components.errors import BaseMismatch, RegistryError
from components.gates.decide import Decision
from components.io.atomic import write_text
from flows.dvc import repro
from flows.orchestration.step import network_step, step
from flows.run import bases, contestants, fetch
from flows.run.job import Evaluation, Fetched
from registry import queries
from registry.mlflow.store import Store
from registry.protocol import Stage
from registry.releases import checks, registration


@network_step("fetch the version")
def fetch_version(root: str, address: str) -> Fetched:
    """Get the version that the address names, verified; one of another base than today's is told before anything slow.

    Raises:
        BaseMismatch: it cannot be asked beside today's baselines and champion.
    """
    store = Store()
    version = queries.find(store, address)
    settings = params_file.load(Path(root) / "params.yaml")
    base = settings.bases[settings.task(version.task).base]
    fault = checks.base_fault(version, base.hash)
    if fault:
        raise BaseMismatch(
            f"{fault}; name its base for {version.task} in params.yaml to evaluate it, or train on today's with"
            f" `preface retrain {version.task}`"
        )
    return fetch.fetched(store, version, Path(root) / ".preface" / "runs" / f"evaluate-{version.name}" / "adapter")


@step(name="plan")
def plan(root: str, version: Fetched, data: repro.DataVersion) -> Evaluation:
    """Read today's rows and rules; the version's own wording, method and fingerprint stay its own.

    Raises:
        RegistryError: it answers with other labels than today's rows have.
    """
    settings, said = params_file.load(Path(root) / "params.yaml"), fetch.adapter_of(version).manifest
    chosen = settings.task(version.task)
    difference = contestants.other_labels(said, chosen)
    if difference:
        raise RegistryError(
            f"{version.task}@{version.number} cannot be scored on today's rows: {difference}; train another with"
            f" `preface retrain {version.task}`"
        )
    return Evaluation(
        root=Path(root), task=version.task, params=chosen, method=said.method, base=settings.bases[chosen.base],
        data=data, fingerprint=said.fingerprint, forced=False, version=version,
    )  # fmt: skip


@step(name="evaluate")
def evaluate_version(job: Evaluation, baselines: Path, rival: Fetched | None) -> Path:
    """Score the version in its own wording, the baselines and the champion on today's test split."""
    base, itself = bases.of_job(job), job.alone(rival)
    asked = contestants.in_its_words(base, fetch.adapter_of(job.version))
    report = contestants.report(base, job, asked, baselines, None if itself else rival, unopposed=itself)
    return write_text(job.folder / "report.json", report.model_dump_json(indent=1))


@network_step("record")
def record(job: Evaluation, report: Path, decision: Decision) -> Stage:
    """Store report and verdict with the version, and put it into Staging or out of it accordingly."""
    store = Store()
    verdict = write_text(job.folder / "gate.json", decision.model_dump_json(indent=1))
    judged = registration.judge_again(store, store.version(job.task, job.version.number), verdict, [report])
    shutil.rmtree(job.folder)
    return judged.stage
