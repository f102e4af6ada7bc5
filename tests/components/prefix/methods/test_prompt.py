"""A soft prompt starts from what params.yaml says, follows from its seed, and is what the saved adapter becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from components.base.base_model import Base
from components.config.params import TaskParams
from components.prefix.inference import from_artifact
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import build
from components.prefix.methods.prompt import PromptTuning
from components.prefix.methods.text import COMMON_TOKENS, repeated_ids, text_ids

MakeTask = Callable[..., TaskParams]
INITS = ["text", "labels", "vocabulary", "random"]


def table(base: Base, task: MakeTask, init: str, seed: int = 0, length: int = 20, **sections: Any) -> Tensor:
    prompt = {"init": init, "virtual_tokens": length, "training": {"seed": seed}}
    return build(base, task(prompt=prompt, **sections), "prompt").folded()


def embeddings(base: Base) -> Tensor:
    weight: Tensor = base.model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


@pytest.mark.parametrize("init", INITS)
def test_the_first_prompt_follows_from_the_seed(base: Base, task: MakeTask, init: str) -> None:
    first, again, other = (table(base, task, init, seed) for seed in (1, 1, 2))
    assert first.shape == (20, base.shape.hidden)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (init == "text")


@pytest.mark.parametrize("length", [1, 7, 40])
def test_text_repeats_the_instruction_s_tokens(base: Base, task: MakeTask, length: int) -> None:
    instruction = task().instruction
    assert 7 < len(text_ids(base, instruction)) < 40
    assert torch.equal(
        table(base, task, "text", length=length), embeddings(base)[repeated_ids(base, instruction, length)]
    )


def test_text_starts_as_the_instruction_itself(base: Base, task: MakeTask) -> None:
    """Untrained, the adapter is the hard prompt of the same words."""
    ids = text_ids(base, task().instruction)
    start = build(base, task(prompt={"virtual_tokens": len(ids)}), "prompt").prefix(base)
    written = KVPrefix.from_tokens(base, ids)
    torch.testing.assert_close(start.keys, written.keys)
    torch.testing.assert_close(start.values, written.values)


def test_labels_are_the_means_of_their_words(base: Base, task: MakeTask) -> None:
    found, weight = table(base, task, "labels"), embeddings(base)
    words = [base.words.encode(f" {word}").ids for word in ("positive", "not at all")]
    assert [len(word) > 1 for word in words] == [False, True]
    for row, word in zip(found, words, strict=False):
        torch.testing.assert_close(row, weight[word].mean(0))
    assert all_from_vocabulary(found[2:], weight)


def test_more_labels_than_virtual_tokens_are_cut(base: Base, task: MakeTask) -> None:
    assert torch.equal(table(base, task, "labels", length=1), table(base, task, "labels")[:1])


def test_without_labels_their_place_is_sampled(base: Base, task: MakeTask) -> None:
    free: dict[str, Any] = {
        "data": {"source": "x.csv", "format": "csv"},
        "gate": [{"metric": "chrf", "direction": "higher", "threshold": 0.0}],
    }
    assert torch.equal(table(base, task, "labels", **free), table(base, task, "vocabulary", **free))


def test_vocabulary_is_sampled_from_the_common_tokens(
    base: Base, task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(embeddings(base)) < COMMON_TOKENS
    assert all_from_vocabulary(table(base, task, "vocabulary"), embeddings(base))
    monkeypatch.setattr("components.prefix.methods.text.COMMON_TOKENS", 7)
    found = table(base, task, "vocabulary", length=60)
    assert all_from_vocabulary(found, embeddings(base)[:7])
    assert not torch.equal(found, found[:1].expand_as(found))


def all_from_vocabulary(rows: Tensor, weight: Tensor) -> bool:
    return bool((rows.unsqueeze(1) == weight).all(-1).any(1).all())


def test_random_is_uniform_around_zero(base: Base, task: MakeTask) -> None:
    found = table(base, task, "random", length=200)
    assert found.abs().max() <= 0.5
    assert found.mean().abs() < 0.02
    assert found.std().item() == pytest.approx(1 / 12**0.5, abs=0.02)


def test_starting_leaves_the_base_alone(base: Base, task: MakeTask) -> None:
    """The first table is a copy: training it must not reach into the embeddings."""
    before = embeddings(base).clone()
    method = build(base, task(), "prompt")
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(1.0)
    assert torch.equal(embeddings(base), before)


def test_the_saved_table_is_the_trained_prefix(base: Base) -> None:
    method = PromptTuning(torch.randn(5, base.shape.hidden, generator=torch.Generator().manual_seed(0)))
    trained, loaded = method.prefix(base), from_artifact(base, "prompt", method.folded())
    assert torch.equal(loaded.keys, trained.keys)
    assert torch.equal(loaded.values, trained.values)
    assert trained.keys.requires_grad
    assert not loaded.keys.requires_grad


def test_the_gradient_reaches_every_virtual_token(base: Base) -> None:
    method = PromptTuning(torch.randn(5, base.shape.hidden, generator=torch.Generator().manual_seed(0)))
    made = method.prefix(base)
    (made.keys.sum() + made.values.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert method.weight.grad is not None
    assert (method.weight.grad != 0).any(dim=1).all()
    assert all(parameter.grad is None for parameter in base.model.parameters())
