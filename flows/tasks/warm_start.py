"""Where a training starts: anew, and where the task asks for it from the version in Production as well.

A task that has none in Production may name another whose version it goes on from until then.

The starting version's digest is in the fingerprint, so that going on from another one is another training. Rows, base
and settings that the version in Production was trained from already give nothing new to learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from components.provenance.fingerprint import fingerprint, settings_fingerprint
from flows.orchestration.step import network_step
from flows.run import fetch
from flows.run.job import Fetched, Job
from registry import queries
from registry.artifact.manifest import StartPin
from registry.mlflow.store import Store
from registry.protocol import Version
from registry.releases import checks

if TYPE_CHECKING:
    from torch import Tensor


@network_step("look for a start")
def settled(job: Job) -> Job:
    """The job with the version in Production as its start; as it was where the task asks for none, or none fits."""
    asked = job.params.retrain.warm_start
    if not asked:
        return job
    store = Store()
    live = queries.current(store, job.task, "Production")
    if live and not job.forced and _learned(job, live):
        return job.model_copy(update={"fingerprint": live.tag("fingerprint")})
    other = asked if isinstance(asked, str) and not live else ""
    if other:
        live = queries.current(store, other, "Production")
    if live is None:
        return job
    said = checks.verify(store, live).manifest
    settings = job.params.settings(job.method)
    there = said.base.hash, said.method, said.virtual_tokens
    wanted = job.base.hash, job.method, settings.virtual_tokens
    if there != wanted:
        get_run_logger().info(
            "no warm start from %s: it has base %.12s, method %s, %d virtual tokens; this training has base %.12s, "
            "method %s, %d", live.name, *there, *wanted
        )  # fmt: skip
        return job
    start = StartPin(version=live.number, digest=said.digest, task=other)
    mark = fingerprint(job.params, job.method, job.base.hash, job.data.content_hash, start.digest)
    return job.model_copy(update={"start": start, "fingerprint": mark})


@network_step("fetch the start")
def fetched(job: Job) -> Fetched | None:
    """A copy of the version that training goes on from."""
    if job.start is None:
        return None
    store = Store()
    return fetch.fetched(store, store.version(job.start.task or job.task, job.start.version), job.folder / "start")


def table(start: Fetched) -> Tensor:
    """[P, H] or [P, L*2*Hkv*D] of the version."""
    import torch

    return torch.from_numpy(fetch.adapter_of(start).tensor).clone()


def _learned(job: Job, live: Version) -> bool:
    """Whether it was trained from today's rows, base and settings, whatever it started from."""
    then = live.tag("dvc_md5"), live.tag("base_hash"), live.tag("settings")
    return then == (job.data.dvc_md5, job.base.hash, settings_fingerprint(job.params, job.method))
