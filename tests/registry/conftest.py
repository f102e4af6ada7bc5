"""What the registry's tests share: a draft that is right, to be changed in one place at a time, and its tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry import artifact
from registry.manifest import BasePin, CodePin, DataPin, Draft, Shape

MakeDraft = Callable[..., Draft]
MakeAdapter = Callable[..., Path]
BASE_HASH = "b" * 64


@pytest.fixture(scope="session")
def draft() -> MakeDraft:
    """A factory of drafts: ``draft("prefix", seed=3)``."""

    def make(method: str = "prompt", **changes: Any) -> Draft:
        fields: dict[str, Any] = {
            "task": "movie-sentiment",
            "method": method,
            "kind": "classification",
            "virtual_tokens": 3,
            "shape": Shape(layers=2, kv_heads=2, head_size=8, hidden=32, heads=4),
            "base": BasePin(name="tiny", hash=BASE_HASH, weights="1" * 64, config="2" * 64, tokenizer="3" * 64),
            "data": DataPin(hash="d" * 64, lock={"cmd": "python -m components.data movie-sentiment"}),
            "fingerprint": "f" * 64,
            "seed": 0,
            "params": {"steps": 200, "learning_rate": 0.01},
            "template": "Review: {text}\nSentiment:",
            "labels": {"positive": "positive", "negative": "negative"},
            "max_tokens": 256,
            "max_new_tokens": 8,
            "metrics": {"accuracy": 0.9, "macro_f1": 1},
            "code": CodePin(version="0.1.0", git_commit=""),
            "libraries": {"torch": "2.13.0"},
            "created": "2026-11-23T20:00:00Z",
        }
        return Draft(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def write_adapter(draft: MakeDraft) -> MakeAdapter:
    """A factory of good adapter folders: ``write_adapter(folder, "prefix", seed=3)``. The seed makes the values."""

    def make(folder: Path, method: str = "prompt", **changes: Any) -> Path:
        made = draft(method, **changes)
        values = np.random.default_rng(made.seed).standard_normal(made.tensor_shape).astype(np.float32)
        artifact.write(folder, values, made)
        return folder

    return make
