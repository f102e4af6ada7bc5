"""Training rows: examples as token ids, put into batches of like length in an order that follows from the seed.

Knows nothing of models; ``collate`` only asks the base for its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.base_model import Base
from components.data import Example
from components.decoder import pad
from components.params import TrainingParams
from components.template import Template

# Batches are cut from stretches of this many batches, sorted by length inside: little padding, still a random order.
STRETCH = 8


@dataclass(frozen=True)
class TrainingRow:
    """text: ids of the filled template; target: ids of the answer, each of which carries a loss."""

    text: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """What the model reads: all but the last target token, which is only predicted."""
        return self.text + self.target[:-1]


def rows_of(base: Base, template: Template, examples: Sequence[Example]) -> list[TrainingRow]:
    """Token ids of examples."""
    end = base.tokenizer.eos_token_id
    return [
        TrainingRow(
            tuple(template.input_ids(base.words, example.text)),
            tuple(template.target_ids(base.words, example.target, eos=end)),
        )
        for example in examples
    ]


def epoch_batches(rows: Sequence[TrainingRow], settings: TrainingParams, epoch: int) -> list[list[list[TrainingRow]]]:
    """The steps of one epoch: [step][micro-batch][row]. Each row once; the last batch may be smaller.

    The order follows from (seed, epoch) alone, so that a resumed run finds its place by counting.
    """
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(len(rows), generator=generator).tolist()
    size = settings.batch_size
    batches: list[list[TrainingRow]] = []
    for start in range(0, len(order), size * STRETCH):
        stretch = sorted(order[start : start + size * STRETCH], key=lambda i: (len(rows[i].ids), i))
        batches += [[rows[i] for i in stretch[at : at + size]] for at in range(0, len(stretch), size)]
    mixed = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return [mixed[at : at + settings.accumulate] for at in range(0, len(mixed), settings.accumulate)]


def collate(rows: Sequence[TrainingRow], base: Base) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch as tensors.

    Returns:
        ids [B, T] right-padded; counts [B]; places [N], where in the flattened [B*T] states each label is predicted;
        labels [N].
    """
    ids, counts = pad([row.ids for row in rows], base)
    width = ids.shape[1]
    places = [
        number * width + len(row.text) - 1 + offset
        for number, row in enumerate(rows)
        for offset in range(len(row.target))
    ]
    labels = [token for row in rows for token in row.target]
    return ids, counts, torch.tensor(places, device=base.device), torch.tensor(labels, device=base.device)
