"""An answer comes from the version that was asked for, on its own base and on no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from components.base.base_hash import hash_base
from components.errors import ArtifactError, BaseError, NotFound
from registry.artifact import adapter_folder
from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Shape
from registry.releases import registration

pytestmark = pytest.mark.flow
LABELS = {"good": "positive", "bad": "negative"}


@pytest.fixture
def registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base_folder: Callable[..., Path]
) -> Iterator[Path]:
    """One version of a task, in Staging, of a tiny base that is kept under another name than its manifest says."""
    import mlflow

    from registry.mlflow.store import Store

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PREFACE_BASES", str(tmp_path / "bases"))
    shutil.copytree(tiny_base_folder(), tmp_path / "bases" / "renamed")
    base = hash_base(tmp_path / "bases" / "renamed")
    draft = Draft(
        task="reviews",
        method="prompt",
        kind="classification",
        virtual_tokens=3,
        shape=Shape(layers=2, kv_heads=2, head_size=8, hidden=32, heads=4),
        base=BasePin(name="tiny", hash=base.value, weights=base.weights, config=base.config, tokenizer=base.tokenizer),
        data=DataPin(hash="d" * 64, lock={}),
        fingerprint="f" * 64,
        seed=0,
        params={},
        template="Review: {text}\nSentiment:",
        labels=LABELS,
        max_tokens=16,
        max_new_tokens=1,
        metrics={"accuracy": 0.9},
        code=CodePin(version="0.1.0", git_commit=""),
        libraries={},
        recipe=None,
        machine=None,
        created="2026-11-23T20:00:00+00:00",
    )
    table = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    adapter_folder.write(tmp_path / "adapter", table, draft)
    (tmp_path / "gate.json").write_text('{"passed": true}')
    store = Store()
    run = store.start_run("reviews", "run", {}, {})
    registration.register(store, tmp_path / "adapter", run, tmp_path / "gate.json", "0" * 32)
    yield tmp_path
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def test_a_row_for_each_text_with_the_share_of_its_label(registered: Path) -> None:
    from cli.answers import ask

    version, rows = ask("reviews@staging", ["a gripping film", "a dull film"])

    assert version.name == "reviews@1"
    assert [row["text"] for row in rows] == ["a gripping film", "a dull film"]
    assert all(row["answer"] in LABELS for row in rows)
    assert all(0.5 <= float(str(row["share"])) <= 1 for row in rows)
    with pytest.raises(NotFound, match="no version in Production"):
        ask("reviews@production", ["a dull film"])


def test_without_its_base_it_does_not_answer(registered: Path, tiny_base_folder: Callable[..., Path]) -> None:
    from cli.answers import ask

    shutil.rmtree(registered / "bases" / "renamed")
    shutil.copytree(tiny_base_folder("qwen"), registered / "bases" / "tiny")

    with pytest.raises(BaseError):
        ask("reviews@staging", ["a dull film"])


def test_a_whole_adapter_that_is_not_the_registered_one_does_not_answer(registered: Path) -> None:
    from cli.answers import ask
    from registry.mlflow.store import Store

    Store().tag_version("reviews", 1, "preface.manifest_digest", "0" * 64)

    with pytest.raises(ArtifactError, match="registered was reviews " + "0" * 64):
        ask("reviews@staging", ["a dull film"])
