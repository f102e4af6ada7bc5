"""The steps of taking in an adapter that was trained elsewhere, beside those of ``steps.py``."""

from __future__ import annotations

import socket
from pathlib import Path

from components.config import params as params_file
from components.errors import ArtifactError, BaseMismatch, sanitized
from components.provenance.fingerprint import import_fingerprint
from flows.dvc import repro
from flows.orchestration.step import network_step, step
from flows.run import bases
from flows.run.job import Candidate, Import, Imported
from registry.artifact import adapter_folder, peft_folder
from registry.mlflow.store import Store
from registry.releases.projection import now, user


@step(name="read the folder")
def read_folder(root: str, task: str, folder: str, declare_base: bool) -> Imported:
    """See that it is an adapter, and what proves its base.

    Raises:
        BaseMismatch: nothing proves that its base is the task's, and nobody answers for it.
    """
    settings = params_file.load(Path(root) / "params.yaml")
    name = settings.task(task).base
    found = peft_folder.read(Path(folder))
    fault = peft_folder.base_fault(found, name, settings.bases[name].hash)
    if fault and not declare_base:
        raise BaseMismatch(
            f"{fault}; name its own base for {task} in params.yaml, or say that it is this one with --declare-base:"
            " the history keeps that you did"
        )
    said = f"(its folder names {sanitized(found.base) or 'no base'}, hash {found.base_hash or 'unknown'})"
    return Imported(
        folder=found.folder, method=found.method, virtual_tokens=len(found.tensor), sha256=found.sha256,
        base=sanitized(found.base), base_hash=found.base_hash,
        declared=f"{user()}@{socket.gethostname()} {now()} {said}" if fault else "",
    )  # fmt: skip


@step(name="plan")
def plan(root: str, task: str, imported: Imported, force: bool, data: repro.DataVersion) -> Import:
    """Read params.yaml and settle what it will be asked, and beside whom."""
    settings = params_file.load(Path(root) / "params.yaml")
    chosen = settings.task(task)
    base = settings.bases[chosen.base]
    mark = import_fingerprint(chosen, imported.method, base.hash, data.content_hash, imported.sha256)
    return Import(
        root=Path(root), task=task, params=chosen, method=imported.method, base=base, data=data, fingerprint=mark,
        forced=force, imported=imported,
    )  # fmt: skip


@step(name="fit to the base")
def fit_to_base(job: Import) -> Candidate:
    """The adapter's table in the form that a training would have left it in, once it fits the base."""
    import safetensors.numpy

    found = peft_folder.read(job.imported.folder)
    if found.sha256 != job.imported.sha256:
        raise ArtifactError(
            f"{found.folder} was changed while it was read: its tensor's file had sha256 {job.imported.sha256}, now"
            f" {found.sha256}; import it again"
        )
    peft_folder.fit(found, bases.of_job(job).shape, job.params.base)
    file = job.folder / "adapter.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({adapter_folder.TENSOR: found.tensor}, file)
    return Candidate(file=file)


@network_step("open run")
def open_run(job: Import) -> str:
    """Start the MLflow run: where the adapter comes from, and the rows that it is judged on."""
    store, brought = Store(), job.imported
    tags = {
        "preface.fingerprint": job.fingerprint,
        "preface.imported": sanitized(brought.folder.name),
        "preface.imported_sha256": brought.sha256,
    }
    said = brought.model_dump(mode="json", include={"method", "virtual_tokens", "base", "base_hash", "declared"})
    run = store.start_run(job.task, f"{job.task}-import-{job.fingerprint[:8]}", tags, said)
    store.log_dataset(run, job.task, job.data.dvc_md5, job.params.data.source, "evaluation")
    return run
