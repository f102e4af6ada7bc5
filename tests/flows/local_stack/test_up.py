"""`make up` and `make down`, as they are typed: everything comes up, and down ends just that, also after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from flows.local_stack import ui
from flows.process import local_project, process_list

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
PARAMS = f"""
bases:
  tiny: {{source: nowhere, hash: "{"1" * 64}"}}
tasks:
  movie-sentiment:
    base: tiny
    data: {{source: reviews.csv, format: csv, labels: [negative, positive]}}
    instruction: Say how it is.
    gate: [{{metric: accuracy, direction: higher, threshold: 0.5}}]
"""


@dataclass(frozen=True)
class Checkout:
    """Somebody's clone, whose pages have ports of their own: other tests may hold those that Preface takes."""

    root: Path
    mlflow: int
    prefect: int

    @property
    def folder(self) -> Path:
        return self.root / local_project.STATION

    def make(self, target: str) -> subprocess.CompletedProcess[str]:
        """What `make up` and `make down` run."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACK"))}
        command = [sys.executable, "-m", "flows.local_stack.up", target]
        return subprocess.run(command, cwd=self.root, env=own, capture_output=True, text=True, timeout=600)

    def processes(self) -> list[psutil.Process]:
        """All that runs here: what is listed, and what each of it started."""
        found = {}
        for _, pid in process_list.alive(self.folder):
            with suppress(psutil.NoSuchProcess):
                leader = psutil.Process(pid)
                found |= {each.pid: each for each in (leader, *leader.children(recursive=True))}
        return list(found.values())

    def assert_nothing_is_left(self, were: list[psutil.Process]) -> None:
        """Neither one of those processes, nor a port, nor the list."""
        _, left = psutil.wait_procs([each for each in were if lives(each)], timeout=10)
        assert [each.cmdline() for each in left if lives(each)] == []
        assert [port for port in (self.mlflow, self.prefect) if process_list.listening(port)] == []
        assert not (self.folder / process_list.LIST).exists()


@pytest.fixture
def checkout(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Checkout]:
    """Nothing of it runs when the test is over, whatever became of it."""
    made = Checkout(tmp_path / "project", free_port(), free_port())
    for package in ("cli", "flows", "registry", "components"):
        shutil.copytree(ROOT / package, made.root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, fixed, own in (
        ("flows/local_stack/ui.py", f"= {ui.MLFLOW_PORT}, {ui.PREFECT_PORT}\n", f"= {made.mlflow}, {made.prefect}\n"),
        ("cli/commands/schedule.py", f"default={ui.PREFECT_PORT},", f"default={made.prefect},"),
    ):
        text = (made.root / file).read_text(encoding="utf-8")
        assert text.count(fixed) == 1, f"{file} takes its ports from elsewhere now"
        (made.root / file).write_text(text.replace(fixed, own), encoding="utf-8")
    (made.root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    yield made
    left = made.processes()
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()


@pytest.fixture
def stranger(checkout: Checkout, free_port: Callable[[], int]) -> Iterator[psutil.Process]:
    """A server of somebody else's, in the folder where ours work."""
    checkout.folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", process_list.HOST, str(port)]
    with subprocess.Popen(
        command, cwd=checkout.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        yield psutil.Process(process.pid)
        process.kill()


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int) -> None:
    """End it with no chance to end anything else; it is gone once whoever inherited it has seen that."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def status(address: str) -> int:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return int(answer.status)


def test_down_stops_just_what_up_started(checkout: Checkout, stranger: psutil.Process) -> None:
    up = checkout.make("up")

    assert (up.returncode, up.stderr) == (0, ""), up.stderr
    for name, port in (("MLflow", checkout.mlflow), ("Prefect", checkout.prefect)):
        assert f"{name:8} http://{process_list.HOST}:{port}" in up.stdout
    assert "`make down` stops it" in up.stdout
    assert "Ctrl-C" not in up.stdout
    assert status(f"http://{process_list.HOST}:{checkout.mlflow}/") == 200
    assert status(f"http://{process_list.HOST}:{checkout.prefect}/api/health") == 200
    assert {name for name, _ in process_list.alive(checkout.folder)} == {
        process_list.ITSELF,
        "MLflow",
        "Prefect",
        "Worker",
    }
    were, listed = checkout.processes(), process_list.alive(checkout.folder)
    assert len(were) >= len(listed) == 4

    again = checkout.make("up")
    assert (again.returncode, again.stdout) == (0, "running already; `make down` stops it\n")
    assert process_list.alive(checkout.folder) == listed, "the same still run"

    down = checkout.make("down")
    assert (down.returncode, down.stderr) == (0, "")
    assert set(down.stdout.removeprefix("stopped ").strip().split(", ")) == {"MLflow", "Prefect", "Worker"}
    checkout.assert_nothing_is_left(were)
    assert lives(stranger)

    nothing = checkout.make("down")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "nothing was running\n", "")


@pytest.mark.slow
def test_down_stops_what_is_left_where_the_one_that_kept_it_was_killed(
    checkout: Checkout, stranger: psutil.Process
) -> None:
    assert checkout.make("up").returncode == 0
    were = checkout.processes()
    (name, itself), *others = process_list.alive(checkout.folder)
    assert name == process_list.ITSELF

    kill(itself)

    assert sorted(name for name, _ in others) == ["MLflow", "Prefect", "Worker"]
    assert [name for name, pid in others if not lives(psutil.Process(pid))] == [], "a kill of one takes none with it"
    down = checkout.make("down")

    assert (down.returncode, down.stderr) == (0, "")
    assert set(down.stdout.removeprefix("stopped ").strip().split(", ")) == {"MLflow", "Prefect", "Worker"}
    checkout.assert_nothing_is_left(were)
    assert lives(stranger)


@pytest.mark.slow
def test_up_starts_all_of_it_anew_where_the_one_that_kept_it_was_killed(checkout: Checkout) -> None:
    assert checkout.make("up").returncode == 0
    were, (_, itself) = checkout.processes(), process_list.alive(checkout.folder)[0]
    kill(itself)

    up = checkout.make("up")

    assert (up.returncode, up.stderr) == (0, ""), up.stderr
    now = process_list.alive(checkout.folder)
    assert {name for name, _ in now} == {process_list.ITSELF, "MLflow", "Prefect", "Worker"}
    assert {pid for _, pid in now} & {each.pid for each in were} == set()
    assert [each.cmdline() for each in were if lives(each)] == []
    everything = checkout.processes()
    assert checkout.make("down").returncode == 0
    checkout.assert_nothing_is_left(everything)


def test_whoever_has_a_number_out_of_the_list_by_now_is_left_alone(
    checkout: Checkout, stranger: psutil.Process
) -> None:
    began = process_list.began(stranger.pid)
    assert began is not None
    entry = {"name": "Worker", "pid": stranger.pid, "port": None, "began": began - 1}
    listed = checkout.folder / process_list.LIST
    listed.write_text(json.dumps([entry]), encoding="utf-8")

    down = checkout.make("down")

    assert (down.returncode, down.stdout) == (0, "nothing was running\n")
    assert lives(stranger)

    # Planted: it is the one that was started.
    listed.write_text(json.dumps([entry | {"began": began}]), encoding="utf-8")
    assert checkout.make("down").stdout == "stopped Worker\n"
    assert not lives(stranger)


def test_up_does_not_take_the_workers_of_a_fleet_for_its_own(checkout: Checkout, stranger: psutil.Process) -> None:
    keeper = {"name": process_list.ITSELF, "pid": stranger.pid, "port": None, "began": process_list.began(stranger.pid)}
    others = [keeper | {"name": name} for name in ("Prefect", "Worker")]
    listed = checkout.folder / process_list.LIST
    listed.write_text(json.dumps([keeper, *others]), encoding="utf-8")

    up = checkout.make("up")

    assert (up.returncode, up.stdout) == (1, "")
    assert f"kept running already, by the process {stranger.pid}" in up.stderr
    assert json.loads(listed.read_text(encoding="utf-8")) == [keeper, *others], "the list stays with whoever keeps them"
    assert lives(stranger)

    # Planted: with MLflow's page there it is what `make up` started.
    listed.write_text(json.dumps([keeper, *others, keeper | {"name": "MLflow"}]), encoding="utf-8")
    assert checkout.make("up").stdout == "running already; `make down` stops it\n"


def test_up_says_which_port_is_taken_and_leaves_nothing(checkout: Checkout) -> None:
    with socket.create_server((process_list.HOST, checkout.prefect)):
        up = checkout.make("up")

    assert (up.returncode, up.stdout) == (1, "")
    assert f"port {checkout.prefect} is taken and Prefect needs it" in up.stderr
    assert up.stderr.count("\n") == 1
    checkout.assert_nothing_is_left([])
