"""Methods that change the model from inside begin as the base, learn in the same loop, and touch what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import BaselineParams, DataParams, GateRule, TaskParams, TrainingParams
from components.data.prepare import Example, Examples
from components.errors import UnsupportedBase
from components.evaluation import arms
from components.evaluation.arms import TRAINED, arms_of, trained, untrained
from components.evaluation.inside_methods import change
from components.prefix.decoder import Decoder, logits, pad
from components.prefix.kv_prefix import KVPrefix, PrefixRows
from components.training.batches import TrainingRow
from components.training.loop import train
from components.training.training_data import TrainingData

SETTINGS = TrainingParams(steps=12, batch_size=4, learning_rate=0.01, evaluate_every=4, patience=9)
ROWS = [TrainingRow((10 + n % 2, 30 + n, *range(40, 40 + n % 5)), (20 + n % 2,)) for n in range(16)]
LESSONS = TrainingData(ROWS, ROWS)
INSIDE: Any = pytest.mark.parametrize("name", ["lora", "ia3", "bottleneck", "full"])


@pytest.fixture
def folder(tiny_base_folder: Callable[..., Path]) -> Path:
    return tiny_base_folder("llama")


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> Base:
    return load(folder, hash_base(folder).value, device="cpu", dtype=dtype)


def said(base: Base) -> torch.Tensor:
    ids, counts = pad([row.text for row in ROWS], base)
    decoder = Decoder.behind(base, PrefixRows.broadcast(KVPrefix.none(base), len(ROWS)))
    with torch.no_grad():
        return logits(base, decoder.read(ids, counts))[:, 0]


def test_no_virtual_tokens_are_the_base_itself(folder: Path) -> None:
    base = loaded(folder)
    ids, _ = pad([row.text for row in ROWS], base)
    with torch.no_grad():
        torch.testing.assert_close(said(base), base.model(input_ids=ids).logits[:, 0], atol=1e-5, rtol=1e-5)


@INSIDE
def test_it_begins_as_the_base_and_learns(folder: Path, name: Any) -> None:
    base = loaded(folder)
    before, original = said(base), [(p, p.detach().clone()) for p in base.model.parameters()]
    method = change(base, name, seed=0)
    torch.testing.assert_close(said(base), before, atol=1e-6, rtol=1e-6)

    done = train(base, method, LESSONS, SETTINGS)

    assert done.best_loss < done.first_loss
    assert not torch.allclose(said(base), before, atol=1e-3)
    same = all(torch.equal(parameter, value) for parameter, value in original)
    assert same == (name != "full")
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())


@pytest.mark.parametrize("name", ["lora", "ia3", "bottleneck"])
def test_a_base_in_bfloat16_takes_a_float32_adapter(folder: Path, name: Any) -> None:
    base = loaded(folder, torch.bfloat16)
    method = change(base, name, seed=0)
    done = train(base, method, LESSONS, SETTINGS)
    assert done.best_loss < done.first_loss
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())


@pytest.mark.parametrize("name", ["lora", "ia3", "bottleneck"])
def test_a_base_without_such_modules_is_refused(folder: Path, name: Any) -> None:
    base = loaded(folder)
    config = base.model.config
    config.__class__ = type("Odd", (type(config),), {"model_type": "unheard-of"})
    for layer in base.model.base_model.layers:
        layer.feed, layer.mlp = layer.mlp, None
    with pytest.raises(UnsupportedBase, match=r"peft cannot put|no feed-forward network by name"):
        change(base, name, seed=0)


LOOP = {"steps": 6, "batch_size": 4, "evaluate_every": 3, "learning_rate": 0.05}
TASK = TaskParams.model_validate(
    {
        "base": "tiny",
        "data": DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
        "instruction": "Say a or b.",
        "prompt": {"virtual_tokens": 3, "training": LOOP},
        "prefix": {"virtual_tokens": 3, "training": LOOP},
        "baselines": BaselineParams(hard_prompts=["Say it.\n", "Say it now.\n"], in_context=[2]),
        "gate": [GateRule(metric="accuracy", direction="higher", threshold=0.5)],
    }
)


@pytest.fixture(scope="module")
def examples() -> Examples:
    rows = [Example(f"{n}", f"{n} {'dull' if n % 2 else 'funny'}", "ab"[n % 2]) for n in range(40)]
    return Examples({"train": rows[:20], "validation": rows[20:30], "test": rows[30:]}, "0" * 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("arm", sorted(TRAINED))
def test_each_arm_says_what_it_cost_and_what_it_is_worth(
    folder: Path, examples: Examples, arm: str, dtype: torch.dtype
) -> None:
    bare = loaded(folder, dtype)
    before = said(bare)

    found = trained(bare, folder, arm, TASK, examples)

    assert torch.equal(said(bare), before)
    assert found.base_unchanged == (arm != "full")
    total = sum(p.numel() for p in bare.model.parameters())
    shape = bare.shape
    prefix = 3 * shape.layers * 2 * shape.kv_heads * shape.head_size
    trained_numbers = {"prompt": 3 * shape.hidden, "prefix": prefix, "full": total, "upper_prefix": prefix // 2}
    assert found.trained == trained_numbers.get(arm, found.trained) > 0
    assert found.share == found.trained / total
    stored = {"full": total * dtype.itemsize, "upper_prefix": 4 * prefix}
    assert found.stored == stored.get(arm, 4 * found.trained)
    assert len(found.scored.rows) == 10
    assert found.interval[0] <= found.scored.metrics["accuracy"] <= found.interval[1]
    assert found.steps == LOOP["steps"]
    assert found.latency is not None
    assert found.latency > 0
    assert found.seconds > 0


@pytest.mark.parametrize("arm", ["prompt", "prefix", "ia3"])
def test_all_arms_have_the_budget_of_prefix_tuning_and_rates_of_their_own(
    folder: Path, examples: Examples, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_prefix = {"steps": 3, "batch_size": 2, "accumulate": 2, "seed": 7}
    task = TASK.with_settings("prompt", {"training.learning_rate": 0.3})
    task = task.with_settings("prefix", {f"training.{name}": value for name, value in of_prefix.items()})
    seen = []

    def watched(base: Base, method: Any, lessons: TrainingData, settings: TrainingParams, **more: Any) -> Any:
        seen.append(settings)
        return train(base, method, lessons, settings, **more)

    monkeypatch.setattr(arms, "train", watched)
    trained(loaded(folder), folder, arm, task, examples)

    [settings] = seen
    assert {name: getattr(settings, name) for name in of_prefix} == of_prefix
    assert settings.learning_rate == {"prompt": 0.3, "prefix": 0.05, "ia3": 0.01}[arm]


def test_what_is_not_trained_is_compared_as_well(folder: Path, examples: Examples) -> None:
    found = {each.arm: each for each in untrained(loaded(folder), TASK, examples)}
    assert list(found) == ["majority", "linear", "hard_prompt", "in_context"] == arms_of(TASK)[:4]
    assert [each.arm for each in found.values() if each.latency is not None] == ["hard_prompt", "in_context"]
    assert found["hard_prompt"].stored in (len("Say it."), len("Say it now."))
    assert all((each.trained, each.base_unchanged) == (0, True) for each in found.values())
