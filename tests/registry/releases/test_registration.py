"""A candidate becomes a version: one suite, on a dictionary, on MLflow, and on MLflow without stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import (
    ArtifactError,
    PromotionRefused,
    RegistryError,
)
from registry.artifact import adapter_folder
from registry.artifact.manifest import Draft
from registry.protocol import Version
from registry.releases import registration

Candidate = Callable[..., Version]
OTHER_BASE = "a" * 64


class TestRegister:
    def test_a_pass_enters_staging_with_what_it_was_made_of(
        self, store: Any, task: str, candidate: Candidate, draft: Callable[..., Draft]
    ) -> None:
        version = candidate(store)

        assert (version.number, version.stage, version.aliases, version.ready) == (1, "Staging", ("staging",), True)
        assert version.gate.verdict == "passed"
        assert version.tag("method") == "prompt"
        assert version.tag("base_hash") == draft().base.hash
        assert version.tag("data_hash") == draft().data.hash
        assert version.tag("dvc_md5") == "0123456789abcdef0123456789abcdef.dir"
        assert version.tag("metric.accuracy") == "0.9"
        assert version.run_id

    def test_a_refusal_is_kept_with_its_report_at_no_stage(self, store: Any, candidate: Candidate) -> None:
        version = candidate(store, passed=False)

        assert (version.stage, version.aliases, version.gate.verdict) == ("None", (), "refused")
        assert json.loads(store.read_file(version.run_id, version.gate.report))["passed"] is False

    def test_what_is_downloaded_is_what_was_registered(self, store: Any, candidate: Candidate) -> None:
        version = candidate(store, method="prefix", seed=5)

        adapter = adapter_folder.read(store.download(version))

        assert adapter.manifest.seed == 5
        assert adapter.manifest.digest == version.tag("manifest_digest")

    def test_a_newer_pass_takes_its_place_in_staging(
        self, store: Any, task: str, candidate: Candidate, seen: Any
    ) -> None:
        candidate(store)
        candidate(store)

        assert seen.stages == ["None", "Staging"]
        assert seen.aliases == {"staging": 2}

    def test_the_lowest_version_of_a_fingerprint_counts(
        self, store: Any, task: str, candidate: Candidate, promote: Any, seen: Any
    ) -> None:
        first, second = candidate(store, fingerprint="e" * 64), candidate(store, fingerprint="e" * 64)

        assert second.tag("duplicate_of") == "1"
        assert seen.stages == ["Staging", "None"]
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
            registration.register(store, write_adapter(tmp_path / "a", task=task), "run", tmp_path / "gate.json", "")

        assert store.by_fingerprint(task, "f" * 64) == []

    def test_a_damaged_adapter_registers_nothing(
        self, store: Any, task: str, tmp_path: Path, write_adapter: Any
    ) -> None:
        folder = write_adapter(tmp_path / "a", task=task)
        (folder / adapter_folder.CARD).write_text("# Something else")

        with pytest.raises(ArtifactError):
            registration.register(store, folder, "run", tmp_path / "gate.json", "")

        assert store.by_fingerprint(task, "f" * 64) == []


class TestEvidence:
    def test_a_second_try_leaves_the_evidence_of_the_first_as_it_is(
        self, store: Any, task: str, tmp_path: Path, write_adapter: Any
    ) -> None:
        folder, run_id = write_adapter(tmp_path / "a", task=task), store.start_run(task, "a run", {}, {})
        report = tmp_path / "gate.json"
        report.write_text('{"passed": true, "try": 1}')
        first = registration.register(store, folder, run_id, report, "", evidence=[report])
        report.write_text('{"passed": false, "try": 2}')

        second = registration.register(store, folder, run_id, report, "", evidence=[report])

        assert (second.number, second.gate) == (first.number, first.gate)
        kept = store.read_file(run_id, second.gate.report)
        assert (json.loads(kept)["try"], hashlib.sha256(kept).hexdigest()) == (1, second.gate.sha256)

    def test_two_tries_of_one_run_write_to_two_folders(
        self, store: Any, task: str, tmp_path: Path, write_adapter: Any
    ) -> None:
        """As two processes do that think they are one; each version keeps what it was judged by."""
        run_id, report = store.start_run(task, "a run", {}, {}), tmp_path / "gate.json"
        made = []
        for number in (1, 2):
            folder = write_adapter(tmp_path / str(number), task=task, seed=number, fingerprint=f"{number}" * 64)
            report.write_text(json.dumps({"passed": True, "try": number}))
            made.append(registration.register(store, folder, run_id, report, ""))

        for version in made:
            kept = store.read_file(run_id, version.gate.report)
            assert hashlib.sha256(kept).hexdigest() == version.gate.sha256
