"""A run's log on the terminal: one line for each thing that happened."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from flows.orchestration import run_logging
from flows.orchestration.step import durations


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
    _, _, said = run_logging.OneLine().format(made).partition("  ")

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

    run_logging.shorten()

    assert bool(handler.filter(record(name, message, level))) is shown


def test_whoever_sets_prefects_level_gets_prefects_own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = PrefectConsoleHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")

    run_logging.shorten()

    assert not handler.filters
    assert not isinstance(handler.formatter, run_logging.OneLine)


def test_it_stays_so_in_a_process_that_imports_the_flow_afterwards() -> None:
    code = (
        "import logging; from flows.orchestration import run_logging; run_logging.shorten(); import flows.retrain;"
        "print([type(each.formatter).__name__ for each in logging.getLogger().handlers])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

    assert done.stdout == "['OneLine']\n", done.stderr


def test_every_flow_begins_its_log_and_its_durations() -> None:
    """One that does not would log without its task, and its steps' seconds would go nowhere."""
    import importlib
    import inspect
    import pkgutil

    from prefect import Flow

    import flows

    without = []
    for module in pkgutil.walk_packages(flows.__path__, "flows."):
        if module.name == "flows.engine":
            continue
        for each in vars(importlib.import_module(module.name)).values():
            if isinstance(each, Flow) and "run_logging.begin(" not in inspect.getsource(each.fn):
                without.append(each.name)

    assert without == []


def test_a_beginning_forgets_the_run_before_it() -> None:
    run_logging.begin(task="film")
    run_logging.about(version=3)
    durations.get()["train"] = 1.0

    run_logging.begin(task="story")

    assert run_logging.knows("task")
    assert not run_logging.knows("version")
    assert durations.get() == {}
