"""A walk through the registry finds every break, names where it is, and is stopped by none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import NotFound, StoreUnavailable
from registry.audit.local_environment import LocalEnvironment
from registry.audit.verify import Walked, verify_registry
from registry.protocol import Version
from registry.release_log import PREFIX
from registry.releases import lifecycle

MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)
BOTH = pytest.mark.parametrize("store", ["memory", pytest.param("mlflow", marks=pytest.mark.flow)], indirect=True)
Candidate = Callable[..., Version]


@pytest.fixture
def walked(store: Any, task: str, tmp_path: Path, base_hash: str) -> Callable[..., list[Walked]]:
    """All steps of a walk through the test's task."""
    here = LocalEnvironment(tmp_path, {"tiny": base_hash})
    return lambda *tasks: list(verify_registry(lambda: store, tasks or [task], here))


@pytest.fixture
def breaks(walked: Any, task: str) -> Callable[..., list[tuple[str, str, str]]]:
    """The breaks alone, without the task's name: ``("@1", "adapter", "why")``."""

    def found(*tasks: str) -> list[tuple[str, str, str]]:
        return [(b.where.removeprefix(task), b.link, b.fault) for step in walked(*tasks) for b in step.breaks]

    return found


def away(*_: object) -> Any:
    raise StoreUnavailable("it does not answer (planted)")


@BOTH
class TestLog:
    def test_a_life_in_order_has_no_break(
        self, store: Any, task: str, candidate: Candidate, released: Any, rollback: Any, walked: Any
    ) -> None:
        released(3)
        rollback()
        candidate(store, passed=False)
        candidate(store)

        steps = walked()

        assert [step.version for step in steps] == [None, 1, 2, 3, 4, 5]
        assert [step.breaks for step in steps if step.breaks] == []

    def test_an_edited_entry(self, task: str, released: Any, edit_entry: Any, breaks: Any) -> None:
        released(2)
        edit_entry(1, reason="I never said that")

        assert breaks() == [("", "release log", "release 1 was edited after release 2 was based on it")]

    def test_an_edited_head(self, released: Any, edit_entry: Any, breaks: Any) -> None:
        released(1)
        edit_entry(1, who="eve")

        assert ("", "release log", "release 1 was edited after it took effect") in breaks()

    def test_an_entry_that_was_made_unreadable(self, released: Any, edit_entry: Any, breaks: Any) -> None:
        released(2)
        edit_entry(1, action="?")

        assert [fault for _, _, fault in breaks()] == [
            "release 1, which release 2 was based on, was taken away",
            "release 1 is not there: deleted, or made unreadable",
        ]

    def test_an_entry_of_a_version_that_never_was(self, released: Any, edit_entry: Any, breaks: Any) -> None:
        released(2)
        edit_entry(1, version="9")

        assert ("", "release log", "release 1 names version 9, which does not exist") in breaks()

    def test_a_stage_that_was_moved_by_hand(self, store: Any, task: str, released: Any, breaks: Any) -> None:
        released(2)
        store.set_stage(task, 1, "Production")

        [(where, link, fault)] = breaks()

        assert (where, link) == ("", "projection")
        assert "stage Production says version 1" in fault
        assert f"preface reconcile {task}" in fault

    def test_an_alias_of_staging_that_was_moved_by_hand(
        self, store: Any, task: str, candidate: Candidate, breaks: Any
    ) -> None:
        candidate(store)
        candidate(store)
        store.set_alias(task, "staging", 1)

        [(where, link, fault)] = breaks()

        assert (where, link) == ("", "projection")
        assert "stage Staging says [2], its alias [1]" in fault
        lifecycle.restore(store, task)  # as it says
        assert breaks() == []

    def test_a_mark_that_was_taken_off(self, store: Any, task: str, released: Any, rollback: Any, breaks: Any) -> None:
        released(2)
        rollback()
        store.tag_version(task, 2, PREFIX + "rolled_away", "")

        [(_, link, fault)] = breaks()

        assert link == "projection"
        assert "tag_version 2 'preface.rolled_away'" in fault
        lifecycle.restore(store, task)  # as it says
        assert breaks() == []

    def test_what_a_crash_left_is_told_and_not_mended(self, store: Any, task: str, released: Any, breaks: Any) -> None:
        released(1)
        mark = PREFIX + "pending.abc"
        store.tag_task(task, mark, "2026-11-23T20:00:00+00:00 ada@here")

        [(_, link, fault)] = breaks()

        assert link == "projection"
        assert "ada@here" in fault
        assert f"`preface status {task}` mends that" in fault
        assert mark in store.task_tags(task)

    def test_each_version_is_told_by_its_name(self, store: Any, task: str, candidate: Candidate, breaks: Any) -> None:
        candidate(store)
        candidate(store)
        store.tag_version(task, 2, PREFIX + "method", "magic")

        assert breaks() == [("@2", "method", "the tag preface.method says magic, the manifest prompt")]


@pytest.mark.flow
@pytest.mark.parametrize("store", ["mlflow"], indirect=True)
def test_what_was_deleted_in_mlflow_itself(store: Any, task: str, released: Any, breaks: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store.uri, store.uri)
    released(3)
    client.delete_model_version(task, "2")
    client.delete_model_version(f"{task}.releases", "3")

    found = [(link, fault) for where, link, fault in breaks() if where == ""]
    settles = f"`preface rollback {task}` goes back to version 1"

    assert found == [
        ("release log", "release 3, the last that took effect, is not in the log any more"),
        ("release log", "release 3 is not there: deleted, or made unreadable"),
        ("versions", "version 2 was deleted"),
        ("release log", "release 2 names version 2, which does not exist"),
        ("projection", f"version 2, which release 2 put into Production, was deleted; {settles}"),
    ]


@MEMORY
class TestNothingStopsIt:
    def test_a_task_that_cannot_be_read(self, task: str, candidate: Candidate, store: Any, walked: Any) -> None:
        candidate(store)

        steps = walked("absent", task)

        assert steps[0].breaks[0].fault.startswith("cannot be read: ")
        assert [(step.task, step.version) for step in steps[1:]] == [(task, None), (task, 1)]

    def test_what_nobody_foresaw(
        self, store: Any, candidate: Candidate, breaks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        candidate(store)
        real = store.download

        def odd(version: Version) -> Any:
            return real(version) if version.number == 2 else 1 / 0

        monkeypatch.setattr(store, "download", odd)

        assert breaks() == [("@1", "version", "cannot be read: ZeroDivisionError('division by zero')")]

    def test_bytes_that_are_gone_are_not_an_outage(
        self, store: Any, candidate: Candidate, breaks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            candidate(store)

        def gone(*_: object) -> Any:
            raise NotFound("gone")

        monkeypatch.setattr(store, "download", gone)

        assert [(where, link) for where, link, _ in breaks()] == [(f"@{n}", "adapter") for n in range(1, 6)]

    def test_an_artifact_store_that_is_down_is_asked_three_times(
        self, store: Any, task: str, candidate: Candidate, breaks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(6):
            candidate(store)
        store.tag_version(task, 6, PREFIX + "method", "magic")
        asked = []

        def down(*what: object) -> Any:
            asked.append(what)
            raise StoreUnavailable("it does not answer (planted)")

        monkeypatch.setattr(store, "download", down)
        monkeypatch.setattr(store, "read_file", down)

        found = breaks()

        assert len(asked) == 3
        assert [(where, link) for where, link, _ in found] == [
            ("@1", "adapter"),
            ("@1", "gate report"),
            ("@2", "adapter"),
            ("registry", "artifact store"),
        ]
        assert "not asked for 5 more versions" in found[-1][2]

    def test_an_outage_that_passes_is_told_of_that_version_alone(
        self, store: Any, candidate: Candidate, breaks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(6):
            candidate(store)
        real = store.download
        monkeypatch.setattr(store, "download", lambda v: away() if v.number % 2 else real(v))

        assert [where for where, _, _ in breaks()] == ["@1", "@3", "@5"]

    def test_a_tracking_store_that_is_down_ends_it(
        self, store: Any, task: str, candidate: Candidate, walked: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        monkeypatch.setattr(store, "releases", away)

        steps = walked("a", "b", "c", "d", "e")

        assert [step.breaks[0].where for step in steps] == ["a", "b", "c", "registry"]
        assert "the walk ends at c" in steps[-1].breaks[0].fault

    def test_a_promotion_that_ends_between_two_looks_is_no_break(
        self, store: Any, task: str, candidate: Candidate, released: Any, breaks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released(1)
        real, looks = store.task_tags, []

        def moving(of: str) -> Any:
            looks.append(of)
            return {**real(of), PREFIX + "pending.abc": "now ada@here"} if len(looks) == 1 else real(of)

        monkeypatch.setattr(store, "task_tags", moving)

        assert breaks() == []
        assert len(looks) == 2

    def test_a_gap_in_the_numbers_of_the_versions(
        self, store: Any, candidate: Candidate, breaks: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        real = store.versions
        monkeypatch.setattr(store, "versions", lambda task: [replace(v, number=3) for v in real(task)])

        assert ("", "versions", "versions 1 to 2 were deleted") in breaks()
