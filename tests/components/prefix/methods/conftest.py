"""What the methods' tests share: a tiny base, a task to start from, and bases whose tokenizer adds tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import TaskParams

MakeTask = Callable[..., TaskParams]
MakeBase = Callable[[str], Base]


def _loaded(folder: Path) -> Base:
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session", params=["llama", "qwen", "gpt2"])
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[..., Path]) -> Base:
    return _loaded(tiny_base_folder(request.param))


@pytest.fixture(scope="session")
def adding(tiny_base_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> MakeBase:
    """A base whose tokenizer wraps every text as said: ``adding("<|end|> $A")`` begins each with a begin token.

    The begin token is the end token too, as GPT-2 has it.
    """

    def make(wrapped: str) -> Base:
        folder = tmp_path_factory.mktemp("wrapping") / "base"
        shutil.copytree(tiny_base_folder("llama"), folder)
        file = str(folder / "tokenizer.json")
        tokenizer = Tokenizer.from_file(file)
        tokenizer.post_processor = TemplateProcessing(single=wrapped, special_tokens=[("<|end|>", 0)])
        tokenizer.save(file)
        settings = folder / "tokenizer_config.json"
        settings.write_text(settings.read_text().replace("{", '{"bos_token": "<|end|>",', 1))
        made = _loaded(folder)
        assert made.tokenizer.bos_token_id == made.tokenizer.eos_token_id == 0
        return made

    return make


@pytest.fixture(scope="session")
def task() -> MakeTask:
    """``task(prompt={"init": "labels"})``: a task with one section replaced. Its instruction is shorter than P."""

    def make(**sections: Any) -> TaskParams:
        return TaskParams.model_validate(
            {
                "base": "tiny",
                "data": {"source": "x.csv", "format": "csv", "labels": {"good": "positive", "none": "not at all"}},
                "instruction": "Decide whether the movie review is positive.",
                "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.0}],
            }
            | sections
        )

    return make
