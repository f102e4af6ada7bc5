"""One training per device: who waits, who gets the place when a process or the server dies.

Holders are real processes on a real Prefect server; each writes down when it got the place and when it left. The clock
is that of the machine, the same for all of them.
"""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flows.local_stack.ui import LEASES
from flows.orchestration import concurrency

ROOT = Path(__file__).parents[3]
CPU = f"preface-{socket.gethostname()}-cpu"
# A server that tells who waits to come again soon: these tests look at who may come in, and not at how long it takes.
SOON = {
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
}
REPOSSESSOR_SECONDS = 15.0  # how often Prefect's server looks for leases that nobody renewed
HOLD = """
import sys, time
from pathlib import Path
from prefect import flow
from flows.orchestration import concurrency

folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def say(what):
    with (folder / "said").open("a") as file:
        file.write(f"{what} {name} {time.monotonic()}\\n")

@flow
def train():
    say("waits")
    with concurrency.training_slot():
        say("in")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (folder / f"leave-{name}").exists():
            time.sleep(0.05)
        say("out")

train()
"""


# --- what a place is called -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "name"),
    [(None, "gpu-0"), ("0", "gpu-0"), ("3", "gpu-3"), ("2,3", "gpu-2"), ("GPU-8f6c,GPU-1b2d", "gpu-GPU-8f6c")],
)
def test_each_gpu_is_one_place_by_the_number_that_the_worker_was_given(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, name: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert concurrency.slot_of("cuda") == (f"preface-{socket.gethostname()}-{name}", 1)


@pytest.mark.parametrize("threads", [None, "", "0", "-1", "1.5", "many", "4,2"])
def test_a_cpu_whose_threads_nobody_limits_is_one_place(monkeypatch: pytest.MonkeyPatch, threads: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)

    assert concurrency.slot_of("cpu") == (CPU, 1)


def test_a_cpu_has_as_many_places_as_cores_for_their_threads_and_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    for threads in range(1, 2 * cores + 1):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        name, places = concurrency.slot_of("cpu")
        assert name == CPU
        assert places >= 1
        assert places * threads <= cores or places == 1
        assert (places + 1) * threads > cores, "one more would fit"


# --- who holds it -----------------------------------------------------------------------------------------------------


class Places:
    """A server, processes that hold the CPU's place on it, and what they said."""

    def __init__(self, folder: Path, port: int, running: Callable[..., Any], stack: ExitStack) -> None:
        self.folder, self.port, self.api = folder, port, f"http://127.0.0.1:{port}/api"
        self._running, self._stack = running, stack
        self.script = folder / "hold.py"  # written once: a process that starts must not find it cut to nothing
        self.script.write_text(HOLD, encoding="utf-8")

    @contextmanager
    def server(self, environment: Mapping[str, str] | None = None) -> Iterator[None]:
        """A server on the same port, with the same home as the last one; at the end it is killed."""
        log, own = self.folder / "server.log", SOON | {"PREFECT_HOME": str(self.folder / "home")}
        command = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        with self._running(*command, log=log, environment=own | dict(environment or {})) as process:
            self.awaited(lambda: process.poll() is not None or self.answers())
            assert process.poll() is None, log.read_text()[-2000:]
            yield

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.api}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def hold(self, name: str, seconds: float = 600) -> Any:
        """A process that waits for the place and holds it so long, or until it is told to leave."""
        own = {
            "PREFECT_HOME": str(self.folder / f"home-{name}"),
            "PREFECT_API_URL": self.api,
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = (str(self.script), str(self.folder), name, str(seconds))
        return self._stack.enter_context(
            self._running(*command, log=self.folder / f"{name}.log", environment=own, folder=self.folder)
        )

    def leave(self, name: str) -> None:
        (self.folder / f"leave-{name}").touch()

    def when(self, what: str, name: str) -> float | None:
        """When a process said so, if it did."""
        try:
            lines = (self.folder / "said").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        return next((float(line.split()[2]) for line in lines if line.split()[:2] == [what, name]), None)

    def awaited(self, look: Callable[[], Any], seconds: float = 180) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.1)
        logs = {path.name: path.read_text()[-3000:] for path in [*self.folder.glob("*.log"), self.folder / "said"]}
        pytest.fail(f"nothing within {seconds} s: {logs}")

    def inside(self, name: str, seconds: float = 180) -> float:
        """When it got the place, once it has."""
        return float(self.awaited(lambda: self.when("in", name), seconds))

    def held(self) -> int:
        """How many places the server takes for occupied."""
        with urllib.request.urlopen(f"{self.api}/v2/concurrency_limits/{CPU}", timeout=20) as answer:
            return int(json.load(answer)["active_slots"])

    def wait_until(self, moment: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()))


@pytest.fixture
def places(
    tmp_path: Path, running: Callable[..., Any], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Places]:
    monkeypatch.delenv("OMP_NUM_THREADS")
    with ExitStack() as stack:
        yield Places(tmp_path, free_port(), running, stack)


def overlaps(places: Places, *names: str) -> list[tuple[str, str]]:
    """Who held the place one after the other and yet at the same time."""
    said = sorted((places.when("in", name) or 0.0, places.when("out", name) or 0.0, name) for name in names)
    return [(one[2], other[2]) for one, other in pairwise(said) if other[0] < one[1]]


@pytest.mark.flow
def test_holders_of_one_place_never_overlap_and_two_places_are_held_by_two(places: Places) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.settings import PREFECT_API_URL, temporary_settings

    names = ("one", "two", "three")
    with places.server():
        processes = [places.hold(name, seconds=1.5) for name in names]
        assert [process.wait(timeout=200) for process in processes] == [0, 0, 0]

        assert overlaps(places, *names) == []
        assert all(places.when("out", name) for name in names)
        assert places.held() == 0

        # The planted fault of the same check: a place more, as somebody makes it by hand.
        with temporary_settings({PREFECT_API_URL: places.api}), get_client(sync_client=True) as client:
            client.update_global_concurrency_limit(CPU, GlobalConcurrencyLimitUpdate(limit=2))
        for name in ("four", "five"):
            places.hold(name)
        for name in ("four", "five"):
            places.inside(name)
        assert places.held() == 2, "and nobody makes it one again"
        for name in ("four", "five"):
            places.leave(name)
            places.awaited(lambda name=name: places.when("out", name))
        assert len(overlaps(places, "four", "five")) == 1


@pytest.mark.flow
def test_a_command_by_hand_on_a_server_of_its_own_takes_no_place(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for itself if it did: the second is taken inside of the first."""
    from prefect import flow
    from prefect.client.orchestration import get_client

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")

    @flow
    def train() -> tuple[float, float]:
        with concurrency.training_slot() as outer, concurrency.training_slot() as inner:
            within = inner.spent().device_seconds
            return outer.spent().device_seconds, within

    outer, inner = train()

    assert outer >= inner >= 0.0
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limits(limit=10, offset=0) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_place_of_a_killed_holder_is_free_within_two_minutes_and_who_waits_gets_it(places: Places) -> None:
    with places.server(LEASES):
        holder = places.hold("killed")
        places.inside("killed")
        places.hold("waiter")
        places.awaited(lambda: places.when("waits", "waiter"))
        assert places.held() == 1

        holder.kill()
        killed = time.monotonic()

        assert places.inside("waiter", seconds=120) > killed
        assert places.when("out", "killed") is None
        places.leave("waiter")
        places.awaited(lambda: places.held() == 0)


@contextmanager
def restarted(places: Places, leases: Mapping[str, str]) -> Iterator[None]:
    """A server is killed and started again while one holds the place and one waits; by now its lease would be over."""
    with places.server(leases):
        places.hold("holder")
        began = places.inside("holder")
        places.hold("waiter")
        places.awaited(lambda: places.when("waits", "waiter"))
        time.sleep(3)  # it was told to wait, and asks again
        assert places.held() == 1
    assert not places.answers()
    with places.server(leases):
        places.wait_until(began + concurrency.LEASE_SECONDS + 2 * REPOSSESSOR_SECONDS + 10)
        yield


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_is_killed_and_started_again_keeps_the_place_for_its_living_holder(places: Places) -> None:
    with restarted(places, LEASES):
        assert places.when("in", "waiter") is None
        assert places.held() == 1

        places.leave("holder")

        assert places.inside("waiter") > places.awaited(lambda: places.when("out", "holder"))
        assert places.held() == 1
        places.leave("waiter")
        places.awaited(lambda: places.held() == 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_keeps_leases_in_memory_alone_never_gives_the_place_to_anybody_again(places: Places) -> None:
    """The planted fault: it counts on its disk how many places are held, and by whom in its memory."""
    with restarted(places, {}):
        assert places.held() == 1
        places.leave("holder")
        places.awaited(lambda: places.when("out", "holder"))

        time.sleep(2 * REPOSSESSOR_SECONDS)

        assert places.when("in", "waiter") is None
        assert places.held() == 1, "and nobody is there"
