"""The steps that open, close and bring to an end a flow run's own run in MLflow, and its folder here.

What is done in between, and what is registered, is in ``steps.py``.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.logging import get_run_logger

from components.errors import RegistryError, Stopped, StoreUnavailable
from flows.orchestration import run_logging
from flows.orchestration.cancellation import defer_sigterm
from flows.orchestration.step import durations, network_step, step
from flows.run import bases, place
from flows.run.job import Job, Registered
from registry.mlflow.store import Store

CHECKPOINT = "checkpoint.safetensors"
FLOW_RUN = "preface.flow_run"  # tag of an MLflow run: the first attempt of Prefect's run that opened it


@network_step("open run", seconds=None)  # it may have to fetch a base
def open_run(job: Job, reasons: str = "", first: str = "") -> str:
    """Start the MLflow run: parameters, dataset, tags and why; or go on with that of a run that was killed here."""
    bases.ensure(job.root, job.params.base, job.base)
    store, settings = Store(), job.params.settings(job.method)
    left = store.unfinished(job.task, job.fingerprint, place.of(job.root))
    if left is not None:
        if left not in {version.run_id for version in store.by_fingerprint(job.task, job.fingerprint)}:
            if first:
                store.tag_run(left, FLOW_RUN, first)
            return left
        store.end_run(left, "FINISHED")  # killed when its version was made: a forced run makes another
    flat = {**settings.model_dump(mode="json", exclude={"training"}), **settings.training.model_dump(mode="json")}
    name = f"{job.task}-{job.method}-{job.fingerprint[:8]}"
    tags = {"preface.fingerprint": job.fingerprint, **place.tags(job.root), "preface.reasons": reasons}
    tags |= {FLOW_RUN: first} if first else {}
    tags |= {"preface.sweep": job.sweep} if job.sweep else {}
    run = store.start_run(job.task, name, tags, {"method": job.method, **flat})
    store.log_dataset(run, job.task, job.data.dvc_md5, job.params.data.source, "training")
    return run


@contextmanager
def closing(run: str) -> Iterator[None]:
    """End the MLflow run: FINISHED, FAILED if its steps raise, KILLED if they were stopped from outside.

    A store that is down does not hide why, nor that a version was made: the next run of the same closes this one.
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
            with defer_sigterm():  # cancelled by its own look, it may be sent the worker's signal too
                Store().log_metrics(run, took)
                Store().end_run(run, status, fault)
        except StoreUnavailable as error:
            get_run_logger().warning("the MLflow run %s stays open: %s", run, error)


@contextmanager
def record_early_failure(task: str) -> Iterator[None]:
    """A run that fails before it has one leaves one all the same, which says of what: `preface status` looks there."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        if not run_logging.knows("run"):
            with suppress(RegistryError):  # it may be just that: a store that is down, or an experiment that is deleted
                store = Store()
                run = store.start_run(task, f"{task}-failed", {"preface.host": socket.gethostname()}, {})
                store.end_run(run, "FAILED", f"{type(error).__name__}: {error}")
        raise


def clean_up(job: Job, known: Registered | None) -> None:
    """Bring to its end what a killed run of the same left, where no training is to go on.

    A training that nobody finished is left alone: whoever asked for it goes on from its checkpoint.
    """
    if known is None:
        tidy(job)
    else:
        settle(job, known)


@network_step("settle")
def settle(job: Job, known: Registered) -> None:
    """Close what a killed run of the same left behind: its MLflow run, and its folder."""
    store = Store()
    left = store.unfinished(job.task, job.fingerprint, place.of(job.root))
    if left is not None:
        store.end_run(left, "FINISHED" if left == known.run else "KILLED")
    shutil.rmtree(job.folder, ignore_errors=True)


@step(name="tidy")
def tidy(job: Job) -> None:
    """Take away what looking for reasons brought, where no training is to go on."""
    # Each start has a checkpoint of its own, where there are several.
    if not list(job.folder.glob(f"{Path(CHECKPOINT).stem}*")):
        shutil.rmtree(job.folder, ignore_errors=True)
