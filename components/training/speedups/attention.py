"""Attention in training, by plain matrix products where they are faster than the fused kernel.

torch's fused attention for processors is made for long texts; of short rows its gradient alone took a fifth of a step
(docs/experiments.md). transformers' own "eager" form computes the same by matrix products, and keeps its scores for the
gradient: it is taken where those are small. On GPUs the fused kernels are the faster ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from components.base.base_model import Base
from components.prefix.methods.method import Method
from components.training.batches import TrainingRow

# Scores of one step: float32 before the softmax, the base's dtype after it.
KEPT_BYTES, BYTES_A_SCORE = 512 * 2**20, 8


@contextmanager
def plain_products(base: Base, methods: Sequence[Method], batches: Sequence[Sequence[TrainingRow]]) -> Iterator[None]:
    """While this lasts, the base attends by whatever is faster for a step on these rows, forward and backward."""
    before = base.model.config._attn_implementation
    if base.device.type != "cpu" or before == "eager" or _scores(base, methods, batches) > KEPT_BYTES:
        yield
        return
    base.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.model.set_attn_implementation(before)


def _scores(base: Base, methods: Sequence[Method], batches: Sequence[Sequence[TrainingRow]]) -> int:
    """Bytes of the attention scores that a step keeps for its gradient."""
    lengths = [len(row.ids) for batch in batches for row in batch]
    width, prefix = max(lengths), max(method.virtual_tokens for method in methods)
    shape = base.shape
    return shape.layers * shape.heads * len(lengths) * width * (width + prefix) * BYTES_A_SCORE
