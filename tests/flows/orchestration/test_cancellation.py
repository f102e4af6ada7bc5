"""Cancelling: what is written down about a run's ending is written to its end, whatever signal comes meanwhile."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from components.errors import Stopped
from flows.orchestration import cancellation
from flows.orchestration.cancellation import Watch, defer_sigterm


class Terminated(Exception):
    """What Prefect's handler of SIGTERM raises, by another name."""


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    def handler(_: int, __: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_meanwhile_is_delivered_after_it() -> None:
    done: list[str] = []

    def ending() -> None:
        with defer_sigterm():
            signal.raise_signal(signal.SIGTERM)
            done.append("written down")

    with pytest.raises(Terminated):
        ending()
    assert done == ["written down"]


def test_without_it_the_signal_would_come_between() -> None:
    done: list[str] = []

    def ending() -> None:
        signal.raise_signal(signal.SIGTERM)
        done.append("written down")

    with pytest.raises(Terminated):
        ending()
    assert done == []


def test_the_handler_is_the_one_before_afterwards_also_where_something_fails() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="planted"), defer_sigterm():
        raise ValueError("planted")

    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_has_no_signals_and_is_left_alone() -> None:
    done: list[str] = []

    def work() -> None:
        with defer_sigterm():
            done.append("written down")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == ["written down"]


def test_a_training_that_nobody_can_cancel_passes_its_figures_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    seen: list[tuple[dict[str, float], int]] = []
    with Watch(lambda figures, step: seen.append((figures, step))) as watch:
        watch({"loss": 1.0}, 3)

    assert seen == [({"loss": 1.0}, 3)]
    watch._cancelled.set()
    with pytest.raises(Stopped, match="cancelled at step 4"):
        watch({"loss": 0.5}, 4)


@pytest.mark.flow
@pytest.mark.parametrize("by_worker", [False, True])
def test_a_run_that_nobody_can_stop_from_outside_stops_itself(
    on_server: str, monkeypatch: pytest.MonkeyPatch, by_worker: bool
) -> None:
    """One that a command runs in its own process; and one whose worker was killed, after what a worker would need."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.states import Cancelling

    @flow
    def training() -> float:
        with get_client(sync_client=True) as client, Watch(lambda figures, step: None) as watch:
            client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
            began = time.monotonic()
            for step in range(12_000):
                try:
                    watch({"loss": 1.0}, step)
                except Stopped:
                    return time.monotonic() - began
                time.sleep(0.01)
        return float("inf")

    grace = 6.0 if by_worker else 600.0  # longer than the test goes on: whoever waited for it would never stop
    monkeypatch.setattr(cancellation, "GRACE", grace)
    if by_worker:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "of a worker that is gone")
    seconds = training()

    assert seconds < float("inf")
    assert seconds > 6.0 * by_worker
