"""One optimizer step, of one adapter or of several side by side: batches -> losses -> adapters.

Several adapters share the forward and backward pass of the frozen base: their rows stand in one batch, each behind its
own keys and values, and no matrix product is done once an adapter. Loss, clipping, learning rate and optimizer are each
adapter's own, so that what it learns is what it would have learned alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest

import torch

from components.base.base_model import Base
from components.config.params import TrainingParams
from components.prefix.methods.method import Method, prefixes
from components.training.batches import TrainingRow
from components.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from components.training.losses import losses
from components.training.speedups.attention import plain_products
from components.training.speedups.lean_layers import lean
from components.training.speedups.recompute import recomputed
from components.training.speedups.upper_layers import UpperLayers

MicroBatches = Sequence[Sequence[TrainingRow]]


@dataclass(frozen=True)
class AdapterTrainer:
    """An adapter and what moves it. upper: what the layers that it leaves alone make of its rows, if there are any."""

    method: Method
    settings: TrainingParams
    optimizer: torch.optim.Optimizer
    upper: UpperLayers | None = None

    @classmethod
    def of(cls, base: Base, method: Method, settings: TrainingParams, rows: Sequence[TrainingRow]) -> AdapterTrainer:
        """AdamW on the method's parameters.

        Args:
            rows: all that will be read, should the method leave lower layers alone.
        """
        optimizer = torch.optim.AdamW(
            list(method.parameters()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        if not method.frozen_layers:
            return cls(method, settings, optimizer)
        with torch.no_grad():
            prefix = method.prefix(base)
        upper = UpperLayers.above(base, method.frozen_layers, prefix, [row.ids for row in rows])
        return cls(method, settings, optimizer, upper)


@dataclass(frozen=True)
class Stepped:
    """What a step of one adapter came to: mean loss over its label tokens, gradient norm, real tokens read.

    Where loss or norm are not finite the adapter was not moved.
    """

    loss: float
    norm: float
    tokens: int

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def learning_rate(step: int, settings: TrainingParams) -> float:
    """Linear warm-up over the first share of the steps, then a cosine down to zero."""
    warm = max(1, round(settings.warmup * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def optimizer_step(
    base: Base,
    learners: Sequence[AdapterTrainer],
    batches: Sequence[MicroBatches],
    rates: Sequence[float],
    crew: ProcessGroup = SINGLE_PROCESS,
) -> list[Stepped]:
    """One step of each learner on its own micro-batches, at its own learning rate; of a crew, each on its share."""
    for learner, rate in zip(learners, rates, strict=True):
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        learner.optimizer.zero_grad(set_to_none=True)
    labels = [sum(len(row.target) for batch in own for row in batch) for own in batches]
    totals = [0.0 for _ in learners]
    for numbers in _read_together(learners):
        for pieces in zip_longest(*(batches[number] for number in numbers), fillvalue=()):
            shares = [(number, crew.share(rows)) for number, rows in zip(numbers, pieces, strict=True)]
            present = [(number, rows) for number, rows in shares if rows]
            found = _backward(base, learners, present, labels)
            totals = [total + found.get(number, 0.0) for number, total in enumerate(totals)]
    if crew.size > 1:
        totals = _added_up(crew, learners, totals)
    return [
        _moved(learner, total / count, sum(len(row.ids) for batch in own for row in batch))
        for learner, total, count, own in zip(learners, totals, labels, batches, strict=True)
    ]


def recall(
    base: Base, learner: AdapterTrainer, steps: Iterable[MicroBatches], crew: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Have lower layers that are left alone read again what a run's earlier steps read, in the batches of those steps:
    the rounding of a row depends on what it is read beside."""
    for rows in (crew.share(batch) for step in steps for batch in step):
        if learner.upper is not None and rows:
            with plain_products(base, [learner.method], [rows]), lean(base):
                learner.upper.first_read([row.ids for row in rows])


def _backward(
    base: Base,
    learners: Sequence[AdapterTrainer],
    batch: Sequence[tuple[int, Sequence[TrainingRow]]],
    labels: Sequence[int],
) -> dict[int, float]:
    """Add to the gradients of the learners, each by its number, those of its rows; the loss of each."""
    if not batch:
        return {}
    asked, rows = [learners[number] for number, _ in batch], [rows for _, rows in batch]
    sparing = recomputed(base) if any(one.settings.recompute for one in asked) else nullcontext()
    with plain_products(base, [one.method for one in asked], rows), lean(base):
        made = prefixes(base, [one.method for one in asked])
        with sparing:
            found = losses(base, made, rows, asked[0].upper)
        means = [loss / labels[number] for loss, (number, _) in zip(found, batch, strict=True)]
        sum(means[1:], means[0]).backward()  # type: ignore[no-untyped-call]
    return {number: loss.item() for loss, (number, _) in zip(found, batch, strict=True)}


def _added_up(crew: ProcessGroup, learners: Sequence[AdapterTrainer], totals: Sequence[float]) -> list[float]:
    """Gradients and losses of all processes, in one exchange."""
    parameters = [parameter for learner in learners for parameter in learner.method.parameters()]
    grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    own = torch.tensor(totals, dtype=grads[0].dtype, device=grads[0].device)
    whole = crew.added_up(torch.cat([*(grad.flatten() for grad in grads), own]))
    *parts, last = torch.split(whole, [*(grad.numel() for grad in grads), len(own)])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).clone()
    return [float(loss) for loss in last.tolist()]


def _moved(learner: AdapterTrainer, loss: float, tokens: int) -> Stepped:
    norm = torch.nn.utils.clip_grad_norm_(list(learner.method.parameters()), learner.settings.clip_norm)
    stepped = Stepped(loss, norm.item(), tokens)
    if stepped.finite:
        learner.optimizer.step()
    return stepped


def _read_together(learners: Sequence[AdapterTrainer]) -> Iterator[list[int]]:
    """Numbers of the learners whose rows go through the base in one pass: those that run all layers, then each other
    by itself, since it begins from states of its own."""
    whole = [number for number, learner in enumerate(learners) if learner.upper is None]
    if whole:
        yield whole
    for number, learner in enumerate(learners):
        if learner.upper is not None:
            yield [number]
