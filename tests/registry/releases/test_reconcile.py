"""What disagrees with the release log: mended if a crash left it, told if it was made by hand, settled on request."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.errors import ArtifactError, PromotionRefused, RegistryError, StoreUnavailable
from registry import queries
from registry.protocol import Version
from registry.releases import lifecycle, registration
from registry.releases.state import PENDING, PROJECTED, read

Candidate = Callable[..., Version]


@pytest.fixture
def adopt(store: Any, task: str, base_hash: str) -> Callable[..., lifecycle.ReleaseResult]:
    return lambda **options: lifecycle.adopt(store, task, reason="it was right", base_hash=base_hash, **options)


@pytest.fixture
def by_hand(store: Any, task: str) -> Callable[[int], None]:
    """``by_hand(2)``: somebody puts version 2 into Production in MLflow's page."""

    def move(number: int) -> None:
        store.set_stage(task, number, "Production")
        store.set_alias(task, "production", number)

    return move


@pytest.fixture
def dies(store: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``dies("set_stage", promote)``: the call ends where it would next ask the store for that, as if killed."""

    def until(method: str, call: Callable[..., Any], *arguments: Any) -> None:
        class Killed(BaseException):
            pass

        def kill(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(store, method, kill)
            with pytest.raises(Killed):
                call(*arguments)

    return until


class TestCrashed:
    @pytest.mark.parametrize("method", ["set_stage", "set_alias", "untag_task"])
    def test_the_next_look_brings_a_promotion_to_its_end(
        self, store: Any, task: str, candidate: Candidate, promote: Any, dies: Any, seen: Any, method: str
    ) -> None:
        candidate(store)
        dies(method, promote)

        status = queries.status(store, task)

        assert not status.alarms
        assert (seen.stages, seen.aliases, seen.log) == (["Production"], {"production": 1}, [("promote", 1)])
        assert read(store, task).projected == (1, store.releases(task)[0].hash)

    def test_killed_before_its_entry_it_never_was(
        self, store: Any, task: str, candidate: Candidate, promote: Any, dies: Any, seen: Any
    ) -> None:
        candidate(store)
        dies("append_release", promote)

        assert not queries.status(store, task).alarms
        assert (seen.stages, seen.log) == (["Staging"], [])

    @pytest.mark.parametrize("method", ["set_stage", "set_alias", "tag_version", "untag_task"])
    def test_the_next_look_brings_a_registration_to_its_end(
        self, store: Any, task: str, candidate: Candidate, dies: Any, seen: Any, method: str
    ) -> None:
        dies(method, candidate, store)

        assert queries.status(store, task).staging.number == 1
        assert (seen.stages, seen.aliases) == (["Staging"], {"staging": 1})

    def test_a_duplicate_whose_run_was_killed_is_known_as_one(
        self, store: Any, task: str, candidate: Candidate, dies: Any, seen: Any
    ) -> None:
        candidate(store, fingerprint="e" * 64)
        dies("tag_version", lambda: candidate(store, fingerprint="e" * 64))

        queries.status(store, task)

        assert store.version(task, 2).tag("duplicate_of") == "1"
        assert seen.stages == ["Staging", "None"]

    def test_a_slow_registration_does_not_take_a_newer_one_s_place(
        self, store: Any, task: str, candidate: Candidate, monkeypatch: pytest.MonkeyPatch, seen: Any
    ) -> None:
        real, overtaken = store.set_stage, []

        def slow(task: str, number: int, stage: str) -> None:
            if not overtaken:
                overtaken.append(number)
                candidate(store)
            real(task, number, stage)

        monkeypatch.setattr(store, "set_stage", slow)
        candidate(store)

        assert (seen.stages, seen.aliases) == (["None", "Staging"], {"staging": 2})

    def test_a_slow_registration_does_not_undo_a_promotion(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch, seen: Any
    ) -> None:
        real, promoted = store.set_stage, []

        def slow(task: str, number: int, stage: str) -> None:
            if not promoted:
                promoted.append(number)
                promote(number)
            real(task, number, stage)

        monkeypatch.setattr(store, "set_stage", slow)
        candidate(store)

        assert not queries.status(store, task).alarms
        assert seen.stages == ["Production"]

    def test_a_late_and_then_killed_projection_is_no_drift(
        self, store: Any, task: str, candidate: Candidate, released: Any, promote: Any, dies: Any, seen: Any
    ) -> None:
        """It moved the stage back after another promotion had ended, and died: its mark tells that nobody meant it."""
        released(1)
        candidate(store)
        store.tag_task(task, PENDING + "slow", f"{datetime.now(UTC).isoformat()} eve@there 1")
        promote()
        store.set_stage(task, 1, "Production")

        assert not queries.status(store, task).alarms
        assert seen.stages == ["None", "Production"]

    def test_a_late_staging_of_what_was_rolled_away_from_is_taken_back(
        self, store: Any, task: str, released: Any, rollback: Any, seen: Any
    ) -> None:
        """By hand it may stand there; with a mark there it was somebody who had not seen the rollback."""
        released(2)
        rollback()
        for late in (False, True):
            store.set_stage(task, 2, "Staging")
            store.set_alias(task, "staging", 2)
            if late:
                store.tag_task(task, PENDING + "slow", f"{datetime.now(UTC).isoformat()} eve@there 1")

            queries.status(store, task)

            assert seen.stages == ["Production", "None" if late else "Staging"]
            assert seen.aliases == {"production": 1} | ({} if late else {"staging": 2})

    def test_marks_of_the_dead_are_taken_away(self, store: Any, task: str, released: Any, promote: Any) -> None:
        released(1)
        here, gone = socket.gethostname(), subprocess.Popen(["true"])
        gone.wait()
        for name, age, whose in (
            ("old", 3600, f"eve@there {os.getpid()}"),
            ("dead", 0, f"eve@{here} {gone.pid}"),
            ("unreadable", 0, f"eve@{here} pid"),
            ("young", 0, "eve@there 1"),
            ("alive", 0, f"eve@{here} {os.getpid()}"),
        ):
            store.tag_task(task, PENDING + name, f"{(datetime.now(UTC) - timedelta(seconds=age)).isoformat()} {whose}")
        store.tag_task(task, PENDING + "nonsense", "whenever")

        queries.status(store, task)

        assert set(read(store, task).pending) == {PENDING + "young", PENDING + "alive"}

    def test_who_may_only_read_still_sees(
        self, store: Any, task: str, candidate: Candidate, promote: Any, dies: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        dies("set_stage", promote)

        def refuse(*_: Any) -> None:
            raise RegistryError("you may not write")

        monkeypatch.setattr(store, "tag_task", refuse)
        status = queries.status(store, task)

        assert status.production.number == 1
        assert "could not be mended: you may not write" in status.faults[-1]


class TestJudgedAgain:
    @pytest.fixture
    def judge(self, store: Any, task: str, tmp_path: Path) -> Callable[..., Version]:
        def again(number: int, passed: bool, champion: int | None = None) -> Version:
            report = tmp_path / "gate.json"
            report.write_text(json.dumps({"passed": passed, "champion": champion}))
            return registration.judge_again(store, store.version(task, number), report)

        return again

    def test_a_stale_report_is_made_anew(
        self, store: Any, task: str, candidate: Candidate, promote: Any, judge: Any
    ) -> None:
        candidate(store)
        candidate(store)
        promote(1)
        with pytest.raises(PromotionRefused, match="stale"):
            promote(2)

        judge(2, True, champion=1)

        assert promote(2).entry.override == ""

    def test_a_refusal_takes_it_out_of_staging(self, candidate: Candidate, store: Any, judge: Any, seen: Any) -> None:
        candidate(store)

        judge(1, False)

        assert (seen.stages, seen.aliases) == (["None"], {})

    def test_a_pass_brings_a_refused_one_in(self, candidate: Candidate, store: Any, judge: Any, seen: Any) -> None:
        candidate(store, passed=False)

        judge(1, True)

        assert (seen.stages, seen.aliases) == (["Staging"], {"staging": 1})

    def test_the_one_in_production_stays_there(self, store: Any, released: Any, judge: Any, seen: Any) -> None:
        released(1)

        judge(1, False)

        assert seen.stages == ["Production"]

    def test_killed_before_the_tag_the_old_verdict_stands(
        self, store: Any, task: str, candidate: Candidate, judge: Any, dies: Any, seen: Any
    ) -> None:
        before = candidate(store).gate
        dies("tag_version", judge, 1, False)

        queries.status(store, task)

        assert store.version(task, 1).gate == before
        assert seen.stages == ["Staging"]

    def test_killed_after_the_tag_the_new_one_does(
        self, store: Any, task: str, candidate: Candidate, judge: Any, dies: Any, seen: Any
    ) -> None:
        candidate(store)
        dies("tag_task", judge, 1, False)

        queries.status(store, task)

        assert seen.stages == ["None"]


class TestDrift:
    def test_what_was_moved_by_hand_is_put_into_words_and_left_alone(
        self, store: Any, task: str, candidate: Candidate, released: Any, by_hand: Any, seen: Any
    ) -> None:
        released(1)
        candidate(store)
        by_hand(2)

        status = queries.status(store, task)

        assert status.drift == (
            "MLflow's stage Production says version 2 and MLflow's alias production says version 2, "
            "the release log version 1 (release 1)"
        )
        assert (status.production.number, status.stage, status.alias) == (1, (2,), (2,))
        assert seen.stages == ["None", "Production"]

    def test_a_registration_does_not_settle_it_silently(
        self, store: Any, task: str, candidate: Candidate, released: Any, by_hand: Any
    ) -> None:
        released(2)
        by_hand(1)
        candidate(store)

        assert "says version 1" in queries.status(store, task).drift

    def test_restore_brings_mlflow_back(
        self, store: Any, task: str, candidate: Candidate, released: Any, by_hand: Any, seen: Any
    ) -> None:
        released(1)
        candidate(store)
        by_hand(2)

        lifecycle.restore(store, task)

        assert not queries.status(store, task).alarms
        assert (seen.stages[0], seen.aliases["production"], seen.log) == ("Production", 1, [("promote", 1)])

    def test_restore_where_nothing_was_ever_released(
        self, store: Any, task: str, candidate: Candidate, by_hand: Any, seen: Any
    ) -> None:
        candidate(store)
        by_hand(1)
        assert queries.status(store, task).drift

        lifecycle.restore(store, task)

        assert not queries.status(store, task).alarms
        assert (seen.stages, seen.aliases, seen.log) == (["Staging"], {"staging": 1}, [])

    def test_adopt_writes_it_into_the_log(
        self, store: Any, task: str, candidate: Candidate, released: Any, by_hand: Any, adopt: Any, seen: Any
    ) -> None:
        released(1)
        candidate(store)
        by_hand(2)

        moved = adopt()

        assert (moved.entry.action, moved.entry.override) == ("adopt", "")
        assert "says version 2" in moved.entry.drift
        assert not queries.status(store, task).alarms
        assert seen.log == [("promote", 1), ("adopt", 2)]

    def test_adopting_needs_what_a_promotion_needs(
        self, store: Any, task: str, candidate: Candidate, released: Any, by_hand: Any, adopt: Any, damage: Any
    ) -> None:
        released(1)
        candidate(store, passed=False)
        by_hand(2)

        with pytest.raises(PromotionRefused, match="gate refused it"):
            adopt()
        damage()
        with pytest.raises(ArtifactError):
            adopt(override=True)

    def test_there_must_be_one_thing_to_adopt(
        self, store: Any, task: str, released: Any, by_hand: Any, adopt: Any
    ) -> None:
        released(3)
        with pytest.raises(RegistryError, match="log, stage and alias agree"):
            adopt()

    @pytest.mark.flow
    def test_two_things_to_adopt_are_one_too_many(
        self, mlflow_store: Any, task: str, candidate: Candidate, base_hash: str
    ) -> None:
        for _ in range(3):
            candidate(mlflow_store)
            lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)
        mlflow_store.set_alias(task, "production", 1)
        mlflow_store.set_stage(task, 2, "Production")

        with pytest.raises(RegistryError, match=r"versions \[1, 2\] could be meant"):
            lifecycle.adopt(mlflow_store, task, reason="which?", base_hash=base_hash)

    def test_a_promotion_waits_until_it_is_settled(
        self, store: Any, task: str, candidate: Candidate, released: Any, by_hand: Any, promote: Any
    ) -> None:
        released(2)
        candidate(store)
        by_hand(1)

        with pytest.raises(PromotionRefused, match=f"`preface reconcile {task}` settles that"):
            promote(3)
        assert "settles that" in promote(3, override=True).entry.override

    def test_a_rollback_does_not_wait_and_the_history_tells(
        self, store: Any, task: str, released: Any, by_hand: Any, rollback: Any, seen: Any
    ) -> None:
        released(3)
        by_hand(1)

        entry = rollback().entry

        assert (entry.version, not queries.status(store, task).alarms) == (2, True)
        assert "says version 1" in entry.drift

    def test_the_same_version_is_put_back_where_it_belongs(
        self, store: Any, task: str, released: Any, by_hand: Any, rollback: Any, seen: Any
    ) -> None:
        released(2)
        by_hand(1)

        assert rollback(2).changed
        assert seen.stages == ["None", "Production"]


class TestEditedHistory:
    def test_an_edit_shows_and_what_is_in_production_stays(
        self, store: Any, task: str, released: Any, edit_entry: Any
    ) -> None:
        released(3)
        edit_entry(2, version="3", who="nobody")

        status = queries.status(store, task)

        assert status.faults == ("release 2 was edited after release 3 was based on it",)
        assert (status.production.number, not status.alarms) == (3, False)
        assert [entry.broken for entry in queries.history(store, task)] == [False, False, True]

    def test_an_edit_of_the_last_entry_shows(self, store: Any, task: str, released: Any, edit_entry: Any) -> None:
        released(2)
        edit_entry(2, reason="another")

        assert queries.status(store, task).faults == ("release 2 was edited after it took effect",)

    def test_a_later_entry_remembers_it(
        self, store: Any, task: str, released: Any, edit_entry: Any, rollback: Any
    ) -> None:
        released(2)
        edit_entry(2, reason="another")

        assert "release 2 was edited after it took effect" in rollback(1).entry.drift

    def test_a_log_that_lost_its_end_is_told_and_nothing_moves(
        self, store: Any, task: str, released: Any, edit_entry: Any, seen: Any
    ) -> None:
        released(2)
        edit_entry(2, action="nothing that is an action")

        status = queries.status(store, task)

        assert "release 2, the last that took effect, is not in the log any more" in status.faults
        assert status.production.number == 1
        assert seen.stages == ["None", "Production"]

    def test_a_mark_that_is_no_mark_does_not_stop_a_look(self, store: Any, task: str, released: Any) -> None:
        released(1)
        store.tag_task(task, PROJECTED, "not a number")

        assert not queries.status(store, task).alarms


def test_a_head_that_never_stops_moving_is_given_up(
    store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate(store)
    monkeypatch.setattr(store, "set_stage", lambda *_: None)
    monkeypatch.setattr(store, "set_alias", lambda *_: None)

    with pytest.raises(StoreUnavailable, match="moved by others"):
        promote(1)
