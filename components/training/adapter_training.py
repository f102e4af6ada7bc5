"""One task's adapter out of its prepared rows: its wording, its method and its settings put into the loop.

The flow that retrains and the command that reproduces both train by this. Knows nothing of registries and folders.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.data.prepare import Examples
from components.errors import Diverged
from components.prefix.methods.method import build
from components.training.distributed.launch import train_together
from components.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from components.training.loop import Observe, Run, Trained, advance, train
from components.training.training_data import TrainingData

COLD, WARM = "cold", "warm"


def train_adapter(
    base: Base,
    name: str,
    task: TaskParams,
    method: MethodName,
    examples: Examples,
    checkpoint: Path | None = None,
    observe: Observe | None = None,
    table: Tensor | None = None,
) -> Trained:
    """Train the task's adapter; the same base, rows and settings on the same machine give the same bits.

    Args:
        name: the task's, for the progress bar.
        checkpoint, observe: as ``components/training/loop.py`` takes them.
        table: an adapter of the same shape to go on from. Training anew goes on beside it, since a start that was good
            for other rows may be worse; the better on the validation rows is taken.
    """
    lessons = TrainingData.of(base, task, examples)
    train_them = train_together if task.settings(method).training.processes > 1 else train_rows
    return train_them(base, task, method, lessons, table, checkpoint, observe, f"{name} {method}")


def train_rows(
    base: Base,
    task: TaskParams,
    method: MethodName,
    lessons: TrainingData,
    table: Tensor | None,
    checkpoint: Path | None,
    observe: Observe | None,
    title: str,
    crew: ProcessGroup = SINGLE_PROCESS,
) -> Trained:
    """The same from its lessons; by this process, or by this one among those of a crew."""
    settings = task.settings(method).training
    if table is None:
        made = build(base, task, method, lessons.solved)
        return train(base, made, lessons, settings, checkpoint, observe, title, crew)
    runs = {}
    for start, begun in ((COLD, None), (WARM, table)):
        file = checkpoint.with_stem(f"{checkpoint.stem}-{start}") if checkpoint else None
        seen = _named(start, observe) if observe else None
        made = build(base, task, method, lessons.solved, begun)
        runs[start] = Run.begin(base, made, lessons, settings, file, seen, f"{title}, {start}", crew)
    advance(base, list(runs.values()), title)
    sound = {start: run for start, run in runs.items() if not run.fault}
    if not sound:
        raise Diverged(runs[COLD].fault)
    losses = {start: run.progress.best_loss for start, run in sound.items()}
    best = min(losses, key=losses.__getitem__)
    return replace(runs[best].trained(), starts=losses, seconds=sum(run.progress.seconds for run in runs.values()))


def _named(start: str, observe: Observe) -> Observe:
    """Figures under the name of the start that they are of; those of the cold one as they always were."""
    if start == COLD:
        return observe
    return lambda figures, step: observe({f"{start}_{name}": value for name, value in figures.items()}, step)
