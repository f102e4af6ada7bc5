"""The last layer's feed-forward network, run only where its result is asked for.

Whatever a place of the last layer makes is read by the head at that place and by nobody else, so where no label is
predicted nothing needs to be made. Attention still runs everywhere: it is the smaller part, and each architecture
writes its own. Knows nothing of labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from components.base.base_model import Base


@contextmanager
def narrowed(base: Base, places: Tensor) -> Iterator[None]:
    """While this lasts, final hidden states are right at ``places`` alone and meaningless elsewhere.

    Args:
        places: [N], different indices into the flattened [B*T] states of the one batch that is read meanwhile.

    A base whose feed-forward networks cannot be told by name is read whole.
    """
    layers = layers_of(base)
    network = feed_forward(layers[1][-1]) if layers else None
    if network is None:
        yield
        return
    shape: list[int] = []

    def gather(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        shape[:] = given[0].shape
        return given[0].flatten(0, 1)[places].unsqueeze(0), *given[1:]

    def scatter(_: nn.Module, __: tuple[Any, ...], made: Tensor) -> Tensor:
        whole = made.new_zeros(shape[0] * shape[1], made.shape[-1])
        return whole.index_copy(0, places, made[0]).view(*shape[:-1], made.shape[-1])

    hooks = [network.register_forward_pre_hook(gather), network.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def feed_forward(layer: nn.Module) -> nn.Module | None:
    """The module that transformers calls ``mlp`` in a decoder layer, of the bases that have such a one."""
    network = getattr(layer, "mlp", None)
    return network if isinstance(network, nn.Module) else None


def layers_of(base: Base) -> tuple[str, nn.ModuleList] | None:
    """The decoder layers, and the name that the model has them under; None where they are not in one list."""
    for name, child in base.model.base_model.named_children():
        if isinstance(child, nn.ModuleList) and len(child) == base.shape.layers:
            return name, child
    return None
