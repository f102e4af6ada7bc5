"""What norms and gated feed-forward networks keep of a row until its gradient: their input, and nothing made from it.

transformers writes an RMS norm (Zhang and Sennrich 2019, arXiv:1910.07467) out in float32 and a SwiGLU network (Shazeer
2020, arXiv:2002.05202) as one operation after the other; autograd keeps what each of them read. Here the same values
are made, and what is cheap is made again on the way back: a fifth less memory in the same time (docs/experiments.md).
Knows nothing of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from components.base.base_model import Base
from components.training.speedups.last_layer import feed_forward, layers_of

Forward = Callable[[Any, Tensor], Tensor]
_found: WeakKeyDictionary[nn.Module, list[tuple[nn.Module, Forward]]] = WeakKeyDictionary()


@contextmanager
def lean(base: Base) -> Iterator[None]:
    """While this lasts, forward and backward, such parts of the base keep less. Parts that compute anything else stay.

    Two bases are never changed by each other; of one base, one thread may ask this at a time.
    """
    if base.model not in _found:
        _found[base.model] = [(part, form) for part in _parts(base) for form in _forms(part)]
    # A forward of a part's own is somebody's hook, who takes it off again.
    parts = [(part, form) for part, form in _found[base.model] if "forward" not in part.__dict__]
    for part, form in parts:
        part.__dict__["forward"] = partial(form, part)
    try:
        yield
    finally:
        for part, _ in parts:
            del part.__dict__["forward"]


def _parts(base: Base) -> list[nn.Module]:
    """The norms and feed-forward networks of all decoder layers."""
    found = layers_of(base)
    layers = list(found[1]) if found else []
    norms = [part for layer in layers for part in layer.modules() if hasattr(part, "variance_epsilon")]
    return norms + [network for layer in layers if (network := feed_forward(layer)) is not None]


def _forms(part: Any) -> Iterator[Forward]:
    """The form that computes what this part does: told by the names of its own parts, then tried on a row."""
    if hasattr(part, "variance_epsilon") and hasattr(part, "weight"):
        form, width = _norm, part.weight.shape[-1]
    elif all(hasattr(part, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        form, width = _gated, part.gate_proj.in_features
    else:
        return
    weight = next(part.parameters())
    row = torch.linspace(-2, 2, width, dtype=torch.float32).to(weight.device, weight.dtype)[None, None]
    with torch.no_grad():
        due, made = part(row), form(part, row)
    if made.dtype == due.dtype and torch.linalg.vector_norm(made - due) <= 0.01 * torch.linalg.vector_norm(due):
        yield form


def _norm(part: Any, hidden: Tensor) -> Tensor:
    if hidden.dtype != part.weight.dtype:  # under autocast; tried was the one kind
        as_it_was: Tensor = type(part).forward(part, hidden)
        return as_it_was
    made: Tensor = _RMSNorm.apply(hidden, part.weight, part.variance_epsilon)  # type: ignore[no-untyped-call]
    return made


def _gated(part: Any, hidden: Tensor) -> Tensor:
    product = _SwiGLU.apply(part.gate_proj(hidden), part.up_proj(hidden))  # type: ignore[no-untyped-call]
    made: Tensor = part.down_proj(product)
    return made


class _RMSNorm(torch.autograd.Function):
    """x [..., H] over the root of its mean square, times the weight [H]; rounded where transformers does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        # The norm reads x once and makes no float32 copy of it.
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
        inverse = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return torch.mul(x, inverse, out=torch.empty_like(x)).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, inverse, weight = ctx.saved_tensors
        normed = x * inverse  # float32, as all below
        to_weight = None
        if ctx.needs_input_grad[1]:  # of a base that is not frozen, as in full fine-tuning
            to_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype)
        scaled = (grad * weight).float()
        along = (scaled * normed).mean(-1, keepdim=True)
        return scaled.addcmul_(normed, along, value=-1).mul_(inverse).to(x.dtype), to_weight, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        to_gate: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return to_gate, silu(gate).mul_(grad)
