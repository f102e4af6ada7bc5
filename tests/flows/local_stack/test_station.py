"""Schedules kept running on one machine: a real Prefect server and worker do what params.yaml says, as it changes."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.process import process_list
from registry import queries
from tests.flows.station import Station, keeping

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1200)]
Project = Any  # tests/flows/conftest.py; test modules are not packages


@pytest.fixture(scope="module")
def station(
    open_project: Callable[[Path], AbstractContextManager[Project]],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> Iterator[Station]:
    with open_project(tmp_path_factory.mktemp("station")) as project:
        project.change("tasks.film.promotion", "auto")
        project.change("tasks.film.schedule", {"interval": "10s"})
        with keeping(project, free_port(), "--at-once", "2") as running:
            yield running


def reasons(station: Station, version: int) -> str:
    runs = {run.info.run_id: run for run in station.project.mlflow_runs()}
    said: str = runs[station.project.store.version("film", version).run_id].data.tags["preface.reasons"]
    return said


def test_a_scheduled_run_trains_what_was_never_trained_and_the_next_says_there_is_nothing_to_learn(
    station: Station,
) -> None:
    def ended(*names: str) -> list[Any]:
        return [run for run in station.runs("film", "COMPLETED", "FAILED") if run["state_name"] in names]

    [first] = station.awaited(lambda: ended("Promoted", "Failed"))
    assert (first["name"], first["state_name"]) == ("film", "Promoted")
    assert reasons(station, 1) == "it was never trained"

    later = station.awaited(lambda: ended("Unchanged"))
    assert "version 1 was trained" in later[0]["state"]["message"]
    names = {run["state_name"] for run in station.runs("film", "COMPLETED", "FAILED")}
    assert names <= {"Promoted", "Unchanged", "Superseded"}
    assert len(station.project.store.versions("film")) == 1


def test_rows_appended_upstream_are_trained_on_by_the_next_scheduled_run(station: Station) -> None:
    station.awaited(lambda: len(station.runs("film", "COMPLETED")))
    with (station.root / "film.csv").open("a", encoding="utf-8") as file:
        file.writelines(
            f"text {n} {'dull' if n % 2 else 'funny'},{'neg' if n % 2 else 'pos'}\n" for n in range(300, 340)
        )

    station.awaited(lambda: len(station.project.store.versions("film")) == 2)

    assert reasons(station, 2).startswith("the data changed since version 1 (DVC ")
    station.awaited(lambda: queries.current(station.project.store, "film", "Production").number == 2)


def test_what_runs_when_is_listed(station: Station) -> None:
    station.awaited(lambda: station.runs("film", "COMPLETED"))
    done = station.preface("schedule", "--list", "--json")

    film, story = json.loads(done.stdout)
    assert (film["task"], film["schedule"]) == ("film", "every 10s UTC")
    assert film["next run"]
    assert film["last run"]
    assert film["result"] in ("Unchanged", "Promoted")
    assert film["production"] == queries.current(station.project.store, "film", "Production").number
    assert (story["schedule"], story["next run"], story["production"]) == ("none", None, None)


def test_the_worker_s_log_is_json_that_says_what_each_line_is_about(station: Station) -> None:
    station.awaited(lambda: station.runs("film", "COMPLETED"))
    lines = [
        json.loads(line)
        for line in (station.folder / "worker.log").read_text().splitlines()
        if line.startswith('{"time"')
    ]

    ended = [line for line in lines if "Finished in state Promoted" in line["message"]]
    version = station.project.store.version("film", 1)
    about = {"task": "film", "fingerprint": version.tag("fingerprint"), "run": version.run_id, "version": "1"}
    assert ended, lines[-3:]
    assert ended[0].items() >= about.items()


def test_a_schedule_that_changes_pauses_or_goes_leaves_nothing_behind(station: Station) -> None:
    change = station.project.change
    deployment = station.deployment("film")["id"]

    change("tasks.film.schedule", {"cron": "0 3 * * *", "timezone": "Europe/Berlin"})
    station.awaited(
        lambda: [each["schedule"].get("cron") for each in station.deployment("film")["schedules"]] == ["0 3 * * *"]
    )
    # By UTC: an hour earlier in summer. Those of the schedule before are gone.
    station.awaited(
        lambda: (
            {run["expected_start_time"][11:16] for run in station.runs("film", "SCHEDULED")}
            in ({"01:00"}, {"02:00"}, {"01:00", "02:00"})
        )
    )

    change("tasks.film.schedule", {"cron": "0 3 * * *", "paused": True})
    station.awaited(lambda: not station.deployment("film")["schedules"][0]["active"])
    station.awaited(lambda: station.runs("film", "SCHEDULED") == [])

    change("tasks.film.schedule", {"cron": "61 3 * * *"})
    station.awaited(lambda: "is no cron line" in station.said())
    assert station.deployment("film")["id"] == deployment, "it is the same deployment all the time"

    import yaml

    file = station.root / "params.yaml"
    declared = yaml.safe_load(file.read_text())
    film = declared["tasks"].pop("film")
    file.write_text(yaml.safe_dump(declared))
    station.awaited(lambda: station.deployment("film") is None)
    owned = station.ask("automations/filter", {})
    assert [each["name"] for each in owned] == ["preface: new data of story"]

    film["schedule"] = None
    declared["tasks"]["film"] = film
    file.write_text(yaml.safe_dump(declared))
    station.awaited(lambda: station.deployment("film"))


def test_an_event_starts_the_task_that_it_is_about(station: Station) -> None:
    event = {
        "id": "11111111-1111-4111-8111-111111111111",
        "occurred": "2026-01-01T00:00:00Z",
        "event": "preface.data.updated",
        "resource": {"prefect.resource.id": "preface.task.story"},
        "payload": {},
    }
    assert station.runs("story") == []
    station.ask("events", [event])

    run = station.awaited(lambda: station.runs("story", "COMPLETED", "FAILED"))[0]
    assert (run["state_name"], run["parameters"]["cause"]) == ("Staged", "event")


def slow(station: Station, seed: int, steps: int) -> None:
    """From now on the film's training is one that nobody did, of so many steps."""
    station.project.change("tasks.film.prefix.training.seed", seed)
    station.project.change("tasks.film.prefix.training.steps", steps)
    station.project.change("tasks.film.prefix.training.patience", 1000)


def at_work(station: Station, run_id: str) -> psutil.Process:
    """The process of a run that has written a checkpoint of its own."""
    found: psutil.Process = station.awaited(lambda: station.process(run_id))
    began = found.create_time()

    def written() -> bool:
        return any(
            path.stat().st_mtime > began
            for path in (station.root / ".preface" / "runs").glob("*/checkpoint.safetensors")
        )

    station.awaited(written)
    return found


def test_a_run_that_is_killed_is_started_again_and_goes_on_from_its_checkpoint(station: Station) -> None:
    before = len(station.project.store.versions("film"))
    slow(station, 71, 1200)
    first = station.start("film", cause="hand")
    at_work(station, first).send_signal(signal.SIGKILL)

    assert station.ended(first)["state_type"] == "CRASHED"
    again = station.awaited(lambda: [run for run in station.runs("film") if run["parameters"].get("attempt") == 2])[0]
    assert station.ended(again["id"])["state_name"] == "Promoted"

    [made] = station.project.store.versions("film")[before:]
    runs = [
        run
        for run in station.project.mlflow_runs()
        if run.data.tags.get("preface.fingerprint") == made.tag("fingerprint")
    ]
    assert [(run.info.run_id, run.info.status) for run in runs] == [(made.run_id, "FINISHED")]
    assert "going on from step" in (station.folder / "worker.log").read_text()


def test_a_run_that_is_cancelled_stops_at_once_and_registers_nothing(station: Station) -> None:
    before = len(station.project.store.versions("film"))
    slow(station, 72, 20000)
    run = station.start("film", cause="hand")
    process = at_work(station, run)

    station.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    cancelled = station.awaited(
        lambda: found if (found := station.run(run))["state_type"] == "CANCELLED" else None, seconds=60
    )

    assert cancelled["state_name"] == "Cancelled"
    assert not process.is_running()
    assert len(station.project.store.versions("film")) == before
    station.awaited(lambda: station.project.mlflow_runs()[-1].info.status == "KILLED")


def test_what_a_schedule_trained_is_made_again_with_workspace_and_cache_gone(station: Station) -> None:
    for folder in ("data/prepared", "data/raw", ".dvc/cache"):
        shutil.rmtree(station.root / folder)

    done = station.preface("reproduce", "film@2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical bit by bit" in done.stdout


def test_down_stops_all_of_it_and_nothing_else(station: Station) -> None:
    theirs = [pid for _, pid in process_list.alive(station.folder)]
    assert len(theirs) == 3

    assert sorted(process_list.stop_all(station.folder)) == ["Prefect", "Worker"]

    assert [pid for pid in theirs if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"] == []
    assert process_list.alive(station.folder) == []
