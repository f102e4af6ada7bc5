"""A flow run's own log on the terminal, a line for each thing that happened. Prefect keeps the whole of it, as ever.

By itself Prefect prints every failure twice with its traceback, which would bury the one line that says what to do.
PREFECT_LOGGING_LEVEL, when set, brings all of that back.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import PrefectConsoleHandler

RUNS = ("prefect.flow_runs", "prefect.task_runs")


class OneLine(logging.Formatter):
    """Time, step and what became of it."""

    def format(self, record: logging.LogRecord) -> str:
        step, _, _ = str(getattr(record, "task_run_name", "retrain")).rpartition("-")
        message = record.getMessage().splitlines()[0].removeprefix("Finished in state ")
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))}  {step or 'retrain':24} {message}"


def _of_a_run(record: logging.LogRecord) -> bool:
    """Runs tell what they do; the server behind them and other libraries only what went wrong."""
    return record.name in RUNS or record.levelno >= logging.WARNING


@contextmanager
def short() -> Iterator[None]:
    """While this lasts, one line for each record of a run."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, PrefectConsoleHandler)]
    if "PREFECT_LOGGING_LEVEL" in os.environ:
        handlers = []
    before = [(handler, handler.formatter) for handler in handlers]
    for handler in handlers:
        handler.setFormatter(OneLine())
        handler.addFilter(_of_a_run)
    try:
        yield
    finally:
        for handler, formatter in before:
            handler.setFormatter(formatter)
            handler.removeFilter(_of_a_run)
