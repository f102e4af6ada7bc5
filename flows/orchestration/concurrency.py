"""One training per device, by Prefect's own global concurrency limits.

A limit belongs to a machine and a device of it; a run holds a lease on it while its model works, and the server takes a
lease back that nobody renews: that of a killed process within its length. A server forgets leases when it restarts,
unless it keeps them in files (``ui.LEASES`` says so to servers that are started here).

Runs on the temporary server of a command by hand take no lease: it frees none, and knows of no other run.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_run_logger

from components.base.base_model import pick_device
from components.errors import StoreUnavailable
from components.records import Record
from flows.orchestration.prefect_api import asking, best_effort

LEASE_SECONDS = 60.0  # the server's own least
TRIES = (1, 4, 16)  # seconds between them


def slot_of(device: str) -> tuple[str, int]:
    """The limit's name and how many may hold it where nobody said otherwise.

    Args:
        device: ``cuda`` or ``cpu``. A worker that is given one of several GPUs is told so by CUDA_VISIBLE_DEVICES.
    """
    host = socket.gethostname()
    if device == "cuda":
        return f"preface-{host}-gpu-{os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0]}", 1
    # As many as there are cores for their threads: by default torch takes every core, and two would take turns.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return f"preface-{host}-cpu", max(1, cores // int(threads)) if threads.isdecimal() and int(threads) else 1


class Spent(Record):
    """What a training and its evaluation cost. On a CPU the memory is the process's, on a GPU the tensors'."""

    device_seconds: float
    peak_memory_bytes: int


class Held:
    """A device that is held since this was made."""

    def __init__(self, device: str) -> None:
        self._device, self._began = device, time.monotonic()

    def spent(self) -> Spent:
        """What it cost so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self._device == "cuda":
            import torch

            peak = torch.cuda.max_memory_allocated()
        return Spent(device_seconds=time.monotonic() - self._began, peak_memory_bytes=peak)


@contextmanager
def training_slot() -> Iterator[Held]:
    """Hold the device; wait until it is free. `prefect global-concurrency-limit update` says how many may hold it.

    Raises:
        StoreUnavailable: Prefect's server did not answer, several times in a row. Once the device is held it may be
            away: work goes on, and two may share a device for a while.
    """
    device = pick_device().type
    if "PREFECT_API_URL" not in os.environ:
        yield Held(device)
        return
    lease = _taken(*slot_of(device))
    try:
        yield Held(device)
    finally:
        with best_effort("giving the device back"):  # its lease ends by itself
            lease.__exit__(None, None, None)


def _taken(name: str, places: int) -> AbstractContextManager[None]:
    """A lease on the limit, which is made if it is not there."""
    log = get_run_logger()
    for wait in (*TRIES, None):
        try:
            with asking() as client:
                try:
                    client.read_global_concurrency_limit_by_name(name)
                except ObjectNotFound:
                    with suppress(ObjectAlreadyExists):  # another worker was quicker
                        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=places))
                log.info("waiting for a place on %s", name)
                lease = concurrency(
                    name, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False
                )
                lease.__enter__()
            return lease
        except (StoreUnavailable, ConcurrencySlotAcquisitionError) as error:
            if wait is None:
                raise StoreUnavailable(str(error)) from error
            log.warning("%s; asking for the device again in %d s", error, wait)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")
