"""A flow run's own log: a line on the terminal for each thing that happened, a JSON object a line under a worker.

Prefect keeps the whole of it, as ever. Every record below a run carries what it is about: task, fingerprint, MLflow run
and version, as far as they are known by then.

By itself Prefect prints every failure twice with its traceback, which would bury the one line that says what to do.
PREFECT_LOGGING_LEVEL, when set, brings all of that back.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from prefect.logging.handlers import PrefectConsoleHandler

from components import log_redaction
from components.redaction import redact
from flows.orchestration.step import durations
from flows.process.terminal import printable

OURS = "preface"  # training and evaluation log below this name
RUNS = ("prefect.flow_runs", "prefect.task_runs")
ENDED = "Finished in state "


_about: ContextVar[dict[str, str]] = ContextVar("_about")
MARK = "preface_"  # before the names of fields that a record carries
FIELDS = ("task", "fingerprint", "run", "version")


def begin(**known: object) -> None:
    """The first line of every flow: its records carry from now on what is known, and no step has taken any time yet."""
    durations.set({})
    _about.set({})
    about(**known)
    log_redaction.install()
    logging.getLogger(OURS).setLevel(logging.INFO)
    plain = logging.getLogRecordFactory()
    if getattr(plain, "carries", False):
        return

    def carrying(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = plain(*args, **kwargs)
        for name, value in _about.get({}).items():
            setattr(record, MARK + name, value)
        return record

    carrying.carries = carrying.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(carrying)


def about(**known: object) -> None:
    """What the run in this context is about, by the names of ``FIELDS``."""
    assert set(known) <= set(FIELDS), known
    _about.get({}).update({name: str(value) for name, value in known.items()})


def knows(name: str) -> bool:
    """Whether the run in this context is known to be about something of that name."""
    return bool(_about.get({}).get(name))


class OneLine(logging.Formatter):
    """Time, step, and what became of it."""

    def format(self, record: logging.LogRecord) -> str:
        step = str(getattr(record, "task_run_name", "")).rpartition("-")[0] or str(getattr(record, "flow_name", ""))
        message = record.getMessage().splitlines()[0]
        if message.startswith(ENDED):  # Completed('with words that the command itself says at the end')
            message = message.removeprefix(ENDED).partition("(")[0]
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = printable(message)
        return f"{when}  {step or record.name.rpartition('.')[2]:24} {message}"


class JsonLine(logging.Formatter):
    """A JSON object: when, what, and what it is about. Engines name it in Prefect's logging settings."""

    def __init__(self, *_: object) -> None:  # which hand it formats that it has no use for
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: getattr(record, MARK + name) for name in FIELDS if hasattr(record, MARK + name)}
        for name in ("flow_run_id", "flow_run_name", "task_run_name"):
            if value := getattr(record, name, ""):
                said[name] = str(value)
        if record.exc_info:
            said["exception"] = record.exc_text or redact(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Runs and our own work tell what they do; the server behind them and other libraries only what went wrong."""
    ours = record.name in RUNS or record.name.startswith(f"{OURS}.")
    return ours or record.levelno >= logging.WARNING


def shorten() -> None:
    """From now on one line for each record of a run."""
    if "PREFECT_LOGGING_LEVEL" in os.environ:
        return
    import_module("prefect.main")  # which sets Prefect's logging up, and would do so later over what is said here
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setFormatter(OneLine())
            handler.addFilter(_worth_a_line)
    logging.getLogger(OURS).setLevel(logging.INFO)
