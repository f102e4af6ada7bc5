"""One task's adapter out of its prepared rows: its wording, its method and its settings put into the loop.

The flow that retrains and the command that reproduces both train by this. Knows nothing of registries and folders.
"""

from __future__ import annotations

from pathlib import Path

from components.base_model import Base
from components.batches import rows_of
from components.data import Examples
from components.methods import build
from components.params import MethodName, TaskParams
from components.report import wording
from components.training import Observe, Trained, train


def train_adapter(
    base: Base,
    name: str,
    task: TaskParams,
    method: MethodName,
    examples: Examples,
    checkpoint: Path | None = None,
    observe: Observe | None = None,
) -> Trained:
    """Train the task's adapter; the same base, rows and settings on the same machine give the same bits.

    Args:
        name: the task's, for the progress bar.
        checkpoint, observe: as ``components/training.py`` takes them.
    """
    template, settings = wording(task), task.settings(method).training
    rows, validation = (rows_of(base, template, examples.of(split)) for split in ("train", "validation"))
    start = build(base, task, method)
    return train(base, start, rows, validation, settings, checkpoint, observe, title=f"{name} {method}")
