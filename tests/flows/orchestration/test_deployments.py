"""Deployments out of params.yaml: one source for what `preface deploy` registers and what `prefect deploy` does."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from croniter import croniter

from components.config import params
from components.config.params import Params
from flows.orchestration import deployments
from flows.orchestration.deployments import described

ROOT = Path(__file__).parents[3]
Project = Any  # tests/flows/conftest.py; test modules are not packages


def declared(**tasks: Any) -> Params:
    """The project's own params.yaml with other schedules."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    film = raw["tasks"]["movie-sentiment"]
    return Params.model_validate(
        {"bases": raw["bases"], "tasks": {name: film_with(film, schedule) for name, schedule in tasks.items()}}
    )


def film_with(film: dict[str, Any], schedule: Any) -> dict[str, Any]:
    ranges = {label: tuple(pair) for label, pair in film["data"]["ranges"].items()}
    return film | {"schedule": schedule, "data": film["data"] | {"ranges": ranges}}


def test_the_committed_prefect_yaml_is_what_params_yaml_says() -> None:
    said = deployments.prefect_yaml(params.load(ROOT / "params.yaml"))

    assert (ROOT / "prefect.yaml").read_text() == said, "write it anew with `preface deploy`"


def test_any_other_schedule_is_another_version_of_its_deployment_and_of_no_other() -> None:
    hourly, nightly = {"interval": "1h"}, {"cron": "0 3 * * *"}
    before, after = (deployments.declared(declared(a=hourly, b=one)) for one in (hourly, nightly))

    assert before["a"] == after["a"]
    assert before["b"]["version"] != after["b"]["version"]
    assert deployments.prefect_yaml(declared(a=hourly)) != deployments.prefect_yaml(declared(a=nightly))


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (None, "none"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "cron 0 3 * * * Europe/Berlin"),
        ({"interval": "6h", "paused": True}, "every 6h UTC (paused)"),
    ],
)
def test_schedules_are_told_in_words(schedule: Any, words: str) -> None:
    assert described(declared(a=schedule).tasks["a"].schedule) == words


# --- on a real server -------------------------------------------------------------------------------------------------


def synced(declared: Params, pool: str) -> dict[str, str]:
    return {each.task: each.change for each in deployments.sync(declared, pool)}


def there(pool: str) -> dict[str, Any]:
    from flows.orchestration.prefect_api import asking

    with asking() as client:
        return {each.name: each for each in deployments.ours(client) if each.work_pool_name == pool}


@pytest.mark.flow
def test_the_server_has_what_is_declared_and_nothing_that_was(on_server: str) -> None:
    hourly, nightly = {"interval": "1h"}, {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}

    assert synced(declared(one=hourly, two=nightly, three=None), "sync") == {
        "one": "added",
        "two": "added",
        "three": "added",
    }
    first = there("sync")
    assert first["one"].schedules[0].schedule.interval == timedelta(hours=1)
    assert (first["two"].schedules[0].schedule.cron, first["two"].schedules[0].schedule.timezone) == (
        "0 3 * * *",
        "Europe/Berlin",
    )
    assert first["three"].schedules == []

    assert synced(declared(one=nightly | {"paused": True}, two=nightly), "sync") == {
        "one": "changed",
        "two": "unchanged",
        "three": "removed",
    }
    after = there("sync")
    assert sorted(after) == ["one", "two"]
    assert [(each.id, each.schedules[0].active) for each in after.values()] == [
        (first["one"].id, False),
        (first["two"].id, True),
    ]
    assert synced(declared(), "sync") == {"one": "removed", "two": "removed"}


@pytest.mark.flow
def test_the_pool_names_no_folder_and_no_python_of_this_machine(on_server: str) -> None:
    from flows.orchestration.prefect_api import asking

    synced(declared(), "anywhere")
    with asking() as client:
        found = client.read_work_pool("anywhere")

    said = found.base_job_template["variables"]["properties"]
    assert said["command"]["default"] == "python -m flows.engine"
    assert str(ROOT) not in str(found.base_job_template)
    assert sys.prefix not in str(found.base_job_template)


@pytest.mark.flow
def test_a_deployment_whose_trigger_was_cut_off_is_registered_again(on_server: str) -> None:
    from flows.orchestration.prefect_api import asking

    said = declared(one={"interval": "1h"})
    synced(said, "cut")
    with asking() as client:
        client.delete_resource_owned_automations(f"prefect.deployment.{there('cut')['one'].id}")

    assert synced(said, "cut") == {"one": "changed"}
    assert synced(said, "cut") == {"one": "unchanged"}
    synced(declared(), "cut")


@pytest.mark.flow
@pytest.mark.slow
def test_prefect_deploy_of_the_written_file_registers_the_same(on_server: str, tmp_path: Path) -> None:
    said = declared(one={"interval": "1h"}, two={"cron": "0 3 * * *", "timezone": "Europe/Berlin", "paused": True})
    synced(said, "both")
    ours = there("both")
    assert {each.version for each in ours.values()} == {
        each["version"] for each in deployments.declared(said, "both").values()
    }
    (tmp_path / "prefect.yaml").write_text(deployments.prefect_yaml(said, "both"))

    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    theirs = there("both")
    left_out = {"updated", "created", "schedules", "pull_steps", "parameter_openapi_schema", "version_id", "labels"}
    left_out |= {"version_info", "branch", "base", "root", "last_polled", "status", "created_by", "updated_by", "path"}
    for name, our in ours.items():
        assert theirs[name].model_dump(exclude=left_out) == our.model_dump(exclude=left_out)
        (their,), (own,) = theirs[name].schedules, our.schedules
        assert (their.schedule, their.active) == (own.schedule, own.active)
        assert not theirs[name].pull_steps
    assert set(synced(said, "both").values()) == {"unchanged"}
    synced(declared(), "both")


MONTH = {
    # Clocks go forward on 2027-03-28 in Europe and on 03-14 in America, and back on 04-04 in Australia.
    "Europe/Berlin": ["0 3 * * *", "30 2 * * *", "0 */6 * * *", "15 4 * * MON", "0 0 1 * *"],
    "America/New_York": ["0 3 * * *", "0 9-17/4 * * MON-FRI", "30 2 * * SUN", "0 12 14 3 *", "45 23 * * *"],
    "Australia/Sydney": ["0 2 * * *", "30 3 * * *", "0 1 * * SUN", "0 0,12 * * *"],
    "UTC": ["0 3 * * *", "*/30 8 * * *", "0 5 * * SAT"],
}
START, END = datetime(2027, 3, 10, tzinfo=UTC), datetime(2027, 4, 10, tzinfo=UTC)


def meant(cron: str, zone: str) -> set[datetime]:
    """When a line of cron means, by the clock on the wall: every minute of the month that it fits.

    A time that clocks skip is made up for at the moment they jump; one that comes twice counts once.
    """
    wall = ZoneInfo(zone)
    found, last = set(), None
    moment = START
    while moment <= END:
        local = moment.astimezone(wall)
        face = local.replace(tzinfo=None)
        if croniter.match(cron, face) and face != last and local.fold == 0:
            found.add(moment)
            last = face
        moment += timedelta(minutes=1)
    return found


@pytest.mark.slow
def test_a_month_across_changes_of_the_clocks_is_planned_as_the_clock_on_the_wall_says(on_server: str) -> None:
    lines = [(zone, cron) for zone, crons in MONTH.items() for cron in crons]
    schedules: dict[str, Any] = {
        f"task-{number}": {"cron": cron, "timezone": zone} for number, (zone, cron) in enumerate(lines)
    }
    schedules |= {
        "daily": {"interval": "1d", "timezone": "Europe/Berlin"},
        "paused": {"interval": "1h", "paused": True},
    }
    schedules["six"] = {"interval": "6h", "timezone": "Europe/Berlin"}
    assert len(schedules) == 20
    synced(declared(**schedules), "month")

    planned = {name: plan(on_server, each.id) for name, each in there("month").items()}

    differences = {}
    for number, (zone, cron) in enumerate(lines):
        found, wanted = planned[f"task-{number}"], meant(cron, zone)
        if found != wanted:
            differences[zone, cron] = sorted(found ^ wanted)
    assert {key: value for key, value in differences.items() if key not in SKIPPED} == {}
    assert {key: [f"{each:%m-%d %H:%M}" for each in differences[key]] for key in SKIPPED} == SKIPPED
    berlin = ZoneInfo("Europe/Berlin")
    assert {moment.astimezone(berlin).hour for moment in planned["daily"]} == {0}
    assert len(planned["daily"]) == 31
    assert planned["paused"] == set()
    gaps = sorted(planned["six"])
    assert {later - earlier for earlier, later in pairwise(gaps)} == {timedelta(hours=6)}


# Times of the wall's clock that do not exist on the day that clocks go forward, and when Prefect runs them instead.
SKIPPED: dict[tuple[str, str], list[str]] = {
    ("Europe/Berlin", "30 2 * * *"): ["03-28 00:30"],
    ("America/New_York", "30 2 * * SUN"): ["03-14 06:30"],
}


def plan(api: str, deployment: Any) -> set[datetime]:
    """What Prefect's own scheduler plans for the month."""
    from prefect.client.schemas.objects import StateType

    from flows.orchestration.prefect_api import asking, runs_of

    with asking() as client:
        body = {
            "start_time": START.isoformat(),
            "end_time": END.isoformat(),
            "max_runs": 1000,
            "min_runs": 1000,
            "min_time": 40 * 86400,
        }
        client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment}, json=body)
        runs = runs_of(client, [deployment], (StateType.SCHEDULED,), after=START, before=END)
    return {datetime.fromtimestamp(run.expected_start_time.timestamp(), UTC) for run in runs if run.expected_start_time}
