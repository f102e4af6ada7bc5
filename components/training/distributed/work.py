"""One of the processes that train an adapter together.

    accelerate launch --module components.training.distributed.work FOLDER

What it is to do, and where it leaves what it made: ``launch.py``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from components.base import base_model
from components.errors import Diverged, PrefaceError
from components.training.adapter_training import train_rows
from components.training.batches import TrainingRow
from components.training.distributed.launch import FIGURES, MADE, SAID, START, WORK, Work
from components.training.distributed.process_group import ProcessGroup
from components.training.training_data import TrainingData


def main(folder: Path) -> None:
    work = Work.model_validate_json((folder / WORK).read_text(encoding="utf-8"))
    crew = ProcessGroup.joined(work.cpu)
    if crew.size != work.task.settings(work.method).training.processes:
        sys.exit(f"this is one of {crew.size} processes, not of {work.task.settings(work.method).training.processes}")
    base = base_model.load(work.folder, work.hash, work.name, crew.device, getattr(torch, work.dtype))
    rows, validation = (
        [TrainingRow(tuple(text), tuple(target)) for text, target in some] for some in (work.rows, work.validation)
    )
    table = load_file(folder / START)["table"] if (folder / START).exists() else None

    def tell(figures: dict[str, float], step: int) -> None:
        sys.stdout.write(FIGURES + json.dumps({"figures": figures, "step": step}) + "\n")
        sys.stdout.flush()

    given = (
        TrainingData(rows, validation, work.solved),
        table,
        work.checkpoint,
        tell if crew.first else None,
        work.title,
    )
    try:
        trained = train_rows(base, work.task, work.method, *given, crew)
    except PrefaceError as error:
        _say(folder, crew, {"fault": str(error), "diverged": isinstance(error, Diverged)})
        sys.exit(1)  # the others may wait for this one: the launcher ends them
    if crew.first:
        save_file({"table": trained.table}, folder / MADE)
        _say(folder, crew, {name: value for name, value in asdict(trained).items() if name != "table"})


def _say(folder: Path, crew: ProcessGroup, said: dict[str, object]) -> None:
    """Leave word of how it ended; of several that say so, the last stands, whole."""
    part = folder / f".{SAID}.{crew.rank}"
    part.write_text(json.dumps(said), encoding="utf-8")
    part.replace(folder / SAID)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
