"""The chain of a version: whole when nothing was touched, and a fault at the very link that somebody tampered with."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import NotFound, StoreUnavailable
from components.provenance.fingerprint import recorded_fingerprint
from registry.artifact import adapter_folder
from registry.artifact.manifest import CodePin, DataPin
from registry.audit import version_chain
from registry.audit.local_environment import LocalEnvironment
from registry.audit.version_chain import Link
from registry.protocol import Version
from registry.release_log import PREFIX
from registry.releases import lifecycle, registration
from registry.releases.state import read

LINKS = [
    "adapter", "method", "metrics", "run", "fingerprint", "data", "base", "git commit", "gate report", "releases",
    "drill",
]  # fmt: skip
MD5 = "0123456789abcdef0123456789abcdef.dir"
OTHER = "a" * 64
MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)
BOTH = pytest.mark.parametrize("store", ["memory", pytest.param("mlflow", marks=pytest.mark.flow)], indirect=True)
Plant = Callable[..., None]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of one commit."""
    folder = tmp_path_factory.mktemp("checkout")
    for command in ("init --quiet", "-c user.name=T -c user.email=t@example.org commit --quiet --allow-empty -m One"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def here(checkout: Path, base_hash: str, monkeypatch: pytest.MonkeyPatch) -> LocalEnvironment:
    """That checkout, whose params.yaml declares the tests' base; no base is materialised."""
    monkeypatch.setenv("PREFACE_BASES", str(checkout / "bases"))
    return LocalEnvironment(checkout, {"tiny": base_hash})


@pytest.fixture
def whole(
    store: Any, task: str, candidate: Callable[..., Version], draft: Any, checkout: Path
) -> Callable[..., Version]:
    """Register a candidate whose every link holds: ``whole(metrics={...})``."""
    seeds = itertools.count()

    def make(**changes: Any) -> Version:
        said, settings = draft(), {"virtual_tokens": 3, "training": {"seed": next(seeds)}}
        params = {"instruction": "Say how it is.", "prompt": settings}
        fingerprint = recorded_fingerprint(
            base=said.base.hash, data=said.data.hash, instruction="Say how it is.", template=said.template,
            labels=said.labels, max_tokens=said.max_tokens, max_new_tokens=said.max_new_tokens, method="prompt",
            settings=settings, recipe=1,
        )  # fmt: skip
        facts = {
            "params": params,
            "fingerprint": fingerprint,
            "recipe": 1,
            "code": CodePin(version="0.1.0", git_commit=lifecycle.git_commit(checkout)),
        }
        return candidate(store, **(facts | changes))

    return make


@pytest.fixture
def links(store: Any, task: str, here: LocalEnvironment) -> Callable[..., dict[str, Link]]:
    """The links of a version as they are now, by name."""

    def look(number: int = 1, at: LocalEnvironment | None = None) -> dict[str, Link]:
        state = read(store, task)
        return {link.name: link for link in version_chain.links(store, store.version(task, number), state, at or here)}

    return look


def broken(links: dict[str, Link]) -> list[str]:
    return [name for name, link in links.items() if link.fault]


@pytest.fixture
def plant(store: Any, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """``plant("run", change)``: from now on the store answers so, with what it really has changed."""

    def begin(method: str, change: Callable[..., Any]) -> None:
        real = getattr(store, method)
        monkeypatch.setattr(store, method, lambda *asked: change(real(*asked)))

    return begin


def raising(error: Exception) -> Callable[..., Any]:
    def change(_: object) -> Any:
        raise error

    return change


@BOTH
class TestWhole:
    def test_every_link_holds_and_says_what_it_is(
        self, store: Any, task: str, whole: Any, promote: Any, links: Any, checkout: Path, base_hash: str
    ) -> None:
        version = whole()
        promote()

        found = links()

        assert list(found) == LINKS
        assert broken(found) == []
        assert found["adapter"].value == version.tag("manifest_digest")
        assert found["run"].value.startswith(version.run_id)
        assert found["data"].value == f"{'d' * 64}, DVC {MD5}"
        assert base_hash in found["base"].value
        assert lifecycle.git_commit(checkout) in found["git commit"].value
        assert re.match(r"passed gate/[0-9a-f]{12}/gate-0.json ", found["gate report"].value)
        assert found["releases"].value == "1"

    def test_a_refused_version_has_a_whole_chain_too(self, whole: Any, links: Any) -> None:
        whole(passed=False)

        assert broken(links()) == []

    def test_an_earlier_report_is_still_that_of_its_releases(
        self, store: Any, task: str, whole: Any, promote: Any, links: Any, tmp_path: Path
    ) -> None:
        version = whole()
        promote()
        report = tmp_path / "again.json"
        report.write_text(json.dumps({"passed": False, "champion": 1}))
        registration.judge_again(store, version, report)

        found = links()

        assert broken(found) == []
        assert found["gate report"].value.startswith("refused")

    def test_what_came_from_elsewhere_need_have_neither_recipe_nor_lock_entry(self, whole: Any, links: Any) -> None:
        whole(recipe=None, fingerprint=OTHER, data=DataPin(hash="d" * 64, lock={}))

        assert broken(links()) == []

    def test_a_base_that_was_declared_is_shouted(self, store: Any, task: str, whole: Any, links: Any) -> None:
        whole()
        store.tag_version(task, 1, PREFIX + "declared_base", "ada")

        assert "DECLARED by ada, not proven" in links()["base"].value


@BOTH
class TestTags:
    @pytest.mark.parametrize(
        ("key", "link"),
        [
            ("method", "method"),
            ("base", "base"),
            ("metric.accuracy", "metrics"),
            ("metric.invented", "metrics"),
            ("fingerprint", "fingerprint"),
            ("data_hash", "data"),
            ("dvc_md5", "data"),
            ("git_commit", "git commit"),
            ("duplicate_of", "fingerprint"),
            ("drill", "drill"),
        ],
    )
    def test_an_edited_tag_shows_at_its_link(
        self, store: Any, task: str, whole: Any, links: Any, key: str, link: str
    ) -> None:
        whole()
        store.tag_version(task, 1, PREFIX + key, "7")

        found = links()

        assert broken(found) == [link]
        assert found[link].fault

    @pytest.mark.parametrize("key", ["manifest_digest", "base_hash"])
    def test_an_edited_digest_shows_at_the_bytes(self, store: Any, task: str, whole: Any, links: Any, key: str) -> None:
        version = whole()
        store.tag_version(task, 1, PREFIX + key, OTHER)

        found = links()

        assert "adapter" in broken(found)
        assert OTHER in found["adapter"].fault
        assert version.tag(key) in found["adapter"].fault

    def test_a_missing_metric_shows(self, store: Any, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        key = f"{PREFIX}metric.accuracy"
        plant("version", lambda v: replace(v, tags={name: value for name, value in v.tags.items() if name != key}))

        assert links()["metrics"].fault == f"the tag {key} says (nothing), the manifest 0.9"


@MEMORY
class TestBytes:
    def test_one_flipped_byte(self, whole: Any, links: Any, damage: Any) -> None:
        whole()
        damage()

        found = links()

        assert broken(found) == ["adapter"]
        assert "sha256" in found["adapter"].fault

    def test_another_version_s_adapter_in_its_place(
        self, store: Any, task: str, whole: Any, links: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = whole(), whole()
        real = store.download
        monkeypatch.setattr(store, "download", lambda version: real(second))

        found = links(1)

        assert broken(found) == ["adapter"]
        assert first.tag("manifest_digest") in found["adapter"].fault
        assert second.tag("manifest_digest") in found["adapter"].fault

    def test_bytes_that_are_gone(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("download", raising(NotFound("it is not in the artifact store")))

        assert links()["adapter"].fault == "it is not in the artifact store"

    def test_a_version_that_never_came_into_being(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("version", lambda version: replace(version, ready=False))

        assert "never completed" in links()["adapter"].fault

    def test_a_manifest_whose_fingerprint_is_not_that_of_its_facts(self, whole: Any, links: Any) -> None:
        whole(fingerprint=OTHER)

        found = links()

        assert broken(found) == ["fingerprint"]
        assert OTHER in found["fingerprint"].fault


@MEMORY
class TestRun:
    def test_a_run_that_is_gone(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("run", raising(NotFound("no such run")))

        assert links()["run"].fault == "no such run"

    def test_a_run_that_was_deleted(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("run", lambda run: replace(run, deleted=True))

        assert broken(links()) == ["run"]

    def test_a_version_without_a_run(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("version", lambda version: replace(version, run_id=""))

        assert links()["run"].fault == "the version names no run"

    def test_a_run_of_something_else(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("run", lambda run: replace(run, tags={PREFIX + "fingerprint": OTHER}))

        found = links()

        assert broken(found) == ["fingerprint"]
        assert OTHER in found["fingerprint"].fault

    @pytest.mark.parametrize("datasets", [(), ("f" * 32 + ".dir",)])
    def test_a_run_on_other_rows(self, whole: Any, links: Any, plant: Plant, datasets: tuple[str, ...]) -> None:
        whole()
        plant("run", lambda run: replace(run, datasets=datasets))

        found = links()

        assert broken(found) == ["data"]
        assert MD5 in found["data"].fault

    def test_rows_of_another_name_in_the_lock_entry(self, task: str, whole: Any, links: Any) -> None:
        whole(data=DataPin(hash="d" * 64, lock={f"prepare@{task}": {"outs": [{"md5": "f" * 32}]}}))

        assert f"lock entry {'f' * 32}" in links()["data"].fault

    @pytest.mark.parametrize("lock", [{}, {"prepare": []}])
    def test_a_trained_version_without_a_lock_entry(self, whole: Any, links: Any, lock: dict[str, Any]) -> None:
        whole(data=DataPin(hash="d" * 64, lock=lock))

        assert "lock entry (nothing)" in links()["data"].fault


@MEMORY
class TestThisMachine:
    def test_only_production_needs_its_base_here(self, whole: Any, promote: Any, links: Any, checkout: Path) -> None:
        elsewhere = LocalEnvironment(checkout, {"tiny": OTHER})
        whole()
        assert broken(links(at=elsewhere)) == []
        assert "not declared; not materialised here" in links(at=elsewhere)["base"].value
        promote()

        assert broken(links(at=elsewhere)) == ["base"]

    def test_a_commit_that_the_checkout_does_not_have(self, whole: Any, links: Any) -> None:
        whole(code=CodePin(version="0.1.0", git_commit="0" * 40))

        found = links()

        assert broken(found) == ["git commit"]
        assert "git fetch" in found["git commit"].fault

    def test_where_there_is_no_whole_checkout_a_commit_cannot_be_looked_up(
        self, whole: Any, links: Any, checkout: Path, tmp_path: Path, base_hash: str
    ) -> None:
        whole(code=CodePin(version="0.1.0", git_commit="0" * 40))
        subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{checkout}", tmp_path / "shallow"], check=True)

        for root in (tmp_path, tmp_path / "shallow"):
            found = links(at=LocalEnvironment(root, {"tiny": base_hash}))
            assert broken(found) == []
            assert "no whole checkout" in found["git commit"].value

    def test_what_was_trained_outside_a_checkout_says_so(self, whole: Any, links: Any) -> None:
        whole(code=CodePin(version="0.1.0", git_commit=""))

        assert links()["git commit"] == Link("git commit", "none recorded: it was trained outside a checkout")


@BOTH
class TestEvidence:
    def test_a_report_that_was_written_over(self, whole: Any, promote: Any, links: Any, plant: Plant) -> None:
        whole()
        promote()
        plant("read_file", lambda raw: raw.replace(b"true", b"true "))

        found = links()

        assert broken(found) == ["gate report", "releases"]
        assert "was changed: it has sha256" in found["gate report"].fault
        assert found["releases"].fault.startswith("release 1: ")

    def test_a_report_that_is_gone(self, whole: Any, links: Any, plant: Plant) -> None:
        whole()
        plant("read_file", raising(NotFound("it is not in the artifact store")))

        assert links()["gate report"].fault.endswith("/gate-0.json: it is not in the artifact store")

    def test_a_verdict_that_is_not_the_report_s(self, store: Any, task: str, whole: Any, links: Any) -> None:
        version = whole(passed=False)
        store.tag_version(task, 1, PREFIX + "gate", str(replace(version.gate, verdict="passed")))

        assert "says passed: False, recorded is passed" in links()["gate report"].fault

    def test_a_tag_that_is_no_verdict(self, store: Any, task: str, whole: Any, links: Any) -> None:
        whole(passed=False)
        store.tag_version(task, 1, PREFIX + "gate", "passed")

        assert "no gate report is recorded" in links()["gate report"].fault

    def test_a_champion_that_never_was(self, store: Any, task: str, whole: Any, links: Any, plant: Plant) -> None:
        version, report = whole(), json.dumps({"passed": True, "champion": 7}).encode()
        plant("read_file", lambda _: report)
        gate = replace(version.gate, sha256=hashlib.sha256(report).hexdigest())
        store.tag_version(task, 1, PREFIX + "gate", str(gate))

        assert links()["gate report"].fault == "it compared with version 7, which does not exist"

    def test_staging_by_hand(self, store: Any, task: str, whole: Any, links: Any) -> None:
        whole(passed=False)
        store.set_stage(task, 1, "Staging")
        store.set_alias(task, "staging", 1)

        assert links()["gate report"].fault == "it stands in Staging, its gate says refused"

    @pytest.mark.parametrize(
        ("field", "value", "fault"),
        [
            ("digest", OTHER, f"it put the adapter {OTHER} into Production"),
            ("digest", "", "(none named)"),
            ("gate", "", "its gate said nothing, and nobody overrode that"),
            ("gate", f"passed gate/absent.json {OTHER}", "gate/absent.json"),
        ],
    )
    def test_an_entry_that_names_other_bytes_or_evidence(
        self, whole: Any, promote: Any, links: Any, edit_entry: Any, field: str, value: str, fault: str
    ) -> None:
        whole()
        promote()
        edit_entry(1, **{field: value})

        found = links()

        assert broken(found) == ["releases"]
        assert fault in found["releases"].fault

    def test_what_was_overridden_is_no_break(self, whole: Any, promote: Any, links: Any) -> None:
        whole(passed=False)
        promote(1, override=True)

        assert broken(links()) == []

    def test_a_repeated_fingerprint_that_nobody_marked(
        self, store: Any, task: str, whole: Any, links: Any, draft: Any
    ) -> None:
        first = whole()
        params = adapter_folder.read(store.download(first)).manifest.params
        whole(params=params, fingerprint=first.tag("fingerprint"))
        assert broken(links(2)) == []

        store.tag_version(task, 2, PREFIX + "duplicate_of", "")

        assert links(2)["fingerprint"].fault == "it repeats version 1 and is not marked so"


@MEMORY
def test_a_store_that_is_down_hides_no_other_fault(store: Any, task: str, whole: Any, links: Any, plant: Plant) -> None:
    whole()
    store.tag_version(task, 1, PREFIX + "git_commit", "0" * 40)
    plant("download", raising(StoreUnavailable("it does not answer (planted)")))

    found = links()

    assert broken(found) == ["adapter", "git commit"]
    assert found["adapter"].fault == "it does not answer (planted)"


def test_a_materialised_base_is_named(
    tiny_base_folder: Callable[..., Path], checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.base.base_hash import hash_base

    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "mine").symlink_to(tiny_base_folder("llama"))
    monkeypatch.setenv("PREFACE_BASES", str(tmp_path / "bases"))

    found = LocalEnvironment(checkout, {}).base_folder(hash_base(tiny_base_folder("llama")).value, "tiny")

    assert found == tmp_path / "bases" / "mine"


@pytest.mark.flow
@pytest.mark.parametrize("store", ["mlflow"], indirect=True)
def test_what_somebody_did_in_mlflow_itself(store: Any, task: str, whole: Any, links: Any) -> None:
    from mlflow import MlflowClient

    version, client = whole(), MlflowClient(store.uri, store.uri)
    weights = Path(client.get_model_version_download_uri(task, "1").removeprefix("file://")) / "artifacts" / "adapter"
    raw = bytearray((weights / adapter_folder.WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (weights / adapter_folder.WEIGHTS).write_bytes(raw)
    client.set_tag(version.run_id, PREFIX + "fingerprint", OTHER)
    client.delete_run(version.run_id)

    assert broken(links()) == ["adapter", "run", "fingerprint"]
