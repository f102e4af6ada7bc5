"""The loss of rows behind their prefixes: one forward pass for the rows of several adapters, a loss for each.

The head, the widest matrix of a small model, runs at label positions alone, and so does the last feed-forward network.
Knows nothing of how a prefix is made or moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from components.base.base_model import Base
from components.prefix.decoder import Decoder, logits
from components.prefix.kv_prefix import KVPrefix, PrefixRows
from components.training.batches import TrainingRow, collate
from components.training.speedups.last_layer import narrowed
from components.training.speedups.upper_layers import UpperLayers

# The scores of so many labels, each as wide as the vocabulary, are held at once.
LABELS_AT_ONCE = 512


def losses(
    base: Base,
    prefixes: Sequence[KVPrefix],
    batches: Sequence[Sequence[TrainingRow]],
    upper: UpperLayers | None = None,
) -> list[Tensor]:
    """Summed negative log-likelihood of each batch's labels, a scalar each, behind its own prefix.

    Args:
        prefixes, batches: as many of the one as of the other; all rows are read together.
        upper: with it the layers below are not run at all; all prefixes share theirs.
    """
    rows = [row for batch in batches for row in batch]
    ids, counts, places, labels = collate(rows, base)
    if len(prefixes) == 1:
        front = PrefixRows.broadcast(prefixes[0], len(rows))
    else:
        front = PrefixRows.gather(prefixes, [number for number, batch in enumerate(batches) for _ in batch])
    with narrowed(base, places):
        if upper:
            hidden = upper.read(front, [row.ids for row in rows])
        else:
            hidden = Decoder.behind(base, front, once=True).read(ids, counts)
    sizes = [sum(len(row.target) for row in batch) for batch in batches]
    at_labels = torch.split(hidden.flatten(0, 1)[places], sizes)  # of each batch [N, H]
    return [_summed(base, *pair) for pair in zip(at_labels, torch.split(labels, sizes), strict=True)]


def row_losses(
    base: Base, prefix: KVPrefix, rows: Sequence[TrainingRow], upper: UpperLayers | None = None
) -> tuple[Tensor, int]:
    """The same of one adapter's rows, and how many label tokens there are."""
    [loss] = losses(base, [prefix], [rows], upper)
    return loss, sum(len(row.target) for row in rows)


def _summed(base: Base, hidden: Tensor, labels: Tensor) -> Tensor:
    """hidden: [N, H]; labels: [N]. Long answers go through the head in pieces, whose scores are made again for the
    gradient instead of being kept."""
    if len(labels) <= LABELS_AT_ONCE:
        return _loss(base, hidden, labels)
    pieces = zip(torch.split(hidden, LABELS_AT_ONCE), torch.split(labels, LABELS_AT_ONCE), strict=True)
    return torch.stack([checkpoint(_loss, base, *piece, use_reentrant=False) for piece in pieces]).sum()


def _loss(base: Base, hidden: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits(base, hidden), labels, reduction="sum")
