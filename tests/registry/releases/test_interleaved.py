"""Operations that pass each other between two calls to the store: whoever looks last has it right, and nobody is told
of a difference that was only on its way.

Each interleaving is made by hand: one operation is run in the middle of another. Those that were not thought of are
sought in ``test_killed.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.errors import RegistryError
from registry import queries
from registry.protocol import Version
from registry.releases import lifecycle
from registry.releases.state import PENDING, read

Candidate = Callable[..., Version]


@pytest.fixture
def meanwhile(store: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``meanwhile("set_stage", call)``: the call runs once, right before the store is next asked for that."""

    def run(method: str, call: Callable[[], Any]) -> None:
        real, done = getattr(store, method), []

        def interrupted(*args: Any) -> Any:
            if not done:
                done.append(True)
                call()
            return real(*args)

        monkeypatch.setattr(store, method, interrupted)

    return run


def test_who_looks_while_another_promotes_is_not_told_of_drift(
    store: Any, task: str, released: Any, candidate: Candidate, promote: Any, meanwhile: Any
) -> None:
    released(1)
    candidate(store)
    meanwhile("versions", promote)  # the log has been read by then

    status = queries.status(store, task)

    assert (status.drift, status.faults) == ("", ())
    assert status.production.number == 2


def test_a_promotion_that_is_passed_while_it_reads_is_a_stale_report_and_no_drift(
    store: Any, task: str, released: Any, candidate: Candidate, promote: Any, meanwhile: Any
) -> None:
    released(1)
    for _ in range(2):
        candidate(store)
    meanwhile("versions", lambda: promote(2))

    with pytest.raises(RegistryError, match="gate report is stale") as caught:
        promote(3)
    assert "reconcile" not in str(caught.value)


def test_a_look_that_repairs_too_late_repairs_itself(
    store: Any, task: str, released: Any, rollback: Any, seen: Any, meanwhile: Any
) -> None:
    """Its mark is then the only one, and the tag that says which entry was last followed is up to date."""
    released(2)
    store.tag_task(task, PENDING + "another", "at it")
    store.set_stage(task, 1, "Production")
    store.set_alias(task, "production", 1)

    def others_end() -> None:
        store.untag_task(task, PENDING + "another")
        rollback(1)

    meanwhile("set_stage", others_end)  # which would put 2 back
    queries.status(store, task)

    state = read(store, task)
    assert (state.drift, state.pending, state.head.version) == ("", {}, 1)
    assert seen.aliases == {"production": 1}


@pytest.mark.parametrize("method", ["set_alias", "set_stage", "tag_task"])
def test_of_two_that_write_the_same_at_one_moment_neither_fails(
    store: Any, task: str, candidate: Candidate, promote: Any, seen: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    candidate(store)
    real, refused = getattr(store, method), []

    def refusing(*args: Any) -> None:
        if not refused and not str(args[1]).startswith(PENDING):
            refused.append(args)
            raise RegistryError("the tracking store refuses: UNIQUE constraint failed")
        real(*args)

    monkeypatch.setattr(store, method, refusing)

    assert promote().changed
    assert refused
    assert (seen.stages, seen.aliases) == (["Production"], {"production": 1})


def test_a_write_that_is_refused_for_good_is_told(
    store: Any, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate(store)

    def refusing(*_: Any) -> None:
        raise RegistryError("the tracking store refuses: PERMISSION_DENIED")

    monkeypatch.setattr(store, "set_alias", refusing)

    with pytest.raises(RegistryError, match="PERMISSION_DENIED"):
        promote()


def test_undoing_by_hand_what_stood_in_staging_puts_it_back_there(
    store: Any, task: str, released: Any, candidate: Candidate, seen: Any
) -> None:
    released(1)
    candidate(store)
    store.set_stage(task, 2, "Production")
    store.set_alias(task, "production", 2)

    lifecycle.restore(store, task)

    assert seen.stages == ["Production", "Staging"]
    assert seen.aliases == {"production": 1, "staging": 2}
