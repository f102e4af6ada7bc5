"""Many tasks at once, on real workers: a fleet with one that fails, who is told, and a base upgrade and back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry import queries
from tests.flows.station import Station, keeping
from tests.servers.listener import listening

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]
Project = Any  # tests/flows/conftest.py; test modules are not packages
TASKS = ("shop-a", "shop-b", "shop-c", "shop-bad")


@pytest.fixture(scope="module")
def station(
    open_project: Callable[[Path], AbstractContextManager[Project]],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> Iterator[Station]:
    with open_project(tmp_path_factory.mktemp("fleet")) as project:
        file = project.root / "params.yaml"
        params = yaml.safe_load(file.read_text())
        film = params["tasks"]["film"]
        for number, name in enumerate(TASKS):
            prefix = film["prefix"] | {"training": film["prefix"]["training"] | {"seed": number}}
            params["tasks"][name] = film | {"prefix": prefix, "promotion": "auto"}
        params["tasks"]["shop-bad"]["data"] = film["data"] | {"source": "nowhere.csv"}
        file.write_text(yaml.safe_dump(params))
        with keeping(project, free_port(), "--at-once", "2") as running:
            running.awaited(lambda: running.deployment("shop-c"))
            yield running


Told = list[dict[str, str]]


@pytest.fixture(scope="module")
def told(station: Station) -> Iterator[Told]:
    """What a webhook of Prefect's was told, that `preface notify` was given."""
    heard: Told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with listening(Handler) as address:
        notified(station, address)
        yield heard


def notified(station: Station, address: str) -> None:
    """Make a webhook block as its owner would, and have it told."""
    says = {"subject": "{{subject}}", "body": "{{body}}"}
    code = (
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block;"
        f"Block(name='pager', url={address!r}, json_data={says}).save('pager')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=station.environment | {"PREFECT_API_URL": station.api}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    missing = station.preface("notify", "custom-webhook/nobody")
    assert (missing.returncode, "Prefect has no block 'custom-webhook/nobody'" in missing.stderr) == (1, True)
    for _ in range(2):  # a second time it makes no second one
        made = station.preface("notify", "custom-webhook/pager", "--json")
        assert made.returncode == 0, made.stderr
    names = [each["name"] for each in station.ask("automations/filter", {})]
    assert sorted(name for name in names if "new data" not in name) == [
        f"preface: {kind}" for kind in ("gate refused", "given up", "promotion", "rollback", "run failed")
    ]


def subjects(told: Told) -> list[str]:
    return [each["subject"] for each in told]


def production(station: Station, task: str) -> Any:
    return queries.current(station.project.store, task, "Production")


def test_of_a_fleet_one_task_fails_alone_and_no_worker_prepares_anything(station: Station, told: Told) -> None:
    done = station.preface("retrain", "--all", "--tasks", "shop-*")

    assert done.returncode == 1
    assert "1 of 4 tasks did not end well: shop-bad" in done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("shop-")}
    assert "NotStarted" in rows["shop-bad"]
    assert "nowhere.csv" in rows["shop-bad"]
    assert [production(station, task).number for task in TASKS[:3]] == [1, 1, 1]
    log = (station.folder / "worker.log").read_text()
    assert "push data" not in log
    assert "prepare data" not in log
    runs = [station.runs(task, "COMPLETED")[0] for task in TASKS[:3]]
    assert {run["parameters"]["cause"] for run in runs} == {"fleet"}
    assert {run["parameters"]["data"]["task"] for run in runs} == set(TASKS[:3])
    [artifact] = station.ask("artifacts/latest/filter", {"artifacts": {"key": {"any_": ["fleet"]}}})
    assert {row["task"]: row["result"] for row in json.loads(artifact["data"])}["shop-a"] == "Promoted"

    station.awaited(lambda: subjects(told).count("preface: promotion") == 3)
    assert "run failed" in station.awaited(lambda: [each for each in subjects(told) if "failed" in each])[0]


@pytest.fixture(scope="module")
def trained(station: Station, told: Told) -> None:
    """The three that can be trained are, by this or by a test before."""
    done = station.preface("retrain", "--all", "--tasks", "shop-[abc]")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("trained")
def test_asked_again_it_does_nothing_and_says_so(station: Station) -> None:
    done = station.preface("retrain", "--all", "--tasks", "shop-[abc]")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Unchanged") == 3
    assert [len(station.project.store.versions(task)) for task in TASKS[:3]] == [1, 1, 1]


def test_a_refused_gate_is_told(station: Station, told: Told) -> None:
    station.project.change("tasks.story.gate", [{"metric": "chrf", "direction": "higher", "threshold": 101.0}])
    run = station.start("story", cause="hand")

    assert station.ended(run)["state_name"] == "GateRefused"
    [one] = station.awaited(lambda: [each for each in told if each["subject"] == "preface: gate refused"])
    assert "retrain of story: GateRefused" in one["body"]
    assert "chrf" in one["body"]


@pytest.mark.usefixtures("trained")
def test_a_base_upgrade_goes_task_by_task_and_comes_back(station: Station, told: Told) -> None:
    file = station.root / "params.yaml"
    # One that the new base cannot satisfy: it stays where it is, and the others go.
    station.project.change(
        "tasks.shop-c.gate", [{"metric": "accuracy", "direction": "higher", "beats": "champion", "margin": 2.0}]
    )
    before = yaml.safe_load(file.read_text())

    done = station.preface("rebase", "--to", "other", "--tasks", "shop-[abc]")

    assert station.project.gate(2, "shop-c")["passed"] is False, station.project.gate(2, "shop-c")
    assert done.returncode == 1
    assert "1 of 3 tasks are where they were: shop-c" in done.stderr
    assert [production(station, task).tag("base") for task in TASKS[:3]] == ["other", "other", "tiny"]
    after = yaml.safe_load(file.read_text())
    assert [after["tasks"][task]["base"] for task in TASKS[:3]] == ["other", "other", "tiny"]
    for task in TASKS[:2]:
        after["tasks"][task]["base"] = "tiny"
    assert after == before
    met = station.project.report(2, "shop-a")
    assert met.champion_version == 1
    assert met.champion is not None
    assert met.row_ids == station.project.report(1, "shop-a").row_ids
    assert met.champion.predictions == station.project.report(1, "shop-a").candidate.predictions

    station.project.change("tasks.shop-c.gate", [{"metric": "accuracy", "direction": "higher", "threshold": 0.0}])
    again = station.preface("rebase", "--to", "other", "--tasks", "shop-[abc]")
    assert again.returncode == 1, "its report says refused, and nothing changed that would train another"
    back = station.preface("rebase", "--undo", "--tasks", "shop-[ab]", "--reason", "worse on short reviews")
    assert back.returncode == 0, back.stderr
    assert [production(station, task).number for task in TASKS[:2]] == [1, 1]
    assert [yaml.safe_load(file.read_text())["tasks"][task]["base"] for task in TASKS[:2]] == ["tiny", "tiny"]
    station.awaited(lambda: subjects(told).count("preface: rollback") == 2)
    body = next(each["body"] for each in told if each["subject"] == "preface: rollback")
    assert "version 1 is in Production (before: 2)" in body
    assert "worse on short reviews" in body
