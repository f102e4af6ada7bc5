"""The loop: batches -> loss -> adapter. AdamW in float32 on the adapter alone, the base frozen and never touched.

Early stopping on the validation split keeps the best state; an interrupted run goes on from its checkpoint to the same
adapter. The loop knows nothing of Prefect and MLflow: whoever wants its figures passes ``observe``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from components.base_model import Base
from components.batches import TrainingRow, collate, epoch_batches
from components.checkpoint import Progress, load_checkpoint, save_checkpoint
from components.decoder import KEPT_PER_READ, Decoder, by_length, logits
from components.errors import Diverged, TrainingError
from components.kv_prefix import KVPrefix, PrefixRows
from components.last_layer import narrowed
from components.methods import Method
from components.params import TrainingParams
from components.recompute import recomputed
from components.upper_layers import UpperLayers

VALIDATION_TOKENS = 4096
# A run has diverged when its recent training loss is above twice the loss it began with, plus one nat.
RECENT_STEPS = 20

log = logging.getLogger("preface.training")
Observe = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class Trained:
    """The best state of a run. table: [P, H] or [P, L*2*Hkv*D], float32, on the CPU."""

    table: Tensor
    steps: int
    best_step: int
    first_loss: float
    best_loss: float
    seconds: float
    tokens: int


def train(
    base: Base,
    method: Method,
    rows: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    settings: TrainingParams,
    checkpoint: Path | None = None,
    observe: Observe | None = None,
    title: str = "training",
) -> Trained:
    """Train a method's parameters.

    Args:
        rows: the training rows as token ids; every epoch visits each once, in an order that follows from the seed.
        validation: rows that choose the best state and when to stop.
        checkpoint: a file written at every evaluation and read, if it exists, at the start.
        observe: called with (figures, step) after every step and every evaluation.

    Raises:
        Diverged: a loss or gradient is not finite, or the loss grew far above where it began.
        TrainingError: no rows, too long rows, or a checkpoint of another run.
    """
    if not rows or not validation:
        raise TrainingError(f"{len(rows)} training and {len(validation)} validation rows; each needs at least one")
    check_rows(base, [*rows, *validation], len(method.folded()))
    began = time.monotonic()
    parameters = list(method.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    upper = upper_layers(base, method, [*rows, *validation])
    progress = Progress.fresh()
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, method, optimizer, settings)
        log.info("%s: going on from step %d of %d", title, progress.step, settings.steps)
    if progress.step == 0:
        _judge(base, method, validation, progress, observe, upper)
    batches = _steps(rows, settings, skip=progress.step)
    with tqdm(total=settings.steps, initial=progress.step, desc=title, unit="step", disable=None) as bar:
        while progress.step < settings.steps and progress.stale < settings.patience:
            step_began = time.monotonic()
            rate = learning_rate(progress.step, settings)
            loss, tokens = optimizer_step(base, method, optimizer, next(batches), rate, settings, upper)
            progress.step += 1
            progress.tokens += tokens
            progress.losses = [*progress.losses, loss][-RECENT_STEPS:]
            _refuse_divergence(progress)
            speed = tokens / max(time.monotonic() - step_began, 1e-9)
            if observe:
                observe({"train_loss": loss, "learning_rate": rate, "tokens_per_second": speed}, progress.step)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", validation=f"{progress.best_loss:.3f}")
            if progress.step % settings.evaluate_every == 0 or progress.step == settings.steps:
                current = _judge(base, method, validation, progress, observe, upper)
                if bar.disable:
                    log.info("%s: step %d of %d, loss %.3f, validation loss %.3f (best %.3f)",
                             title, progress.step, settings.steps, loss, current, progress.best_loss)  # fmt: skip
                if checkpoint is not None:
                    save_checkpoint(checkpoint, progress, method, optimizer, settings)
    if progress.step < settings.steps:
        log.info("%s: stopped at step %d, no better for %d evaluations", title, progress.step, settings.patience)
    method.load_state_dict(progress.best_state)
    return Trained(
        table=method.folded().contiguous(),
        steps=progress.step,
        best_step=progress.best_step,
        first_loss=progress.first_loss,
        best_loss=progress.best_loss,
        seconds=time.monotonic() - began,
        tokens=progress.tokens,
    )


def upper_layers(base: Base, method: Method, rows: Sequence[TrainingRow]) -> UpperLayers | None:
    """What the layers that the method leaves alone make of the rows, if there are such layers."""
    if not method.frozen_layers:
        return None
    with torch.no_grad():
        prefix = method.prefix(base)
    return UpperLayers.above(base, method.frozen_layers, prefix, [row.ids for row in rows])


def learning_rate(step: int, settings: TrainingParams) -> float:
    """Linear warm-up over the first share of the steps, then a cosine down to zero."""
    warm = max(1, round(settings.warmup * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def check_rows(base: Base, rows: Sequence[TrainingRow], virtual_tokens: int) -> None:
    """Refuse what would pass the context before any work.

    Raises:
        TrainingError: naming the longest row and the context.
    """
    longest = max((len(row.ids) + 1 for row in rows), default=0)
    if virtual_tokens + longest > base.shape.context:
        raise TrainingError(
            f"{virtual_tokens} virtual tokens and a row of {longest} tokens are {virtual_tokens + longest} positions; "
            f"the base has {base.shape.context}: lower data.max_tokens or virtual_tokens"
        )


def row_losses(
    base: Base, prefix: KVPrefix, rows: Sequence[TrainingRow], upper: UpperLayers | None = None
) -> tuple[Tensor, int]:
    """Summed negative log-likelihood of the rows' labels (a scalar), and how many label tokens there are.

    The head, the widest matrix of a small model, runs at label positions alone, and so does the last feed-forward
    network. With ``upper`` the layers below are not run at all.
    """
    ids, counts, places, labels = collate(rows, base)
    front = PrefixRows.broadcast(prefix, len(rows))
    with narrowed(base, places):
        if upper:
            hidden = upper.read(front, [row.ids for row in rows])
        else:
            hidden = Decoder.behind(base, front, once=True).read(ids, counts)
    at_labels = hidden.flatten(0, 1)[places]  # [N, H]
    return cross_entropy(logits(base, at_labels), labels, reduction="sum"), len(labels)


def _steps(rows: Sequence[TrainingRow], settings: TrainingParams, skip: int) -> Iterator[list[list[TrainingRow]]]:
    """Micro-batches of each optimizer step, epoch after epoch; the first ``skip`` steps are passed over unread."""
    epoch = 0
    while True:
        for step in epoch_batches(rows, settings, epoch):
            if skip:
                skip -= 1
                continue
            yield step
        epoch += 1


def optimizer_step(
    base: Base,
    method: Method,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Sequence[TrainingRow]],
    rate: float,
    settings: TrainingParams,
    upper: UpperLayers | None = None,
) -> tuple[float, int]:
    """One optimizer step; the mean loss over its label tokens, and the real tokens it read."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    label_tokens = sum(len(row.target) for batch in micro_batches for row in batch)
    total = 0.0
    for batch in micro_batches:
        with recomputed(base) if settings.recompute else nullcontext():
            loss, _ = row_losses(base, method.prefix(base), batch, upper)
        (loss / label_tokens).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    mean = total / label_tokens
    norm = torch.nn.utils.clip_grad_norm_(list(method.parameters()), settings.clip_norm)
    if not math.isfinite(mean) or not torch.isfinite(norm):
        raise Diverged(
            f"loss {mean:g} with gradient norm {norm.item():g}: not finite; lower training.learning_rate "
            f"({settings.learning_rate:g}) or look for broken rows. Nothing was registered"
        )
    optimizer.step()
    return mean, sum(len(row.ids) for batch in micro_batches for row in batch)


@torch.no_grad()
def _judge(
    base: Base,
    method: Method,
    validation: Sequence[TrainingRow],
    progress: Progress,
    observe: Observe | None,
    upper: UpperLayers | None,
) -> float:
    """Validation loss; keeps the state if it is the best so far."""
    prefix = method.prefix(base)
    total, count = 0.0, 0
    kept = prefix.length // KEPT_PER_READ
    for batch in by_length([len(row.ids) + kept for row in validation], VALIDATION_TOKENS):
        loss, labels = row_losses(base, prefix, [validation[i] for i in batch], upper)
        total, count = total + loss.item(), count + labels
    mean = total / count
    if not math.isfinite(mean):
        raise Diverged(f"validation loss {mean:g} at step {progress.step}: not finite. Nothing was registered")
    progress.judge(mean, method)
    if observe:
        observe({"validation_loss": mean}, progress.step)
    return mean


def _refuse_divergence(progress: Progress) -> None:
    recent, bound = sum(progress.losses) / len(progress.losses), 2 * progress.first_loss + 1
    if len(progress.losses) == RECENT_STEPS and recent > bound:
        raise Diverged(
            f"the mean loss of the last {RECENT_STEPS} steps is {recent:.3f}, above {bound:.3f} (twice the "
            f"validation loss before training, plus 1), at step {progress.step}; lower training.learning_rate. "
            "Nothing was registered"
        )
