"""A key/value prefix starts from text or at random; the reparameterized form is the same prefix, trained otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from components.base.base_model import Base
from components.config.params import TaskParams
from components.data.template import Template
from components.errors import ParamsError
from components.prefix.inference import from_artifact
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import build
from components.prefix.methods.prefix import RANDOM_SCALE, PrefixTuning
from components.prefix.methods.text import in_context_ids, repeated_ids, sampled_ids, text_ids

MakeTask = Callable[..., TaskParams]


def start(base: Base, task: MakeTask, seed: int = 0, **prefix: Any) -> PrefixTuning:
    return cast(PrefixTuning, build(base, task(prefix=prefix | {"training": {"seed": seed}}), "prefix"))


def same(one: KVPrefix, other: KVPrefix) -> bool:
    return torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def columns(base: Base) -> int:
    return base.shape.layers * 2 * base.shape.kv_heads * base.shape.head_size


@pytest.mark.parametrize("length", [1, 7, 40])
def test_text_is_the_keys_and_values_of_the_repeated_instruction(base: Base, task: MakeTask, length: int) -> None:
    """Longer than the instruction, it starts over, at the positions that follow."""
    instruction = task().instruction
    assert 7 < len(text_ids(base, instruction)) < 40
    method = start(base, task, virtual_tokens=length)
    assert method.folded().shape == (length, columns(base))
    assert same(method.prefix(base), KVPrefix.from_tokens(base, repeated_ids(base, instruction, length)))


SOLVED = [(f"the film number {n} is what it is", "") for n in range(9)]


@pytest.mark.parametrize("length", [5, 30, 60])
def test_examples_are_the_keys_and_values_of_the_last_tokens_of_an_in_context_prompt(
    base: Base, task: MakeTask, length: int
) -> None:
    """So training begins where in-context learning ends; of as many examples as it takes, the last stands whole."""
    asked = task(prefix={"init": "examples", "virtual_tokens": length})
    template = Template.of(asked)
    solved = [(text, list(asked.data.labels or {})[at % 2]) for at, (text, _) in enumerate(SOLVED)]
    whole = [in_context_ids(base, template, asked.instruction, solved[:count]) for count in range(1, len(solved) + 1)]
    ids = next(ids for ids in whole if len(ids) >= length)[-length:]

    made = build(base, asked, "prefix", solved)

    assert same(made.prefix(base), KVPrefix.from_tokens(base, ids))
    soft = build(base, task(prompt={"init": "examples", "virtual_tokens": length}), "prompt", solved)
    assert torch.equal(soft.folded(), base.model.get_input_embeddings().weight[ids].float())
    upper = build(base, task(prefix={"init": "examples", "virtual_tokens": length, "layers": 1}), "prefix", solved)
    assert torch.equal(upper.folded(), made.folded())


def test_too_few_examples_for_so_many_virtual_tokens_are_told(base: Base, task: MakeTask) -> None:
    asked = task(prefix={"init": "examples", "virtual_tokens": 200})
    solved = [(text, next(iter(asked.data.labels or {}))) for text, _ in SOLVED[:2]]
    with pytest.raises(ParamsError, match=r"the 2 training rows make \d+ tokens; virtual_tokens is 200: lower it"):
        build(base, asked, "prefix", solved)


def test_labels_are_their_words_and_what_is_left_over_is_sampled(base: Base, task: MakeTask) -> None:
    words = [token for word in ("positive", "not at all") for token in base.words.encode(f" {word}").ids]
    sampled = start(base, task, init="vocabulary", virtual_tokens=20)
    made = start(base, task, init="labels", virtual_tokens=len(words))
    assert same(made.prefix(base), KVPrefix.from_tokens(base, words))
    longer = start(base, task, init="labels", virtual_tokens=20)
    torch.testing.assert_close(longer.folded()[: len(words)], made.folded())
    assert not torch.equal(longer.folded(), sampled.folded())
    torch.testing.assert_close(start(base, task, init="labels", virtual_tokens=2).folded(), made.folded()[:2])


def test_vocabulary_is_the_keys_and_values_of_what_the_seed_draws(base: Base, task: MakeTask) -> None:
    first, again, other = (start(base, task, seed, init="vocabulary", virtual_tokens=9) for seed in (1, 1, 2))
    drawn = sampled_ids(base, 9, torch.Generator().manual_seed(1))
    assert same(first.prefix(base), KVPrefix.from_tokens(base, drawn))
    assert torch.equal(first.folded(), again.folded())
    assert not torch.equal(first.folded(), other.folded())


def test_random_is_small_and_follows_from_the_seed(base: Base, task: MakeTask) -> None:
    first, again, other = (start(base, task, seed, init="random", virtual_tokens=50).folded() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(RANDOM_SCALE, rel=0.1)


@pytest.mark.parametrize("init", ["text", "random"])
def test_reparameterization_starts_at_the_same_prefix(base: Base, task: MakeTask, init: str) -> None:
    bare, wrapped = (start(base, task, init=init, reparameterization=width) for width in (None, 8))
    assert same(wrapped.prefix(base), bare.prefix(base))
    assert torch.equal(wrapped.folded(), bare.folded())


def test_a_network_follows_from_the_seed(base: Base, task: MakeTask) -> None:
    first, again, other = (start(base, task, seed, reparameterization=8).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["seeds"], other["seeds"])
    assert not torch.equal(first["network.0.weight"], other["network.0.weight"])


def loss(method: PrefixTuning, base: Base) -> Tensor:
    made = method.prefix(base)
    return (made.keys - 1).square().mean() + (made.values + 1).square().mean()


@pytest.fixture(params=[None, 8], ids=["bare", "reparameterized"])
def trained(request: pytest.FixtureRequest, base: Base, task: MakeTask) -> PrefixTuning:
    """A few steps towards keys of 1 and values of -1."""
    method = start(base, task, virtual_tokens=5, reparameterization=request.param)
    first, optimizer = loss(method, base).item(), torch.optim.AdamW(method.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        loss(method, base).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss(method, base).item() < first
    return method


def test_the_gradient_reaches_every_parameter(base: Base, trained: PrefixTuning) -> None:
    """The network's last layer begins at zero, so the others hear of the loss from the second step on."""
    assert all(parameter.grad is not None for parameter in trained.parameters())
    reached = {name: bool(p.grad.any()) for name, p in trained.named_parameters() if p.grad is not None}
    assert all(reached.values()), reached
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_the_saved_table_is_the_trained_prefix(base: Base, trained: PrefixTuning) -> None:
    table = trained.folded()
    assert (table.shape, table.dtype, table.requires_grad) == ((5, columns(base)), torch.float32, False)
    assert same(from_artifact(base, "prefix", table), trained.prefix(base))


def test_a_state_taken_back_is_the_same_prefix(base: Base, task: MakeTask, trained: PrefixTuning) -> None:
    """Also into a method that began elsewhere: where a reparameterized one began is part of its state."""
    width = None if trained.network is None else 8
    other = start(base, task, seed=9, init="random", virtual_tokens=5, reparameterization=width)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other.folded(), trained.folded())


def test_where_a_reparameterized_prefix_began_is_not_trained(base: Base, task: MakeTask) -> None:
    names = {name for name, _ in start(base, task, reparameterization=4).named_parameters()}
    assert names == {"seeds", "network.0.weight", "network.0.bias", "network.2.weight", "network.2.bias"}
