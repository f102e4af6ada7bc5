"""The first virtual token may stay as it begins; all others are trained, and what is saved is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.prefix.inference import from_artifact
from components.prefix.methods.method import Method, build, prefixes
from components.records import METHODS

MakeTask = Callable[..., TaskParams]
FORMS: list[tuple[MethodName, dict[str, Any]]] = [
    ("prompt", {}),
    ("prefix", {}),
    ("prefix", {"reparameterization": 8}),
    ("prefix", {"layers": 1}),
]


def made(base: Base, task: MakeTask, method: MethodName, **settings: Any) -> Method:
    return build(base, task(**{method: {"virtual_tokens": 5} | settings}), method)


def moved(base: Base, method: Method) -> torch.Tensor:
    """The table before and after a few steps towards keys and values of 1: which rows of it changed, [P]."""
    before = method.folded().clone()
    optimizer = torch.optim.AdamW(list(method.parameters()), lr=0.05, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        prefix = method.prefix(base)
        ((prefix.keys - 1).square().sum() + (prefix.values - 1).square().sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (method.folded() != before).any(dim=1)


@pytest.mark.parametrize(("method", "settings"), FORMS)
def test_it_begins_as_without_and_only_its_first_token_stays(
    base: Base, task: MakeTask, method: MethodName, settings: dict[str, Any]
) -> None:
    free, held = (made(base, task, method, frozen_first=on, **settings) for on in (False, True))
    assert torch.equal(held.folded(), free.folded())
    assert held.virtual_tokens == free.virtual_tokens == 5
    assert moved(base, free).tolist() == [True] * 5
    assert moved(base, held).tolist() == [False, True, True, True, True]

    loaded, trained = from_artifact(base, method, held.folded()), held.prefix(base)
    assert torch.equal(loaded.keys, trained.keys)
    assert torch.equal(loaded.values, trained.values)
    again = made(base, task, method, frozen_first=True, init="vocabulary", **settings)
    again.load_state_dict(held.state_dict())
    assert torch.equal(again.folded(), held.folded())


def test_soft_prompts_of_both_kinds_run_through_the_base_together(base: Base, task: MakeTask) -> None:
    pair = [made(base, task, "prompt", frozen_first=on, init="vocabulary") for on in (False, True)]
    for together, method in zip(prefixes(base, pair), pair, strict=True):
        torch.testing.assert_close(together.keys, method.prefix(base).keys)
        torch.testing.assert_close(together.values, method.prefix(base).values)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_token_cannot_be_frozen(task: MakeTask, method: MethodName) -> None:
    with pytest.raises(ValidationError, match="virtual_tokens is 1 and frozen_first leaves that one alone"):
        task(**{method: {"virtual_tokens": 1, "frozen_first": True}})
