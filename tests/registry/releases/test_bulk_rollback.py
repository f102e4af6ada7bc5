"""A bad night: what is taken back, what is left alone, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.errors import BaseMismatch, NothingToRollBackTo, PromotionConflict, StoreUnavailable
from registry import queries
from registry.protocol import Version
from registry.releases import bulk_rollback, lifecycle, projection
from registry.releases.state import read

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
Candidate = Callable[..., Version]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``at(2)``: it is two hours past noon."""

    def clock(hours: int) -> None:
        monkeypatch.setattr(lifecycle, "now", lambda: (NOON + timedelta(hours=hours)).isoformat(timespec="seconds"))

    assert lifecycle.now is projection.now
    return clock


@pytest.fixture
def after(store: Any, task: str) -> Callable[[int], list[tuple[int, int | None]]]:
    """``after(0)``: what would be done about everything since noon: from which version to which."""

    def since(hours: int) -> list[tuple[int, int | None]]:
        return [
            (step.upon.version, step.to) for step in bulk_rollback.plan(store, [task], NOON + timedelta(hours=hours))
        ]

    return since


def test_it_goes_back_to_what_stood_there_before(store: Any, task: str, at: Any, released: Any, after: Any) -> None:
    for hour in (-2, -1, 1, 2):
        at(hour)
        released(1)

    assert after(0) == [(4, 2)]
    assert after(-3) == [(4, None)]
    assert after(3) == []


def test_a_task_that_was_taken_back_already_is_left_alone(at: Any, released: Any, rollback: Any, after: Any) -> None:
    at(-1)
    released(1)
    at(1)
    released(1)
    at(2)
    rollback()

    assert after(0) == []


def test_a_version_that_was_rolled_away_from_is_passed_over(at: Any, released: Any, rollback: Any, after: Any) -> None:
    at(-1)
    released(2)
    rollback()
    at(1)
    released(1)

    assert after(0) == [(3, 1)]


def test_a_task_that_began_in_the_night_says_so(store: Any, task: str, at: Any, released: Any) -> None:
    at(1)
    released(1)

    (step,) = bulk_rollback.plan(store, [task], NOON)

    assert step.to is None
    assert "no good version before it" in step.fault


def test_an_entry_without_a_readable_time_counts_as_of_the_night(
    at: Any, released: Any, edit_entry: Any, after: Any
) -> None:
    at(-1)
    released(2)
    edit_entry(2, when="some time")

    assert after(0) == [(2, 1)]


def test_each_task_is_its_own_entry_and_one_failure_stops_no_other(
    store: Any, task: str, at: Any, released: Any, base_hash: str, promote: Any, candidate: Candidate
) -> None:
    at(-1)
    released(1)
    at(1)
    released(1)
    (step,) = bulk_rollback.plan(store, [task], NOON)
    lost = bulk_rollback.Step("lost", step.upon, None, "lost@1 has no good version before it")

    def ran(declared: str = base_hash) -> list[Any]:
        return [
            came
            for _, came in bulk_rollback.run(store, [lost, step], reason="bad data", base_hash=lambda task: declared)
        ]

    assert [type(came) for came in ran("a" * 64)] == [NothingToRollBackTo, BaseMismatch]
    first = ran()
    assert isinstance(first[0], NothingToRollBackTo)
    assert (first[1].version.number, first[1].entry.reason) == (1, "bad data")
    assert not queries.status(store, task).alarms
    # Decided upon a release that is the head no more.
    assert [type(came) for came in ran()] == [NothingToRollBackTo, PromotionConflict]


def test_a_night_that_was_cut_short_is_brought_to_its_end_by_the_next(
    store: Any, task: str, at: Any, released: Any, after: Any, base_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its log says by then that nothing is left to do."""
    at(-1)
    released(1)
    at(1)
    released(1)
    steps = bulk_rollback.plan(store, [task], NOON)

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the server did not answer")

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "reconcile_projection", away)
        ((_, came),) = bulk_rollback.run(store, steps, reason="bad data", base_hash=lambda _: base_hash)
    assert isinstance(came, StoreUnavailable)
    assert read(store, task).shown == ({2}, {2})

    assert after(0) == []
    assert read(store, task).shown == ({1}, {1})
