"""Training rows: examples as token ids, put into batches of like length and mixed labels in an order by the seed.

Knows nothing of models; ``collate`` only asks the base for its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.base.base_model import Base
from components.config.params import TrainingParams
from components.data.prepare import Example
from components.data.template import Template
from components.prefix.decoder import pad

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
    """Token ids of examples.

    Raises:
        DataError: the base's tokenizer joins the template with the answers.
    """
    template.refuse_joined(base.words)
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

    Answers that many rows share, as labels are, are spread evenly: every batch holds them in about the proportions of
    all rows, so that a step is not pulled to the label that happened to be the more frequent (docs/experiments.md). In
    one stretch of L labels, one of the share p is off by 1 + p (L - 2) rows at most: rare labels come together. The
    order follows from (seed, epoch) alone, so that a resumed run finds its place by counting.
    """
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    size = settings.batch_size
    stretch = size * STRETCH
    shared = len({row.target for row in rows}) <= stretch
    order = _spread(rows, torch.randperm(len(rows), generator=generator).tolist(), shared)
    batches: list[list[TrainingRow]] = []
    for start in range(0, len(order), stretch):
        by_length = sorted(order[start : start + stretch], key=lambda i: (len(rows[i].ids), i))
        alike = _spread(rows, by_length, shared)
        batches += [[rows[i] for i in alike[at : at + size]] for at in range(0, len(alike), size)]
    mixed = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return [mixed[at : at + settings.accumulate] for at in range(0, len(mixed), settings.accumulate)]


def _spread(rows: Sequence[TrainingRow], order: Sequence[int], shared: bool) -> list[int]:
    """The same numbers of rows; those of each answer in the order that they had, evenly among those of the others.

    Where two fall on the same place the one that stood first stays first: answers of one row each keep their order.
    """
    if not shared:
        return list(order)
    groups: dict[tuple[int, ...], list[int]] = {}
    for number in order:
        groups.setdefault(rows[number].target, []).append(number)
    places = {
        number: (rank + 0.5) / len(groups[answer]) for answer in groups for rank, number in enumerate(groups[answer])
    }
    return sorted(order, key=places.__getitem__)


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
