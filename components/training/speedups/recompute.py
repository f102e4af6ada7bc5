"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174) behind a prefix: less memory for a third more work.

What a layer made on the way to the loss is not kept but made again for the gradient. transformers' own switch drops the
key/value cache, and with it the prefix; here the cache stands still while layers are run twice
(``PrefixRows.standing_cache``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint

from components.base.base_model import Base
from components.training.speedups.last_layer import layers_of


@contextmanager
def recomputed(base: Base) -> Iterator[None]:
    """While this lasts, every decoder layer but the last keeps nothing but its input. The gradient may be asked later.

    The last is left as it is: its feed-forward network is the one that may be narrowed meanwhile, and the loss needs
    its states anyhow. A base whose layers are not in one list keeps all.
    """
    found = layers_of(base)
    layers = list(found[1])[:-1] if found else []
    for layer in layers:
        layer.__dict__["forward"] = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
