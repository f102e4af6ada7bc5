"""What a step of a flow is here: a thin Prefect task without a cache, retried only where another try may help.

Tasks use NO_CACHE, since Prefect's cache keys do not see a change in the code that a thin task calls; the fingerprint
is the cache. Only steps that touch a network are retried, only for its faults, and none of their tries takes for ever.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from components.errors import SourceUnavailable, StoreUnavailable, without_secrets

# What the steps of the run in this context took, in seconds by name; a step that was tried again counts whole.
durations: ContextVar[dict[str, float]] = ContextVar("durations")

NETWORK_SECONDS = 1800.0  # of one try: an adapter is small, and a store that is slower than that is down


def _network_fault(_task: object, _run: object, state: Any) -> bool:
    """Retry what another try may mend: a source or a store that did not answer. Nothing else."""
    return isinstance(state.result(raise_on_failure=False), SourceUnavailable | StoreUnavailable)


def step(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A task that is tried once; how long it took is kept in ``durations``.

    What it raises ends in Prefect's states, events and notifications, and so it has lost its secrets before.
    """

    def made(body: Callable[..., Any]) -> Any:
        @functools.wraps(body)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return body(*args, **kwargs)
            except Exception as error:
                if (shown := without_secrets(error)) is error:
                    raise
                raise shown from error
            finally:
                spent = durations.get({})
                spent[name] = spent.get(name, 0.0) + time.monotonic() - began

        return task(name=name, cache_policy=NO_CACHE, persist_result=False, **options)(timed)

    return made


def network_step(name: str, seconds: float | None = NETWORK_SECONDS) -> Callable[[Callable[..., Any]], Any]:
    """A task that asks sources or stores; ``seconds`` bounds each try, None where a try may be long work."""
    return step(
        name=name,
        retries=3,
        retry_delay_seconds=[1, 4, 16],
        retry_condition_fn=_network_fault,
        timeout_seconds=seconds,
    )
