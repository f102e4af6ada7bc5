"""Figures of a running training on their way to MLflow, in bundles: a call a step would cost more than the step.

A store that is down for a while does not stop a training: what could not be sent is kept and sent later. Only at the
end is it an error, when the adapter's file is already safe.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Protocol, Self

from components.errors import StoreUnavailable

SECONDS_BETWEEN = 5.0
log = logging.getLogger("preface.metrics")


class MetricStore(Protocol):
    """The one thing that this module asks of a store."""

    def log_metrics(self, run_id: str, metrics: list[tuple[str, float, int]]) -> None: ...


class MetricLog:
    """Call it with (figures, step), as training's ``observe``; use it as a context to have the rest sent at the end."""

    def __init__(self, store: MetricStore, run: str) -> None:
        self._store, self._run = store, run
        self._waiting: list[tuple[str, float, int]] = []
        self._sent = time.monotonic()

    def __call__(self, figures: dict[str, float], step: int) -> None:
        self._waiting += [(name, value, step) for name, value in figures.items()]
        if time.monotonic() - self._sent >= SECONDS_BETWEEN:
            try:
                self._send()
            except StoreUnavailable as error:
                log.warning("figures wait for the tracking store: %s", error)
                self._sent = time.monotonic()

    def _send(self) -> None:
        if self._waiting:
            self._store.log_metrics(self._run, self._waiting)
        self._waiting, self._sent = [], time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._send()
        except StoreUnavailable:
            if error is None:
                raise
