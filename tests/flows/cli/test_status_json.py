"""`preface status --json`: what an alarm needs to know of every task, out of a project where all of it happened."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main
from components.data.prepare import read_examples
from components.errors import Diverged
from flows.process import local_project
from flows.tasks.outcome import outcome_of

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]
Project = Any  # tests/flows/conftest.py; test modules are not packages
DAYS = 3


def command(project: Project, *arguments: str) -> Result:
    """The command as somebody in the project types it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        for name, value in (
            local_project.SWITCHES | {"PREFECT_HOME": str(project.root / ".preface" / "prefect")}
        ).items():
            patch.setenv(name, value)
        return CliRunner().invoke(main.preface, list(arguments))


def rows(project: Project, *tasks: str) -> dict[str, Any]:
    """What it says, by task."""
    said = command(project, "status", *tasks, "--json")
    assert said.exit_code == 0, said.output
    return {row["task"]: row for row in json.loads(said.stdout)}


def age(project: Project, version: int, days: int) -> None:
    """Make a version older than it is."""
    with closing(sqlite3.connect(project.root / ".preface" / "mlflow.db")) as database, database:
        changed = database.execute(
            "UPDATE model_versions SET creation_time = creation_time - ? WHERE name = 'film' AND version = ?",
            (days * 86_400_000, version),
        )
        assert changed.rowcount == 1


@pytest.fixture(scope="class")
def lived(
    open_project: Callable[[Path], AbstractContextManager[Project]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Project]:
    """Version 1 is in Production since days, was asked today's rows, 2 was refused, and a third training diverged."""
    from flows import retrain

    with open_project(tmp_path_factory.mktemp("lived")) as project:
        project.change("tasks.film.promotion", "auto")
        assert project.retrain().result == "Promoted"
        age(project, 1, DAYS)

        with (project.root / "film.csv").open("a", encoding="utf-8") as file:
            file.writelines(f"text {n} dull,pos\n" for n in range(300, 340))
        project.change("tasks.film.retrain", {"when": ["parameters"], "floor": {"accuracy": 0.0}})
        state = retrain.retrain("film", str(project.root), cause="schedule", return_state=True)
        assert outcome_of(state, "film").result == "Unchanged"

        project.change("tasks.film.gate", [{"metric": "accuracy", "direction": "higher", "threshold": 2.0}])
        project.change("tasks.film.prefix.training.seed", 5)
        assert project.retrain().result == "GateRefused"

        project.change("tasks.film.prefix.training.seed", 6)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("components.training.loop.learning_rate", lambda *_: float("inf"))
            with pytest.raises(Diverged):
                project.retrain()
        yield project


class TestStatusJson:
    """Looked at from all sides; what is changed is put back."""

    def test_a_task_alone_reads_as_it_does_among_all(self, lived: Project) -> None:
        among, alone = rows(lived)["film"], rows(lived, "film")["film"]

        assert alone.pop("age_days") == pytest.approx(among.pop("age_days"), abs=0.01)
        assert alone == among

    def test_it_says_how_old_the_champion_is(self, lived: Project) -> None:
        made = lived.store.version("film", 1).created
        expected = (datetime.now(UTC) - made) / timedelta(days=1)

        assert rows(lived)["film"]["age_days"] == pytest.approx(expected, abs=0.01)
        assert DAYS < expected < DAYS + 0.5

    def test_it_says_which_base_the_champion_needs(self, lived: Project) -> None:
        row = rows(lived)["film"]

        assert (row["production"], row["base"], row["base_hash"]) == (1, "tiny", lived.base_hash())

    def test_it_says_what_the_last_gate_decided(self, lived: Project) -> None:
        assert rows(lived)["film"]["last_gate"] == {"version": 2, "verdict": "refused"}

    def test_it_says_which_run_failed_last_and_of_what(self, lived: Project) -> None:
        failed = [run for run in lived.mlflow_runs() if run.info.status == "FAILED"]
        row = rows(lived)["film"]["last_failure"]

        assert [run.info.run_id for run in failed] == [row["run"]]
        assert row["error"].startswith("Diverged: ")
        assert "not finite; lower training.learning_rate" in row["error"]
        assert "\n" not in row["error"]
        assert datetime.fromisoformat(row["when"]).timestamp() == failed[0].info.end_time // 1000

    def test_it_says_what_the_champion_scored_when_it_was_asked_last(self, lived: Project) -> None:
        version, measured = lived.store.version("film", 1), rows(lived)["film"]["measured"]
        at_its_gate = lived.report(1).candidate.metrics

        assert measured["rows"] == read_examples(lived.root / "data/prepared/film").content_hash
        assert measured["rows"] != version.tag("data_hash")
        assert measured["scores"] == lived.report(2).champion.metrics
        assert measured["scores"]["accuracy"] < at_its_gate["accuracy"]
        assert datetime.fromisoformat(measured["when"]) > version.created + timedelta(days=DAYS) - timedelta(hours=1)

    def test_what_was_moved_by_hand_is_told_as_drift_until_it_is_settled(self, lived: Project) -> None:
        before = rows(lived)["film"]
        assert (before["drift"], before["alarms"]) == (None, [])

        lived.store.set_stage("film", 2, "Production")

        for row in (rows(lived)["film"], rows(lived, "film")["film"]):
            assert row["production"] == 1
            assert "stage Production says version 2" in row["drift"]
            assert "the release log version 1 (release 1)" in row["drift"]
            assert row["alarms"] == [row["drift"]]
        assert command(lived, "reconcile", "film", "--restore").exit_code == 0
        after = rows(lived)["film"]
        assert (after["drift"], after["alarms"]) == (None, [])

    def test_a_task_that_was_never_trained_has_its_row(self, lived: Project) -> None:
        found = rows(lived)

        assert sorted(found) == ["film", "story"]
        story = found["story"]
        assert (story["production"], story["base"], story["versions"]) == (None, None, 0)
        assert story["note"] == "next: preface retrain story"
        assert rows(lived, "story") == {"story": story}

    def test_what_is_for_people_is_spared_what_is_for_alarms(self, lived: Project) -> None:
        said = command(lived, "status")

        assert said.exit_code == 0
        assert "film" in said.stdout
        assert "last failure" not in said.stdout
        assert "Diverged" not in said.stdout
