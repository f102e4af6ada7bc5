"""Register, promote, roll back: one suite, on a dictionary and on MLflow's SQLite store."""

from __future__ import annotations

import json
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
from registry import artifact, lifecycle
from registry.manifest import Draft
from registry.protocol import Version
from registry.releases import PREFIX, Release

Candidate = Callable[..., Version]
OTHER_BASE = "a" * 64


@pytest.fixture
def base_hash(draft: Callable[..., Draft]) -> str:
    return draft().base.hash


@pytest.fixture
def promote(store: Any, task: str, base_hash: str) -> Callable[..., lifecycle.Moved]:
    return lambda number=None: lifecycle.promote(store, task, number, reason="better", base_hash=base_hash, who="ada")


@pytest.fixture
def rollback(store: Any, task: str, base_hash: str) -> Callable[..., lifecycle.Moved]:
    return lambda to=None: lifecycle.rollback(store, task, to, reason="worse", base_hash=base_hash, who="bob")


def stages(store: Any, task: str) -> list[str]:
    return [version.stage for version in store.versions(task)]


def aliases(store: Any, task: str) -> dict[str, int]:
    return {alias: version.number for version in store.versions(task) for alias in version.aliases}


def log(store: Any, task: str) -> list[tuple[str, int]]:
    return [(entry.release.action, entry.release.version) for entry in lifecycle.history(store, task) if not entry.void]


class TestRegister:
    def test_a_pass_enters_staging_with_what_it_was_made_of(
        self, store: Any, task: str, candidate: Candidate, draft: Callable[..., Draft]
    ) -> None:
        version = candidate(store)

        assert (version.number, version.stage, version.aliases, version.ready) == (1, "Staging", ("staging",), True)
        assert version.tag("gate") == "passed"
        assert version.tag("method") == "prompt"
        assert version.tag("base_hash") == draft().base.hash
        assert version.tag("data_hash") == draft().data.hash
        assert version.tag("dvc_md5") == "0123456789abcdef0123456789abcdef.dir"
        assert version.tag("metric.accuracy") == "0.9"
        assert version.run_id

    def test_a_refusal_is_kept_with_its_report_at_no_stage(self, store: Any, candidate: Candidate) -> None:
        version = candidate(store, passed=False)

        assert (version.stage, version.aliases, version.tag("gate")) == ("None", (), "refused")
        assert json.loads(store.read_file(version.run_id, version.tag("report")))["passed"] is False

    def test_what_is_downloaded_is_what_was_registered(self, store: Any, candidate: Candidate) -> None:
        version = candidate(store, method="prefix", seed=5)

        adapter = artifact.read(store.download(version))

        assert adapter.manifest.seed == 5
        assert adapter.manifest.digest == version.tag("manifest_digest")

    def test_a_newer_pass_takes_its_place_in_staging(self, store: Any, task: str, candidate: Candidate) -> None:
        candidate(store)
        candidate(store)

        assert stages(store, task) == ["Archived", "Staging"]
        assert aliases(store, task) == {"staging": 2}

    def test_the_lowest_version_of_a_fingerprint_counts(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        first, second = candidate(store, fingerprint="e" * 64), candidate(store, fingerprint="e" * 64)

        assert second.tag("duplicate_of") == "1"
        assert stages(store, task) == ["Staging", "None"]
        assert [v.number for v in store.by_fingerprint(task, "e" * 64)] == [first.number, second.number]
        with pytest.raises(PromotionRefused, match="repeats version 1"):
            promote(2)

    def test_a_version_that_was_asked_for_is_no_duplicate(self, store: Any, task: str, candidate: Candidate) -> None:
        candidate(store, passed=False, fingerprint="e" * 64)
        second = candidate(store, forced=True, fingerprint="e" * 64)

        assert (second.stage, second.tag("duplicate_of")) == ("Staging", "")

    @pytest.mark.parametrize("report", ["", "[]", "{}", '{"passed": "yes"}', "[" * 100_000])
    def test_a_report_without_a_verdict_registers_nothing(
        self, store: Any, task: str, tmp_path: Path, write_adapter: Any, report: str
    ) -> None:
        (tmp_path / "gate.json").write_text(report)

        with pytest.raises(RegistryError, match="does not say whether the gate passed"):
            lifecycle.register(store, write_adapter(tmp_path / "a", task=task), "run", tmp_path / "gate.json", "")

        assert store.by_fingerprint(task, "f" * 64) == []

    def test_a_damaged_adapter_registers_nothing(
        self, store: Any, task: str, tmp_path: Path, write_adapter: Any
    ) -> None:
        folder = write_adapter(tmp_path / "a", task=task)
        (folder / artifact.CARD).write_text("# Something else")

        with pytest.raises(ArtifactError):
            lifecycle.register(store, folder, "run", tmp_path / "gate.json", "")

        assert store.by_fingerprint(task, "f" * 64) == []


class TestPromote:
    def test_without_a_number_it_takes_the_one_in_staging(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)

        moved = promote()

        assert (moved.version.number, moved.version.stage, moved.previous, moved.changed) == (
            1,
            "Production",
            None,
            True,
        )
        assert aliases(store, task) == {"production": 1}
        assert log(store, task) == [("promote", 1)]

    def test_the_one_before_is_archived(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store)
        promote()
        candidate(store)

        assert promote().previous == 1
        assert stages(store, task) == ["Archived", "Production"]
        assert aliases(store, task) == {"production": 2}

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
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store, passed=False)

        with pytest.raises(PromotionRefused, match=r"@1 may not be promoted: its gate says refused"):
            promote(1)
        assert stages(store, task) == ["None"]
        assert log(store, task) == []

    def test_a_tag_edited_by_hand_does_not_stand_for_a_report(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store, passed=False)
        store.tag_version(task, 1, PREFIX + "gate", "passed")

        with pytest.raises(PromotionRefused, match="report was changed"):
            promote(1)

    def test_a_version_without_its_report_stays_out(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)
        store.tag_version(task, 1, PREFIX + "report", "gate/elsewhere.json")

        with pytest.raises(PromotionRefused, match=r"report gate/elsewhere\.json is not in the store"):
            promote()

    def test_another_base_than_the_declared_is_refused_with_both_hashes(
        self, store: Any, task: str, candidate: Candidate, base_hash: str
    ) -> None:
        candidate(store)

        with pytest.raises(BaseMismatch, match=f"{base_hash}, params.yaml declares {OTHER_BASE}"):
            lifecycle.promote(store, task, reason="", base_hash=OTHER_BASE)
        assert log(store, task) == []

    def test_a_tag_edited_by_hand_does_not_stand_for_the_base(
        self, store: Any, task: str, candidate: Candidate
    ) -> None:
        candidate(store)
        store.tag_version(task, 1, PREFIX + "base_hash", OTHER_BASE)

        with pytest.raises(BaseMismatch):
            lifecycle.promote(store, task, reason="", base_hash=OTHER_BASE)

    def test_a_damaged_artifact_is_refused(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        damage_downloads(store, monkeypatch)

        with pytest.raises(ArtifactError, match="sha256"):
            promote()
        assert log(store, task) == []

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
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)
        promote()

        assert not promote(1).changed
        assert log(store, task) == [("promote", 1)]

    def test_repeating_it_mends_what_a_crash_left(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        with monkeypatch.context() as patch:
            patch.setattr(store, "set_stage", crash)
            with pytest.raises(KeyboardInterrupt):
                promote(1)
        assert not lifecycle.status(store, task).in_step

        assert not promote(1).changed
        assert lifecycle.status(store, task).in_step
        assert stages(store, task) == ["Production"]

    def test_who_comes_second_is_told_who_won(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        candidate(store)
        append, winner = store.append_release, None

        def late(task: str, release: Release) -> int:
            nonlocal winner
            winner = winner or append(task, replace(release, version=1, who="eve", reason="urgent"))
            return int(append(task, release))

        monkeypatch.setattr(store, "append_release", late)

        with pytest.raises(PromotionConflict, match=r"eve@.* came first: promote of .*@1 \(urgent\)"):
            promote(2)
        assert [(entry.release.version, entry.void) for entry in lifecycle.history(store, task)] == [
            (1, False),
            (2, True),
        ]

    def test_a_head_that_moves_meanwhile_is_followed(
        self, store: Any, task: str, candidate: Candidate, promote: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate(store)
        candidate(store)
        tag, later = store.tag_task, []

        def overtaken(task: str, key: str, value: str) -> None:
            tag(task, key, value)
            if not later:
                head = store.releases(task)[-1]
                later.append(
                    store.append_release(task, replace(head, version=2, based_on=head.number, head_hash=head.hash))
                )

        monkeypatch.setattr(store, "tag_task", overtaken)
        promote(1)

        assert stages(store, task) == ["Archived", "Production"]
        assert lifecycle.status(store, task).in_step

    def test_nothing_to_promote(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store, passed=False)

        with pytest.raises(PromotionRefused, match=f"preface retrain {task}"):
            promote()
        with pytest.raises(NotFound):
            promote(7)


class TestRollback:
    @pytest.fixture
    def released(self, store: Any, candidate: Candidate, promote: Any) -> Callable[[int], None]:
        def release(count: int) -> None:
            for _ in range(count):
                candidate(store)
                promote()

        return release

    def test_it_lands_on_the_version_before(self, store: Any, task: str, released: Any, rollback: Any) -> None:
        released(2)

        moved = rollback()

        assert (moved.version.number, moved.version.stage, moved.previous) == (1, "Production", 2)
        assert stages(store, task) == ["Production", "Archived"]
        assert aliases(store, task) == {"production": 1}
        assert log(store, task) == [("promote", 1), ("promote", 2), ("rollback", 1)]

    def test_again_goes_further_back_and_never_forth(self, store: Any, task: str, released: Any, rollback: Any) -> None:
        released(3)

        assert [rollback().version.number, rollback().version.number] == [2, 1]
        with pytest.raises(NothingToRollBackTo, match=r"rolled away from: 2, 3"):
            rollback()

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
        self, store: Any, task: str, candidate: Candidate, released: Any, rollback: Any
    ) -> None:
        with pytest.raises(NothingToRollBackTo, match="never in Production"):
            rollback()
        released(1)
        with pytest.raises(NothingToRollBackTo, match="no good version before it"):
            rollback()
        candidate(store)
        with pytest.raises(NothingToRollBackTo, match=r"@2 was never in Production; .*promote .* --version 2"):
            rollback(2)
        assert log(store, task) == [("promote", 1)]

    def test_a_damaged_artifact_moves_nothing(
        self, store: Any, task: str, released: Any, rollback: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released(2)
        damage_downloads(store, monkeypatch)

        with pytest.raises(ArtifactError):
            rollback()
        assert stages(store, task) == ["Archived", "Production"]

    def test_another_base_moves_nothing(self, store: Any, task: str, released: Any) -> None:
        released(2)

        with pytest.raises(BaseMismatch, match=OTHER_BASE):
            lifecycle.rollback(store, task, reason="", base_hash=OTHER_BASE)
        assert stages(store, task) == ["Archived", "Production"]


class TestLook:
    def test_status_of_a_task_s_life(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store)
        before = lifecycle.status(store, task)
        promote()
        candidate(store)
        after = lifecycle.status(store, task)

        assert (before.production, before.staging.number, before.head, before.in_step) == (None, 1, None, True)
        assert (after.production.number, after.staging.number, after.versions, after.in_step) == (1, 2, 2, True)
        assert task in store.tasks()

    def test_a_stage_moved_by_hand_shows_and_does_not_count(
        self, store: Any, task: str, candidate: Candidate, promote: Any
    ) -> None:
        candidate(store)
        promote()
        candidate(store)
        store.set_stage(task, 2, "Production")

        assert not lifecycle.status(store, task).in_step
        assert lifecycle.current(store, task, "Production").number == 1

    def test_addresses(self, store: Any, task: str, candidate: Candidate, promote: Any) -> None:
        candidate(store)
        with pytest.raises(NotFound, match="no version in Production"):
            lifecycle.find(store, f"{task}@production")
        promote()
        candidate(store)

        found = [lifecycle.find(store, f"{task}@{which}").number for which in ("production", "staging", "2")]

        assert found == [1, 2, 2]
        with pytest.raises(NotFound):
            lifecycle.find(store, f"{task}@9")
        for address in (task, f"{task}@", "@1", f"{task}@latest", f"{task}@-1"):
            with pytest.raises(RegistryError, match="TASK@NUMBER"):
                lifecycle.find(store, address)

    def test_an_unknown_task(self, store: Any, task: str) -> None:
        with pytest.raises(NotFound):
            lifecycle.status(store, task)
        assert lifecycle.current(store, task, "Production") is None
        assert lifecycle.history(store, task) == []


def test_a_promotion_without_a_name_is_the_user_s(
    store: Any, task: str, candidate: Candidate, base_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    candidate(store)

    assert lifecycle.promote(store, task, reason="", base_hash=base_hash).entry.who == "grace"


def crash(*_: object) -> None:
    raise KeyboardInterrupt


def damage_downloads(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flip one byte of the weights in whatever is downloaded from now on."""
    real = store.download

    def damaged(version: Version) -> Path:
        folder: Path = real(version)
        raw = bytearray((folder / artifact.WEIGHTS).read_bytes())
        raw[-1] ^= 1
        (folder / artifact.WEIGHTS).write_bytes(raw)
        return folder

    monkeypatch.setattr(store, "download", damaged)
