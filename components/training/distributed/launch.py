"""Starts the processes that train one adapter together, follows them, and brings back what they made.

They are started by `accelerate launch`; what they are to do lies in a folder, and so does what comes of it. The first
of them tells its figures line by line, which go to ``observe`` here; where that raises, all are stopped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from safetensors.torch import load_file, save_file

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.errors import Diverged, TrainingError, sanitized
from components.records import Record
from components.tied import tied

if TYPE_CHECKING:
    from torch import Tensor

    from components.training.loop import Observe, Trained
    from components.training.training_data import TrainingData

FIGURES, WORK, START = "figures ", "work.json", "start.safetensors"
MADE, SAID = "made.safetensors", "made.json"
LAST_LINES = 20
CORE_SHARED_BY = 8  # processes at most: an adapter of two can be made again where there is one core


class Work(Record):
    """What the processes train. rows, validation: (text ids, target ids) of each row; solved: texts and targets."""

    folder: Path
    hash: str
    name: str
    cpu: bool
    dtype: str
    task: TaskParams
    method: MethodName
    title: str
    checkpoint: Path | None
    rows: list[tuple[list[int], list[int]]]
    validation: list[tuple[list[int], list[int]]]
    solved: list[tuple[str, str]]


def train_together(
    base: Base,
    task: TaskParams,
    method: MethodName,
    lessons: TrainingData,
    table: Tensor | None,
    checkpoint: Path | None,
    observe: Observe | None,
    title: str,
) -> Trained:
    """Train by as many processes as the method's settings say.

    Raises:
        Diverged: as ``components/training/loop.py`` does.
        TrainingError: there are not so many devices, or a process failed; the message ends with what it said last.
    """
    from components.training.loop import Trained

    count, cpu = task.settings(method).training.processes, base.device.type == "cpu"
    devices = os.cpu_count() or 1 if cpu else torch.cuda.device_count()
    if count > (most := devices * (CORE_SHARED_BY if cpu else 1)):
        raise TrainingError(
            f"{method}.training.processes is {count}, and this machine has {devices} {'cores' if cpu else 'GPUs'};"
            f" lower it to at most {most}"
        )
    work = Work(
        folder=base.folder, hash=base.hash.value, name=base.name, cpu=cpu,
        dtype=str(base.dtype).removeprefix("torch."), task=task, method=method, title=title, checkpoint=checkpoint,
        rows=[(list(row.text), list(row.target)) for row in lessons.rows],
        validation=[(list(row.text), list(row.target)) for row in lessons.validation], solved=list(lessons.solved),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="crew-") as room:
        folder = Path(room)
        (folder / WORK).write_text(work.model_dump_json(), encoding="utf-8")
        if table is not None:
            save_file({"table": table}, folder / START)
        code, last = _run(folder, count, work.cpu, observe)
        made = json.loads((folder / SAID).read_text(encoding="utf-8")) if (folder / SAID).exists() else {}
        if "fault" in made:
            raise (Diverged if made["diverged"] else TrainingError)(made["fault"])
        if code or not made:
            raise TrainingError(f"training by {count} processes ended with {code}: {sanitized(' | '.join(last))}")
        return Trained(table=load_file(folder / MADE)["table"], **made)


def _run(folder: Path, count: int, cpu: bool, observe: Observe | None) -> tuple[int, list[str]]:
    """Start them, pass on what the first tells, and wait until all have ended; how that was, and the last lines."""
    threads = max(1, torch.get_num_threads() // count) if cpu else 1  # of what this process was given
    # --multi_gpu is torch's launcher, for processors too: with --cpu accelerate starts one process, whatever is asked.
    options = ["--multi_gpu", "--num_processes", str(count), "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "--main_process_port", str(_free_port())]  # fmt: skip
    command = [sys.executable, "-m", "accelerate.commands.launch", *options]
    process = subprocess.Popen(
        # A run that is killed takes its processes with it: accelerate's launcher ends those that it started.
        tied([*command, "--module", "components.training.distributed.work", str(folder)]),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    said: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(FIGURES):
                if observe:
                    told_figures: dict[str, Any] = json.loads(line.removeprefix(FIGURES))
                    observe(told_figures["figures"], told_figures["step"])
            else:
                said = [*said, line.rstrip()][-LAST_LINES:]
        process.wait()
    finally:
        if process.poll() is None:
            # The launcher gives each a session of its own: they are found as its children, while it has them.
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()
        process.stdout.close()
    return process.returncode, said


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
