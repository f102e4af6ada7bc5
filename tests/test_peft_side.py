"""What our benchmarks set us beside: PEFT from the very numbers that it is given, with the very loss that is ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import peft_side
from benchmarks.time_to_accuracy import asked_of
from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import DataParams, GateRule, TaskParams
from components.prefix.inference import from_artifact
from components.prefix.methods.method import build
from components.training.batches import TrainingRow
from components.training.losses import row_losses

ROWS = [TrainingRow(tuple(range(40, 43 + n)), (20 + n % 2, 22)) for n in range(5)]
SOLVED = [("dull", "a"), ("a funny film", "b"), ("no more of it", "a"), ("once more", "b")]
TASK = TaskParams(
    base="tiny",
    data=DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
    instruction="Say a or b.",
    gate=[GateRule(metric="accuracy", direction="higher", threshold=0.5)],
)


@pytest.fixture
def base(tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder("llama")
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_from_solved_examples_peft_begins_where_ours_does(base: Base, method: Any) -> None:
    task = TASK.with_settings(method, {"init": "examples", "virtual_tokens": 12})
    start = build(base, task, method, SOLVED).folded()
    with torch.no_grad():
        ours, labels = row_losses(base, from_artifact(base, method, start), ROWS)

    model = peft_side.model_of(base, task, method, 12, start)

    with torch.no_grad():
        theirs = model(**peft_side.collated(ROWS, base)).loss
    assert theirs.item() == pytest.approx(ours.item() / labels, rel=1e-5)


def test_an_arm_says_who_trains_what_with_which_settings() -> None:
    who, method, task = asked_of(TASK, "peft:prompt,steps=7", seed=2)
    assert (who, method) == ("peft", "prompt")
    assert (task.prompt.init, task.prompt.virtual_tokens) == ("text", 20)
    assert (task.prompt.training.steps, task.prompt.training.seed) == (7, 2)

    who, method, task = asked_of(TASK, 'ours:prefix,init="examples",layers=3', seed=0)
    assert (who, method) == ("ours", "prefix")
    assert (task.prefix.init, task.prefix.layers) == ("examples", 3)
