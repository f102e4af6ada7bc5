"""The manifest's draft says what was trained, on what, and with which code."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from components import distribution
from components.base.base_hash import BaseHash
from components.base.base_support import KVShape
from components.base.machine import Machine
from components.config.params import MethodName, TaskParams
from components.errors import ArtifactError
from components.evaluation.metrics import Scored
from components.evaluation.report import Report
from components.provenance.fingerprint import RECIPE, fingerprint
from flows.dvc.repro import DataVersion
from flows.run.candidate import draft, git_commit, settings
from registry.artifact import adapter_folder
from registry.artifact.manifest import Draft

TASK: dict[str, Any] = {
    "base": "tiny",
    "data": {
        "source": "x.csv", "format": "csv", "labels": {"bad": "negative", "good": "positive"}, "max_tokens": 48,
        "ranges": {"bad": [None, -0.5], "good": [0.5, None]},
    },
    "instruction": "Say it.",
    "template": "Review: {text}\nSentiment:",
    "max_new_tokens": 7,
    "prompt": {"virtual_tokens": 5, "training": {"seed": 11}},
    "prefix": {"virtual_tokens": 9, "training": {"seed": 12}},
    "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.8}],
}  # fmt: skip
SHAPE = KVShape(layers=2, kv_heads=3, head_size=16, hidden=32, context=512, heads=6)
DATA = DataVersion(
    "mood", "d" * 64, "e" * 32, {"cmd": "python -m components.data.prepare mood", "outs": [{"md5": "e" * 32}]}
)
MACHINE = Machine(processor="an abacus", device="cpu", dtype="float32", threads=2)
BASE = BaseHash(weights="1" * 64, config="2" * 64, tokenizer="3" * 64)


def drafted(root: Path, method: MethodName = "prompt", **changes: Any) -> Draft:
    task = TaskParams.model_validate(TASK | changes)
    scored = Scored(metrics={"accuracy": 0.9}, predictions=["bad"], rows=[1.0])
    report = Report(
        task="mood", method=method, split="test", row_ids=["t0"], targets=["bad"], data_hash="d" * 64,
        base_hash=BASE.value, candidate=scored, baselines={"majority": scored},
    )  # fmt: skip
    return draft("mood", task, method, BASE, SHAPE, DATA, "f" * 64, report, MACHINE, root)


def read_again(folder: Path, said: Draft) -> TaskParams:
    adapter_folder.write(folder / "adapter", np.ones(said.tensor_shape, np.float32), said)
    return settings(adapter_folder.read(folder / "adapter").manifest)


@pytest.mark.parametrize(
    ("method", "tokens", "seed", "columns"), [("prompt", 5, 11, 32), ("prefix", 9, 12, 2 * 2 * 3 * 16)]
)
def test_it_speaks_of_the_method_that_was_trained(
    tmp_path: Path, method: MethodName, tokens: int, seed: int, columns: int
) -> None:
    said = drafted(tmp_path, method)
    assert (said.method, said.virtual_tokens, said.seed) == (method, tokens, seed)
    assert said.tensor_shape == (tokens, columns)
    assert sorted(said.params) == sorted(["data", "instruction", method])


def test_it_carries_everything_that_an_answer_needs(tmp_path: Path) -> None:
    said = drafted(tmp_path)
    assert (said.kind, said.template, said.max_tokens, said.max_new_tokens) == (
        "classification",
        TASK["template"],
        48,
        7,
    )
    assert said.labels == {"bad": "negative", "good": "positive"}
    assert list(said.labels) == ["bad", "good"]
    assert (said.base.name, said.base.hash) == ("tiny", BASE.value)
    assert (said.base.weights, said.base.config, said.base.tokenizer) == ("1" * 64, "2" * 64, "3" * 64)
    assert said.shape.model_dump() == {"layers": 2, "kv_heads": 3, "head_size": 16, "hidden": 32, "heads": 6}


def test_it_says_where_it_comes_from(tmp_path: Path) -> None:
    said = drafted(tmp_path)
    assert (said.data.hash, said.data.lock) == (DATA.content_hash, DATA.lock_entry)
    assert (said.fingerprint, said.metrics) == ("f" * 64, {"accuracy": 0.9})
    assert (said.machine, said.recipe) == (MACHINE, RECIPE)
    assert said.code.version == distribution.version()
    assert said.libraries["torch"] == version("torch")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(said.created)) < timedelta(minutes=1)


def test_a_task_without_labels_is_generation(tmp_path: Path) -> None:
    said = drafted(
        tmp_path,
        data={"source": "x.csv", "format": "csv"},
        gate=[{"metric": "chrf", "direction": "higher", "threshold": 1.0}],
    )
    assert (said.kind, said.labels) == ("generation", None)


def test_a_signature_in_an_address_is_not_kept_and_its_settings_are_read_again(tmp_path: Path) -> None:
    source = "https://host/rows.csv?X-Amz-Signature=planted"
    said = drafted(tmp_path, data=TASK["data"] | {"source": source})
    assert "planted" not in said.model_dump_json()
    assert read_again(tmp_path, said).data.source == "https://host/rows.csv?X-Amz-Signature=***"


def test_a_password_that_an_older_manifest_kept_is_neither_refused_nor_shown(tmp_path: Path) -> None:
    said = drafted(tmp_path)
    kept = dict(said.params["data"]) | {"source": "http://bob:planted@host/rows.csv"}  # type: ignore[arg-type]
    read = read_again(tmp_path, said.model_copy(update={"params": {**said.params, "data": kept}}))
    assert read.data.source == "http://***@host/rows.csv"


def test_it_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    said = drafted(tmp_path)
    assert Draft.model_validate_json(said.model_dump_json()) == said


@pytest.mark.parametrize("method", ["prompt", "prefix"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        # A prompt may start from the labels in their order, and a tie goes to the first: the alphabet is another.
        {"data": {"source": "x.csv", "format": "csv", "labels": ["good", "bad", "Mixed"]}},
        {
            "data": {"source": "x.csv", "format": "csv"},
            "gate": [{"metric": "chrf", "direction": "higher", "threshold": 1.0}],
        },
    ],
    ids=["ranges", "labels out of order", "generation"],
)  # fmt: skip
def test_what_it_was_trained_by_comes_back_from_the_folder(
    tmp_path: Path, method: MethodName, changes: dict[str, Any]
) -> None:
    trained = TaskParams.model_validate(TASK | changes)
    said = drafted(tmp_path, method, **changes)
    adapter_folder.write(tmp_path / "adapter", np.ones(said.tensor_shape, np.float32), said)

    found = settings(adapter_folder.read(tmp_path / "adapter").manifest)

    assert fingerprint(found, method, BASE.value, "d" * 64) == fingerprint(trained, method, BASE.value, "d" * 64)
    assert found.settings(method) == trained.settings(method)
    assert list(found.data.labels or {}) == list(trained.data.labels or {})
    assert (found.template, found.max_new_tokens, found.data) == (
        trained.template,
        trained.max_new_tokens,
        trained.data,
    )


@pytest.mark.parametrize("missing", ["data", "instruction", "prompt"])
def test_settings_that_are_not_all_there_are_no_settings(tmp_path: Path, missing: str) -> None:
    said = drafted(tmp_path)
    params = {key: value for key, value in said.params.items() if key != missing}
    adapter_folder.write(
        tmp_path / "adapter", np.ones(said.tensor_shape, np.float32), said.model_copy(update={"params": params})
    )

    with pytest.raises(ArtifactError, match=f"does not say what it was trained by .*{missing}"):
        settings(adapter_folder.read(tmp_path / "adapter").manifest)


@pytest.mark.parametrize("order", [["bad"], ["bad", "bad"], ["bad", "good", "good"], ["bad", 1], [], None, "bad"])
def test_an_order_of_other_labels_than_there_are_is_refused(tmp_path: Path, order: object) -> None:
    with pytest.raises(ValidationError, match="label_order is"):
        Draft.model_validate(drafted(tmp_path).model_dump() | {"label_order": order})


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_the_one_checked_out_and_empty_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set where a hook runs the tests
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == ""
    git(tmp_path, "init", "--quiet")
    assert git_commit(tmp_path) == ""  # no commit yet: git prints the word HEAD then
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", "First")
    assert git_commit(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    assert len(git_commit(tmp_path)) == 40
    assert git_commit(tmp_path / "absent") == ""


def test_without_git_the_commit_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) == ""


def test_an_image_without_history_says_which_commit_it_was_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("PREFACE_GIT_COMMIT", "b" * 40)
    assert git_commit(tmp_path) == "b" * 40

    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", "First")
    assert git_commit(tmp_path) == git(tmp_path, "rev-parse", "HEAD")  # a checkout knows better
