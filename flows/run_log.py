"""A flow run's own log on the terminal, a line for each thing that happened. Prefect keeps the whole of it, as ever.

By itself Prefect prints every failure twice with its traceback, which would bury the one line that says what to do.
PREFECT_LOGGING_LEVEL, when set, brings all of that back.
"""

from __future__ import annotations

import logging
import os
import time

from prefect.logging.handlers import PrefectConsoleHandler

OURS = "preface"  # training and evaluation log below this name
RUNS = ("prefect.flow_runs", "prefect.task_runs")
ENDED = "Finished in state "
STARTING = "Starting temporary server"  # some seconds pass before the next line


class OneLine(logging.Formatter):
    """Time, step, and what became of it."""

    def format(self, record: logging.LogRecord) -> str:
        step = str(getattr(record, "task_run_name", "")).rpartition("-")[0] or str(getattr(record, "flow_name", ""))
        message = record.getMessage().splitlines()[0]
        if message.startswith(ENDED):  # Completed('with words that the command itself says at the end')
            message = message.removeprefix(ENDED).partition("(")[0]
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{when}  {step or record.name.rpartition('.')[2]:24} {message}"


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Runs and our own work tell what they do; the server behind them and other libraries only what went wrong."""
    ours = record.name in RUNS or record.name.startswith(f"{OURS}.")
    return ours or record.levelno >= logging.WARNING or record.getMessage().startswith(STARTING)


def shorten() -> None:
    """From now on one line for each record of a run."""
    if "PREFECT_LOGGING_LEVEL" in os.environ:
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setFormatter(OneLine())
            handler.addFilter(_worth_a_line)
    logging.getLogger(OURS).setLevel(logging.INFO)
