"""What there is to see of a task: one suite, on a dictionary, on MLflow, and on MLflow without stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.errors import NotFound, RegistryError
from registry import queries
from registry.protocol import Version

Candidate = Callable[..., Version]


class TestLook:
    def test_status_of_a_task_s_life(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store)
        before = queries.status(store, task)
        promote()
        candidate(store)
        after = queries.status(store, task)

        assert (before.production, before.staging.number, before.head, not before.alarms) == (None, 1, None, True)
        assert (after.production.number, after.staging.number, after.versions, not after.alarms) == (1, 2, 2, True)
        assert task in store.tasks()

    def test_a_stage_moved_by_hand_shows_and_does_not_count(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)
        promote()
        candidate(store)
        store.set_stage(task, 2, "Production")
        store.set_alias(task, "production", 2)

        assert queries.status(store, task).alarms
        assert queries.current(store, task, "Production").number == 1

    def test_addresses(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store)
        with pytest.raises(NotFound, match="no version in Production"):
            queries.find(store, f"{task}@production")
        promote()
        candidate(store)

        found = [queries.find(store, f"{task}@{which}").number for which in ("production", "staging", "2")]

        assert found == [1, 2, 2]
        with pytest.raises(NotFound):
            queries.find(store, f"{task}@9")
        for address in (task, f"{task}@", "@1", f"{task}@latest", f"{task}@-1"):
            with pytest.raises(RegistryError, match="TASK@NUMBER"):
                queries.find(store, address)

    def test_an_unknown_task(self, store: Any, task: str) -> None:
        with pytest.raises(NotFound):
            queries.status(store, task)
        assert queries.current(store, task, "Production") is None
        assert queries.history(store, task) == []


class TestGlance:
    """Every task at once, out of two bulk queries: the same as a look at each, or that look itself."""

    @pytest.fixture
    def glance(
        self, store: Any, task: str, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], tuple[queries.Status, bool]]:
        """What a glance makes of the test's task, and whether it had to look closer."""

        def at() -> tuple[queries.Status, bool]:
            closer, real = [], queries.status
            with monkeypatch.context() as patch:
                patch.setattr(queries, "status", lambda store, task: closer.append(task) or real(store, task))
                (found,) = [status for status in queries.statuses(store) if status.task == task]
            return found, task in closer

        return at

    @pytest.mark.parametrize("life", ["candidate", "candidate promote", "candidate promote candidate", "two rollback"])
    def test_a_task_at_rest(
        self, store: Any, task: str, life: str, glance: Any, candidate: Any, released: Any, promote: Any, rollback: Any
    ) -> None:
        acts = {"candidate": lambda: candidate(store), "two": lambda: released(2)}
        for act in life.split():
            (acts | {"promote": promote, "rollback": rollback})[act]()

        found, closer = glance()

        assert found == queries.status(store, task)
        assert not closer or not getattr(store, "_stages", True)

    def test_what_was_moved_by_hand_is_looked_at(self, store: Any, task: str, released: Any, glance: Any) -> None:
        released(2)
        store.set_stage(task, 1, "Production")
        store.set_alias(task, "production", 1)

        found, closer = glance()

        assert closer
        assert found == queries.status(store, task)
        assert found.drift

    def test_an_edited_head_is_looked_at(self, released: Any, glance: Any, edit_entry: Any) -> None:
        released(2)
        edit_entry(2, reason="another")

        assert glance()[0].faults == ("release 2 was edited after it took effect",)

    def test_a_void_last_entry_is_looked_at(self, store: Any, task: str, released: Any, glance: Any) -> None:
        released(2)
        store.append_release(task, store.releases(task)[0])

        found, closer = glance()

        assert closer
        assert (found.head.number, not found.alarms) == (2, True)
