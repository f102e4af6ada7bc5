"""MLflow's tables in a new database: whoever comes at the same moment, and whatever is killed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import StoreUnavailable
from registry.mlflow import address, schema

FIRST_USE = """
import sys
from registry.mlflow.store import Store
Store(sys.argv[1]).start_run("movie-sentiment", sys.argv[2], {}, {})
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/mlflow.db"
    else:
        yield request.getfixturevalue("empty_postgres")


def test_two_workers_whose_first_runs_meet_at_an_empty_store(
    new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow alone, asked by two at once, spoils the database for good."""
    monkeypatch.setenv(address.ARTIFACT_ROOT, str(tmp_path / "artifacts"))
    command = [sys.executable, "-c", FIRST_USE, new]
    begun = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name in ("one", "other")
    ]
    said = [process.communicate(timeout=120)[0] for process in begun]

    assert [process.returncode for process in begun] == [0, 0], said
    assert address.reach(new)


def test_one_that_is_killed_while_it_makes_them_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(uri: str) -> None:
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as half:
            half.execute("CREATE TABLE experiments (half INTEGER)")
        half.close()
        raise SystemExit

    store = f"sqlite:///{tmp_path}/mlflow.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_make", killed)
        with pytest.raises(SystemExit):
            schema.ensure(store)
    assert not address.reach(store)

    schema.ensure(store)

    assert address.reach(store)
    with sqlite3.connect(tmp_path / "mlflow.db") as made:
        columns = [row[1] for row in made.execute("PRAGMA table_info(experiments)")]
    made.close()
    assert "half" not in columns
    assert "artifact_location" in columns


def test_tables_that_are_there_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older schema too: only its owner may migrate it."""
    monkeypatch.setattr(schema, "_make", lambda uri: pytest.fail("made again"))
    with sqlite3.connect(tmp_path / "mlflow.db") as old:
        old.execute("CREATE TABLE experiments (old INTEGER)")
    old.close()

    schema.ensure(f"sqlite:///{tmp_path}/mlflow.db")
    schema.ensure("http://127.0.0.1:9")  # and a server is not asked


def test_a_place_that_cannot_be_written_is_said_in_a_line() -> None:
    with pytest.raises(StoreUnavailable, match=r"the tracking store sqlite:////proc/nowhere/mlflow.db does not answer"):
        schema.ensure("sqlite:////proc/nowhere/mlflow.db")
