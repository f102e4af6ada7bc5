"""Eight processes that promote eight versions of one task at once: five rounds of what ``benchmarks/race.py`` repeats.

On MLflow's server over SQLite and on PostgreSQL: exactly one takes effect per head of the log, no entry is lost, each
is told, and the one Production stage agrees with the log when all have returned.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.flow
ROOT = Path(__file__).parents[3]


def race(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.race", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(said["violations"])
    return said


@pytest.mark.slow
def test_one_takes_effect_and_each_is_told_through_a_server() -> None:
    said = race("--rounds=5")

    assert said["violations"] == []
    assert (said["rounds"], said["told"]["won"], sum(said["told"].values())) == (5, 5, 40)
    assert said["told"]["PromotionConflict"] >= 14  # all but one of the rounds in which all wait for each other


def test_one_takes_effect_and_each_is_told_on_postgresql(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", (tmp_path / "artifacts").as_uri())

    said = race("--rounds=5", f"--store={postgres}")

    assert said["violations"] == []
    assert (said["rounds"], said["told"]["won"], sum(said["told"].values())) == (5, 5, 40)


@pytest.mark.slow
def test_a_racer_that_is_killed_leaves_what_the_next_look_repairs(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", (tmp_path / "artifacts").as_uri())

    said = race("--rounds=5", "--kill", f"--store={postgres}")

    assert said["violations"] == []
    assert sum(said["told"].values()) == 40


def test_who_does_not_heed_who_came_first_is_found(tmp_path: Path) -> None:
    said = race("--rounds=2", "--blind", f"--store=sqlite:///{tmp_path}/mlflow.db")

    assert any("not one was told that it won" in violation for violation in said["violations"])
