"""What an adapter learns from: a task's prepared rows in its own wording, as token ids. Knows nothing of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.base.base_model import Base
from components.config.params import TaskParams
from components.data.prepare import Examples
from components.data.template import Template
from components.prefix.methods.text import in_turns
from components.training.batches import TrainingRow, rows_of


@dataclass(frozen=True)
class TrainingData:
    """rows: what is trained on. validation: what chooses the best state and when to stop. solved: texts and targets of
    training rows, of each label in turn, that a method may begin from."""

    rows: Sequence[TrainingRow]
    validation: Sequence[TrainingRow]
    solved: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, base: Base, task: TaskParams, examples: Examples) -> TrainingData:
        """Of the train and validation splits; no other is read."""
        template, train = Template.of(task), examples.of("train")
        rows, validation = (rows_of(base, template, examples.of(split)) for split in ("train", "validation"))
        return cls(rows, validation, in_turns(train, task.data.labels is not None))
