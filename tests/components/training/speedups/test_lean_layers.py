"""Norms and gated networks that keep less make what transformers' own make, and whatever else there is stays itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.prefix.kv_prefix import KVPrefix
from components.training.batches import TrainingRow
from components.training.losses import row_losses
from components.training.speedups import lean_layers
from components.training.speedups.lean_layers import lean
from components.training.speedups.recompute import recomputed

ROWS = [TrainingRow(tuple(range(40, 46 + n)), (20 + n,)) for n in range(4)]


@pytest.fixture
def tiny(tiny_base_folder: Callable[..., Path]) -> Callable[..., Base]:
    """A base of its own, whose norms have weights that are not all one."""

    def made(kind: str = "llama", dtype: torch.dtype = torch.float32) -> Base:
        folder = tiny_base_folder(kind)
        base = load(folder, hash_base(folder).value, device="cpu", dtype=dtype)
        generator = torch.Generator().manual_seed(1)
        for part in base.model.modules():
            if hasattr(part, "variance_epsilon"):
                part.weight.copy_(0.5 + torch.rand(part.weight.shape, generator=generator))
        return base

    return made


def gradient_of(base: Base, *around: Callable[[Base], Any]) -> tuple[Tensor, int]:
    """Of the rows' loss by the keys and values of a prefix; and the bytes that autograd kept for it."""
    weights = {each.untyped_storage().data_ptr() for each in base.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    table = KVPrefix.from_tokens(base, [5, 6, 7]).to_peft().float().requires_grad_()
    one, two = (*around, *[nullcontext] * 2)[:2]
    with one(base), two(base):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss, _ = row_losses(base, KVPrefix.from_peft(table, base.shape).to(base.device, base.dtype), ROWS)
        loss.backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    return table.grad, sum(kept.values())


@pytest.mark.parametrize("kind", ["llama", "qwen"])
def test_less_is_kept_for_the_same_gradient(tiny: Callable[..., Base], kind: str) -> None:
    base = tiny(kind)

    (whole, much), (spared, little) = gradient_of(base), gradient_of(base, lean)

    assert (spared - whole).norm() <= 1e-5 * whole.norm()
    assert little < 0.95 * much


def test_in_half_precision_an_eighth_less_is_kept_and_no_farther_from_the_truth(tiny: Callable[..., Base]) -> None:
    truth, _ = gradient_of(tiny())
    base = tiny(dtype=torch.bfloat16)

    (whole, much), (spared, little) = gradient_of(base), gradient_of(base, lean)

    assert (spared - truth).norm() <= 1.25 * (whole - truth).norm()
    assert little < 0.875 * much


def test_a_base_that_is_not_frozen_learns_all_that_it_would(tiny: Callable[..., Base]) -> None:
    grads = []
    for around in ((), (lean,)):
        base = tiny()
        base.model.requires_grad_(True)
        gradient_of(base, *around)
        grads.append({name: each.grad for name, each in base.model.named_parameters() if each.grad is not None})

    assert any("layernorm" in name for name in grads[0])
    assert grads[0].keys() == grads[1].keys()
    for name, whole in grads[0].items():
        assert (grads[1][name] - whole).norm() <= 1e-5 * whole.norm(), name


def test_layers_that_are_run_twice_may_be_lean(tiny: Callable[..., Base]) -> None:
    base = tiny()

    assert torch.equal(gradient_of(base, lean, recomputed)[0], gradient_of(base, lean)[0])


def test_what_computes_anything_else_is_left_alone(tiny: Callable[..., Base]) -> None:
    base = tiny()
    layer: Any = next(part for part in base.model.base_model.children() if isinstance(part, nn.ModuleList))[0]

    def shifted(norm: Any, hidden: Tensor) -> Tensor:
        """As Gemma's: the weight says how far from one."""
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        return hidden * scale * (1 + norm.weight)

    layer.input_layernorm.forward = MethodType(shifted, layer.input_layernorm)
    layer.mlp.act_fn = nn.GELU()
    whole, _ = gradient_of(base)

    spared, _ = gradient_of(base, lean)

    assert (spared - whole).norm() <= 1e-5 * whole.norm()
    with lean(base):
        assert vars(layer.mlp).keys().isdisjoint({"forward"})


def test_an_untried_form_would_be_seen(tiny: Callable[..., Base], monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny()
    layer: Any = next(part for part in base.model.base_model.children() if isinstance(part, nn.ModuleList))[0]
    layer.mlp.act_fn = nn.GELU()
    whole, _ = gradient_of(base)
    monkeypatch.setattr(
        lean_layers, "_forms", lambda part: iter([] if hasattr(part, "weight") else [lean_layers._gated])
    )

    spared, _ = gradient_of(base, lean)

    assert (spared - whole).norm() > 1e-3 * whole.norm()


def test_a_base_is_itself_again_afterwards(tiny: Callable[..., Base]) -> None:
    base = tiny()

    with lean(base):
        assert any("forward" in vars(part) for part in base.model.modules())
    with pytest.raises(ZeroDivisionError), lean(base):
        raise ZeroDivisionError

    assert not any("forward" in vars(part) for part in base.model.modules())


def test_a_base_without_such_parts_is_left_as_it_is(tiny: Callable[..., Base]) -> None:
    base = tiny("gpt2")

    with lean(base):
        assert not any("forward" in vars(part) for part in base.model.modules())


def test_a_hook_that_somebody_put_on_a_part_stays(tiny: Callable[..., Base]) -> None:
    base = tiny()
    layer: Any = next(part for part in base.model.base_model.children() if isinstance(part, nn.ModuleList))[0]
    gradient_of(base, lean)  # the parts are known by now
    own, calls = layer.mlp.forward, list[int]()

    def hook(hidden: Tensor) -> Any:
        calls.append(len(hidden))
        return own(hidden)

    layer.mlp.forward = hook

    gradient_of(base, lean)

    assert calls == [1, len(ROWS)]  # of the virtual tokens, and of the rows
    assert layer.mlp.forward is hook
