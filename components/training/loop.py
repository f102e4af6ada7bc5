"""The loop: steps, evaluations, the best state, stopping in time; of one adapter, or of several side by side.

Early stopping on the validation split keeps the best state; an interrupted run goes on from its checkpoint to the same
adapter. The loop knows nothing of Prefect and MLflow: whoever wants its figures passes ``observe``. What a step is:
``trainer.py``.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from components.base.base_model import Base
from components.config.params import TrainingParams
from components.errors import Diverged, TrainingError
from components.prefix.decoder import KEPT_PER_READ, by_length
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import Method
from components.training.batches import TrainingRow, epoch_batches
from components.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from components.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from components.training.losses import row_losses
from components.training.speedups.upper_layers import UpperLayers
from components.training.trainer import AdapterTrainer, Stepped, learning_rate, optimizer_step, recall
from components.training.training_data import TrainingData

VALIDATION_TOKENS = 4096
# A run has diverged when its recent training loss is above twice the loss it began with, plus one nat.
RECENT_STEPS = 20

log = logging.getLogger("preface.training")
Observe = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class Trained:
    """The best state of a run. table: [P, H] or [P, L*2*Hkv*D], float32, on the CPU.

    seconds: of the loop; of a step that several adapters took together, each one's share. starts: where it was trained
    from more than one start, the best validation loss of each; this is the one that did best.
    """

    table: Tensor
    steps: int
    best_step: int
    first_loss: float
    best_loss: float
    seconds: float
    tokens: int
    starts: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """One adapter on its way. ``fault`` says why it goes no further, if it diverged; empty otherwise."""

    title: str
    learner: AdapterTrainer
    validation: Sequence[TrainingRow]
    batches: Iterator[list[list[TrainingRow]]]
    progress: Progress
    checkpoint: Path | None = None
    observe: Observe | None = None
    crew: ProcessGroup = SINGLE_PROCESS
    fault: str = ""

    @classmethod
    def begin(
        cls,
        base: Base,
        method: Method,
        lessons: TrainingData,
        settings: TrainingParams,
        checkpoint: Path | None = None,
        observe: Observe | None = None,
        title: str = "training",
        crew: ProcessGroup = SINGLE_PROCESS,
    ) -> Run:
        """Before its first step, or where its checkpoint stood.

        Args:
            lessons: every epoch visits each training row once, in an order that follows from the seed.
            checkpoint: a file written at every evaluation and read, if it exists, at the start.
            observe: called with (figures, step) after every step and every evaluation.
            crew: the processes that train it together; each is given all rows.

        Raises:
            Diverged: the loss before training is not finite.
            TrainingError: no rows, too long rows, or a checkpoint of another run.
        """
        rows, validation = lessons.rows, lessons.validation
        if not rows or not validation:
            raise TrainingError(f"{len(rows)} training and {len(validation)} validation rows; each needs at least one")
        check_rows(base, [*rows, *validation], method.virtual_tokens)
        began = time.monotonic()
        learner, progress = AdapterTrainer.of(base, method, settings, [*rows, *validation]), Progress.fresh()
        if checkpoint is not None and checkpoint.exists():
            progress = load_checkpoint(checkpoint, method, learner.optimizer, settings)
            log.info("%s: going on from step %d of %d", title, progress.step, settings.steps)
            recall(base, learner, epoch_batches(rows, settings, epoch=0)[: progress.step], crew)
        batches = _steps(rows, settings, skip=progress.step)
        run = cls(title, learner, validation, batches, progress, checkpoint, observe, crew)
        if progress.step == 0:
            run.judge(base)
        progress.seconds += time.monotonic() - began
        if run.fault:
            raise Diverged(run.fault)
        return run

    @property
    def settings(self) -> TrainingParams:
        return self.learner.settings

    def goal(self, share: float) -> int:
        """So many steps are that share of all."""
        return math.ceil(share * self.settings.steps)

    def over(self, share: float = 1.0) -> bool:
        """Whether it takes no further step, or none of that share of its steps."""
        stopped = self.fault or self.progress.stale >= self.settings.patience
        return bool(stopped) or self.progress.step >= self.goal(share)

    def take(self, base: Base, stepped: Stepped, rate: float, seconds: float) -> bool:
        """Take in what a step came to, and judge the state where it is time to: whether it is to be saved."""
        began, progress, settings = time.monotonic(), self.progress, self.settings
        progress.seconds += seconds
        progress.step += 1
        progress.tokens += stepped.tokens
        progress.losses = [*progress.losses, stepped.loss][-RECENT_STEPS:]
        self.fault = _divergence(progress, stepped.norm, settings)
        if self.fault:
            return False
        if self.observe:
            speed = stepped.tokens / max(seconds, 1e-9)
            self.observe({"train_loss": stepped.loss, "learning_rate": rate, "tokens_per_second": speed}, progress.step)
        if progress.step % settings.evaluate_every and progress.step != settings.steps:
            return False
        self.judge(base)
        progress.seconds += time.monotonic() - began
        return not self.fault

    @torch.no_grad()
    def validation_loss(self, base: Base) -> float:
        """Mean over the label tokens of the validation rows, of the state as it is."""
        return mean_loss(base, self.learner.method.prefix(base), self.validation, self.learner.upper, self.crew)

    def judge(self, base: Base) -> None:
        """Keep the state if it is the best so far on the validation rows."""
        mean = self.validation_loss(base)
        if not math.isfinite(mean):
            self.fault = f"validation loss {mean:g} at step {self.progress.step}: not finite. Nothing was registered"
            return
        self.progress.judge(mean, self.learner.method)
        if self.progress.losses and not sys.stderr.isatty():  # on a terminal the bar tells it
            log.info("%s: step %d of %d, loss %.3f, validation loss %.3f (best %.3f)", self.title, self.progress.step,
                     self.settings.steps, self.progress.losses[-1], mean, self.progress.best_loss)  # fmt: skip
        if self.observe:
            self.observe({"validation_loss": mean}, self.progress.step)

    def save(self) -> None:
        """Write the checkpoint, if there is to be one."""
        if self.checkpoint is not None and self.crew.first:
            save_checkpoint(self.checkpoint, self.progress, self.learner.method, self.learner.optimizer, self.settings)

    def trained(self) -> Trained:
        """The best state so far."""
        self.learner.method.load_state_dict(self.progress.best_state)
        return Trained(
            table=self.learner.method.folded().contiguous(),
            steps=self.progress.step,
            best_step=self.progress.best_step,
            first_loss=self.progress.first_loss,
            best_loss=self.progress.best_loss,
            seconds=self.progress.seconds,
            tokens=self.progress.tokens,
        )


def train(
    base: Base,
    method: Method,
    lessons: TrainingData,
    settings: TrainingParams,
    checkpoint: Path | None = None,
    observe: Observe | None = None,
    title: str = "training",
    crew: ProcessGroup = SINGLE_PROCESS,
) -> Trained:
    """Train a method's parameters; what the arguments are is said at ``Run.begin``.

    Raises:
        Diverged: a loss or gradient is not finite, or the loss grew far above where it began.
        TrainingError: no rows, too long rows, or a checkpoint of another run.
    """
    run = Run.begin(base, method, lessons, settings, checkpoint, observe, title, crew)
    advance(base, [run], title)
    if run.fault:
        raise Diverged(run.fault)
    if run.progress.step < settings.steps:
        log.info("%s: stopped at step %d, no better for %d evaluations", title, run.progress.step, settings.patience)
    return run.trained()


def advance(base: Base, runs: Sequence[Run], title: str, share: float = 1.0) -> None:
    """Bring the runs, side by side, to that share of their steps. One that diverges leaves the others alone."""
    initial = sum(run.progress.step for run in runs)
    total = max(initial, sum(run.goal(share) for run in runs))
    with tqdm(total=total, initial=initial, desc=title, unit="step", disable=None) as bar:
        while going := [run for run in runs if not run.over(share)]:
            began = time.monotonic()
            rates = [learning_rate(run.progress.step, run.settings) for run in going]
            batches = [next(run.batches) for run in going]
            stepped = optimizer_step(base, [run.learner for run in going], batches, rates, going[0].crew)
            seconds = (time.monotonic() - began) / len(going)
            each = zip(going, stepped, rates, strict=True)
            due = [run.take(base, step, rate, seconds) for run, step, rate in each]
            for run in compress(going, due):  # once all are judged: those that go on together stand at one step
                run.save()
            bar.update(len(going))
            bar.set_postfix(loss=f"{stepped[0].loss:.3f}", validation=f"{going[0].progress.best_loss:.3f}")


def mean_loss(
    base: Base,
    prefix: KVPrefix,
    rows: Sequence[TrainingRow],
    upper: UpperLayers | None = None,
    crew: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Mean over the label tokens of all rows behind a prefix; of a crew, each process reads its share."""
    total, count, kept = 0.0, 0, prefix.length // KEPT_PER_READ
    for batch in crew.share(by_length([len(row.ids) + kept for row in rows], VALIDATION_TOKENS)):
        loss, labels = row_losses(base, prefix, [rows[i] for i in batch], upper)
        total, count = total + loss.item(), count + labels
    if crew.size > 1:
        total, count = crew.added_up(torch.tensor([total, count], device=base.device)).tolist()
    return total / count


def check_rows(base: Base, rows: Sequence[TrainingRow], virtual_tokens: int) -> None:
    """Refuse what would pass the context before any work.

    Raises:
        TrainingError: naming the longest row and the context.
    """
    longest = max(rows, key=lambda row: len(row.ids))
    needed = virtual_tokens + len(longest.ids)
    if needed > base.shape.context:
        raise TrainingError(
            f"{virtual_tokens} virtual tokens, a text of {len(longest.text)} tokens and its answer of "
            f"{len(longest.target)}, the last of which is not read, are {needed} positions; the base has "
            f"{base.shape.context}: lower data.max_tokens or virtual_tokens, or take rows with long answers out"
        )


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


def _divergence(progress: Progress, norm: float, settings: TrainingParams) -> str:
    """Why a run is to go no further; empty where it may."""
    loss = progress.losses[-1]
    if not math.isfinite(loss) or not math.isfinite(norm):
        return (
            f"loss {loss:g} with gradient norm {norm:g}: not finite; lower training.learning_rate "
            f"({settings.learning_rate:g}) or look for broken rows. Nothing was registered"
        )
    recent, bound = sum(progress.losses) / len(progress.losses), 2 * progress.first_loss + 1
    if len(progress.losses) == RECENT_STEPS and recent > bound:
        return (
            f"the mean loss of the last {RECENT_STEPS} steps is {recent:.3f}, above {bound:.3f} (twice the "
            f"validation loss before training, plus 1), at step {progress.step}; lower training.learning_rate. "
            "Nothing was registered"
        )
    return ""
