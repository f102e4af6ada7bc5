"""A run's log on the terminal: one line for each thing that happened."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from flows import run_log


def record(name: str, message: str, level: int = logging.INFO, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, (), (ValueError, ValueError("x"), None))
    made.__dict__.update(more)
    return made


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (record("prefect.task_runs", "Finished in state Completed()", task_run_name="train-4ed"), "train Completed"),
        (record("prefect.flow_runs", "Finished in state Failed('long words')", flow_name="drill"), "drill Failed"),
        (
            record("prefect.task_runs", "Task run failed: bad\nTraceback", logging.ERROR, task_run_name="a b-1f"),
            "a b Task run failed: bad",
        ),
    ],
)
def test_one_line_without_a_traceback(made: logging.LogRecord, line: str) -> None:
    _, _, said = run_log.OneLine().format(made).partition("  ")

    assert " ".join(said.split()) == line


@pytest.mark.parametrize(
    ("name", "message", "level", "shown"),
    [
        ("prefect.flow_runs", "Beginning flow run", logging.INFO, True),
        ("prefect", "Stopping temporary server on http://127.0.0.1:8000", logging.INFO, False),
        ("preface.training", "step 50 of 200", logging.INFO, True),
        ("mlflow", "created an experiment", logging.INFO, False),
        ("mlflow", "the store is locked", logging.WARNING, True),
    ],
)
def test_libraries_are_heard_when_something_is_wrong(
    name: str, message: str, level: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = PrefectConsoleHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    run_log.shorten()

    assert bool(handler.filter(record(name, message, level))) is shown


def test_whoever_sets_prefects_level_gets_prefects_own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = PrefectConsoleHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")

    run_log.shorten()

    assert not handler.filters
    assert not isinstance(handler.formatter, run_log.OneLine)


def test_it_stays_so_in_a_process_that_imports_the_flow_afterwards() -> None:
    code = (
        "import logging; from flows import run_log; run_log.shorten(); import flows.retrain;"
        "print([type(each.formatter).__name__ for each in logging.getLogger().handlers])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

    assert done.stdout == "['OneLine']\n", done.stderr
