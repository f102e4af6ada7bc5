"""Promote and roll back: one suite, on a dictionary, on MLflow, and on MLflow without stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import (
    ArtifactError,
    BaseMismatch,
    NotFound,
    NothingToRollBackTo,
    PromotionConflict,
    PromotionRefused,
    RegistryError,
)
from registry import queries
from registry.protocol import Version
from registry.release_log import PREFIX, Release
from registry.releases import lifecycle, registration

Candidate = Callable[..., Version]
OTHER_BASE = "a" * 64


class TestPromote:
    def test_without_a_number_it_takes_the_one_in_staging(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any
    ) -> None:
        candidate(store)

        moved = promote()

        assert (moved.version.number, moved.version.stage, moved.previous, moved.changed) == (
            1,
            "Production",
            None,
            True,
        )
        assert seen.aliases == {"production": 1}
        assert seen.log == [("promote", 1)]

    def test_the_one_before_is_archived(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any
    ) -> None:
        candidate(store)
        promote()
        candidate(store)

        assert promote().previous == 1
        assert seen.stages == ["None", "Production"]
        assert seen.aliases == {"production": 2}

    def test_an_entry_says_who_when_where_why_and_upon_what(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)
        first = promote().entry
        candidate(store)
        second = promote().entry

        assert (first.who, first.reason, first.based_on, first.head_hash) == ("ada", "better", 0, "")
        assert first.host
        assert first.when.endswith("+00:00")
        assert (second.based_on, second.head_hash) == (first.number, first.hash)
        assert store.releases(task)[0].hash == first.hash

    def test_a_version_whose_gate_refused_it_stays_out(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any
    ) -> None:
        candidate(store, passed=False)

        with pytest.raises(PromotionRefused, match=r"@1 may not be promoted: its gate refused it"):
            promote(1)
        assert seen.stages == ["None"]
        assert seen.log == []

    def test_a_tag_edited_by_hand_does_not_stand_for_a_report(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store, passed=False)
        gate = replace(store.version(task, 1).gate, verdict="passed")
        store.tag_version(task, 1, PREFIX + "gate", str(gate))

        with pytest.raises(PromotionRefused, match="its gate refused it"):
            promote(1)

    def test_a_version_without_its_report_stays_out(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)
        gate = replace(store.version(task, 1).gate, report="gate/elsewhere.json")
        store.tag_version(task, 1, PREFIX + "gate", str(gate))

        with pytest.raises(PromotionRefused, match=r"report gate/elsewhere\.json is not in the store"):
            promote()

    def test_another_base_than_the_declared_is_refused_with_both_hashes(
        self, store: Any, task: str, candidate: Candidate, base_hash: str, seen: Any
    ) -> None:
        candidate(store)

        with pytest.raises(BaseMismatch, match=f"{base_hash}, params.yaml declares {OTHER_BASE}"):
            lifecycle.promote(store, task, reason="", base_hash=OTHER_BASE)
        assert seen.log == []

    def test_a_tag_edited_by_hand_does_not_stand_for_the_base(
        self, store: Any, task: str, candidate: Candidate
    ) -> None:
        candidate(store)
        store.tag_version(task, 1, PREFIX + "base_hash", OTHER_BASE)

        with pytest.raises(BaseMismatch):
            lifecycle.promote(store, task, reason="", base_hash=OTHER_BASE)

    def test_a_damaged_artifact_is_refused(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any, damage: Any
    ) -> None:
        candidate(store)
        damage()

        with pytest.raises(ArtifactError, match="sha256"):
            promote()
        assert seen.log == []

    def test_another_good_adapter_in_its_place_is_refused(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = candidate(store)
        candidate(store)
        real = store.download
        monkeypatch.setattr(store, "download", lambda version: real(other))

        with pytest.raises(ArtifactError, match="the stored adapter is"):
            promote()

    def test_a_version_that_was_rolled_away_from_stays_out(
        self, store: Any, task: str, candidate: Candidate, promote: Any, rollback: Any
    ) -> None:
        for _ in range(2):
            candidate(store)
            promote()
        rollback()

        with pytest.raises(PromotionRefused, match=r"rolled away from on .* by bob: worse"):
            promote(2)

    def test_the_one_in_production_is_not_promoted_twice(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any
    ) -> None:
        candidate(store)
        promote()

        assert not promote(1).changed
        assert seen.log == [("promote", 1)]

    def test_a_report_that_compared_with_another_champion_is_stale(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any
    ) -> None:
        candidate(store)
        candidate(store)
        promote(1)

        stale = rf"compared with nothing, in Production is version 1; `preface evaluate {task}@2` measures it again"
        with pytest.raises(PromotionRefused, match=stale):
            promote(2)
        assert seen.log == [("promote", 1)]

    def test_an_override_goes_against_the_evidence_and_is_kept(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store, passed=False)

        moved = promote(1, override=True)

        assert moved.version.stage == "Production"
        assert moved.entry.override == f"its gate refused it; see `preface show {task}@1`"
        assert store.releases(task)[0].override == moved.entry.override

    def test_an_override_that_overrides_nothing_is_none(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)

        assert promote(1, override=True).entry.override == ""

    def test_no_override_takes_damaged_bytes(
        self, store: Any, task: str, candidate: Candidate, promote: Any, damage: Any, seen: Any
    ) -> None:
        candidate(store)
        damage()

        with pytest.raises(ArtifactError):
            promote(1, override=True)
        assert seen.log == []

    def test_a_declared_base_is_shouted(
        self, store: Any, task: str, tmp_path: Path, write_adapter: Any, promote: Any
    ) -> None:
        folder, report = write_adapter(tmp_path / "a", task=task), tmp_path / "gate.json"
        report.write_text('{"passed": true, "champion": null}')
        run = store.start_run(task, "run", {}, {})
        registration.register(store, folder, run, report, "", declared_base="eve@here")

        assert promote().entry.override == "its base was declared by eve@here, and not proven"

    def test_an_entry_pins_the_bytes_and_the_evidence(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        version = candidate(store)

        entry = promote().entry

        assert (entry.digest, entry.gate) == (version.tag("manifest_digest"), str(version.gate))

    def test_an_answer_that_was_lost_on_the_way_is_no_conflict(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch, seen: Any
    ) -> None:
        """MLflow's client asks again where a connection breaks: the first request had taken effect."""
        candidate(store)
        append = store.append_release
        monkeypatch.setattr(store, "append_release", lambda *entry: [append(*entry), append(*entry)][1])

        assert promote().changed
        assert seen.log == [("promote", 1)]
        assert [entry.void for entry in queries.history(store, task)] == [False, True]

    def test_who_comes_second_is_told_who_won(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        candidate(store)
        append, winner = store.append_release, None

        def late(task: str, release: Release) -> int:
            nonlocal winner
            winner = winner or append(task, replace(release, version=1, who="eve", reason="urgent", token="another"))
            return int(append(task, release))

        monkeypatch.setattr(store, "append_release", late)

        with pytest.raises(PromotionConflict, match=r"eve@.* came first: promote of .*@1 \(urgent\)"):
            promote(2)
        assert [(entry.release.version, entry.void) for entry in queries.history(store, task)] == [
            (1, False),
            (2, True),
        ]

    def test_a_head_that_moves_meanwhile_is_followed(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch, seen: Any
    ) -> None:
        candidate(store)
        candidate(store)
        tag, later = store.tag_task, []

        def overtaken(task: str, key: str, value: str) -> None:
            tag(task, key, value)
            if not later:
                head, digest = store.releases(task)[-1], store.version(task, 2).tag("manifest_digest")
                entry = replace(head, version=2, digest=digest, based_on=head.number, head_hash=head.hash)
                later.append(store.append_release(task, entry))

        monkeypatch.setattr(store, "tag_task", overtaken)
        promote(1)

        assert seen.stages == ["None", "Production"]
        assert not queries.status(store, task).alarms

    def test_nothing_to_promote(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store, passed=False)

        with pytest.raises(PromotionRefused, match=f"preface retrain {task}"):
            promote()
        with pytest.raises(NotFound):
            promote(7)


class TestRollback:
    def test_it_lands_on_the_version_before(
        self, store: Any, task: str, released: Any, rollback: Any, seen: Any
    ) -> None:
        released(2)

        moved = rollback()

        assert (moved.version.number, moved.version.stage, moved.previous) == (1, "Production", 2)
        assert seen.stages == ["Production", "None"]
        assert seen.aliases == {"production": 1}
        assert seen.log == [("promote", 1), ("promote", 2), ("rollback", 1)]

    def test_again_goes_further_back_and_never_forth(self, store: Any, task: str, released: Any, rollback: Any) -> None:
        released(3)

        assert [rollback().version.number, rollback().version.number] == [2, 1]
        with pytest.raises(NothingToRollBackTo, match=r"rolled away from: 2, 3"):
            rollback()

    def test_asked_for_again_after_a_crash_it_goes_one_step_back_and_not_two(
        self, store: Any, task: str, released: Any, rollback: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def kill(*_: Any) -> None:
            raise Killed

        released(3)
        with monkeypatch.context() as patch:
            patch.setattr(store, "set_alias", kill)
            with pytest.raises(Killed):
                rollback()

        with pytest.raises(PromotionConflict, match=r"rollback to .*@2 .*not yet brought to its end"):
            rollback()
        assert not queries.status(store, task).alarms
        assert rollback().version.number == 1  # now that it is known where it stands

    def test_another_head_than_the_one_it_was_decided_upon_is_a_conflict_before_all_else(
        self, store: Any, task: str, released: Any, rollback: Any
    ) -> None:
        released(2)
        rollback()

        with pytest.raises(PromotionConflict, match=r"rollback to .*@1"):
            rollback(upon=2)

    def test_after_a_new_promotion_it_skips_the_bad_one(
        self, store: Any, task: str, released: Any, rollback: Any
    ) -> None:
        released(2)
        rollback()
        released(1)

        assert rollback().version.number == 1

    def test_a_bad_one_can_be_named(self, store: Any, task: str, released: Any, rollback: Any) -> None:
        released(2)
        rollback()

        assert rollback(2).version.number == 2
        assert not rollback(2).changed

    def test_nothing_to_roll_back_to(
        self, store: Any, task: str, candidate: Candidate, released: Any, rollback: Any, seen: Any
    ) -> None:
        with pytest.raises(NotFound, match=task):
            rollback()
        candidate(store)
        with pytest.raises(NothingToRollBackTo, match="never in Production"):
            rollback()
        released(1)
        with pytest.raises(NothingToRollBackTo, match="no good version before it"):
            rollback()
        with pytest.raises(NothingToRollBackTo, match=r"@1 was never in Production; .*promote .* --version 1"):
            rollback(1)
        assert seen.log == [("promote", 2)]

    def test_a_damaged_artifact_moves_nothing(
        self, store: Any, task: str, released: Any, rollback: Any, seen: Any, damage: Any
    ) -> None:
        released(2)
        damage()

        with pytest.raises(ArtifactError):
            rollback()
        assert seen.stages == ["None", "Production"]

    def test_a_bad_one_is_marked_with_the_reason_until_it_is_put_back(
        self, store: Any, task: str, released: Any, promote: Any, rollback: Any
    ) -> None:
        released(2)
        rollback()
        assert store.version(task, 2).tag("rolled_away").endswith("bob: worse")

        with pytest.raises(PromotionRefused, match=r"rolled away from on .* by bob: worse"):
            promote(2)
        moved = promote(2, override=True)

        assert "rolled away from" in moved.entry.override
        assert store.version(task, 2).tag("rolled_away") == ""

    def test_a_reason_that_no_tag_holds_is_refused_before_anything_moves(
        self, task: str, released: Any, promote: Any, rollback: Any, seen: Any
    ) -> None:
        released(2)
        before = seen.log

        for move in (rollback, lambda **said: promote(1, override=True, **said)):
            with pytest.raises(RegistryError, match="the reason has 2001 characters, and the history keeps 2000"):
                move(reason="x" * 2001)
        assert seen.log == before

    def test_one_that_was_let_in_before_keeps_nobody_from_rolling_back(
        self, store: Any, task: str, released: Any, rollback: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released(3)
        monkeypatch.setattr(lifecycle, "LONGEST_REASON", 100_000)
        rollback(reason="x" * 100_000)

        assert rollback().version.number == 1
        assert len(store.version(task, 3).tag("rolled_away")) <= 5000

    def test_an_edited_history_chooses_no_version_and_stands_in_no_one_s_way(
        self, store: Any, task: str, released: Any, rollback: Any, edit_entry: Any
    ) -> None:
        released(3)
        edit_entry(2, version="1")

        with pytest.raises(NothingToRollBackTo, match="release 2 was edited after release 3"):
            rollback()
        assert rollback(2).version.number == 2

    def test_one_decided_upon_another_release_is_a_conflict(
        self, store: Any, task: str, released: Any, rollback: Any, seen: Any
    ) -> None:
        released(2)

        with pytest.raises(PromotionConflict, match=r"ada@.* came first: promote"):
            rollback(1, upon=1)
        assert rollback(1, upon=2).changed
        assert len(seen.log) == 3

    def test_another_base_says_whether_it_is_here_and_an_override_goes_there(
        self, store: Any, task: str, released: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_hash: str
    ) -> None:
        monkeypatch.setenv("PREFACE_BASES", str(tmp_path))
        released(2)

        with pytest.raises(BaseMismatch, match=rf"base tiny {base_hash}, .*declares {OTHER_BASE}.* not in {tmp_path}"):
            lifecycle.rollback(store, task, reason="", base_hash=OTHER_BASE)
        moved = lifecycle.rollback(store, task, reason="", base_hash=OTHER_BASE, override=True)

        assert moved.version.number == 1
        assert OTHER_BASE in moved.entry.override

    def test_another_base_moves_nothing(self, store: Any, task: str, released: Any, seen: Any) -> None:
        released(2)

        with pytest.raises(BaseMismatch, match=OTHER_BASE):
            lifecycle.rollback(store, task, reason="", base_hash=OTHER_BASE)
        assert seen.stages == ["None", "Production"]
