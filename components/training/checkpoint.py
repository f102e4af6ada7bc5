"""Where a training stands, and the one file it can go on from: safetensors with JSON in its header, no pickle.

Knows nothing of models and data; the order of batches follows from the step, so no generator's state is kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.config.params import TrainingParams
from components.errors import TrainingError
from components.io import atomic
from components.prefix.methods.method import Method


@dataclass
class Progress:
    """A run's counters and its best state so far.

    stale: evaluations without improvement. seconds: of the training, in this process and in those before it.
    """

    step: int = 0
    tokens: int = 0
    stale: int = 0
    first_loss: float = math.inf
    best_loss: float = math.inf
    best_step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    best_state: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def fresh(cls) -> Progress:
        """Before the first step."""
        return cls()

    def judge(self, loss: float, method: Method) -> None:
        """Take a validation loss in; keep a copy of the state if it is the best."""
        if self.step == 0:
            self.first_loss = loss
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.stale = loss, self.step, 0
            self.best_state = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
        else:
            self.stale += 1


def save_checkpoint(
    file: Path, progress: Progress, method: Method, optimizer: torch.optim.Optimizer, settings: TrainingParams
) -> None:
    """Replace the checkpoint in one rename: a reader sees the old one or the new one, whole.

    Raises:
        TrainingError: the disk would not take it; the last checkpoint stands.
    """
    tensors = {f"now.{name}": tensor.detach().contiguous() for name, tensor in method.state_dict().items()}
    tensors |= {f"best.{name}": tensor.contiguous() for name, tensor in progress.best_state.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    counters = {name: value for name, value in asdict(progress).items() if name != "best_state"}
    header = {"progress": json.dumps(counters), "settings": settings.model_dump_json()}
    try:
        with atomic.whole_file(file) as part:
            save_file(tensors, part, metadata=header)
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"{file} could not be written at step {progress.step} ({error}); make room there and run the same command "
            "again: it goes on from the last checkpoint"
        ) from error


def load_checkpoint(file: Path, method: Method, optimizer: torch.optim.Optimizer, settings: TrainingParams) -> Progress:
    """Put method and optimizer where the checkpoint stood.

    Raises:
        TrainingError: the file is damaged or belongs to other settings; the remedy is to delete it.
    """
    remedy = f"delete {file} to train from the start"
    try:
        with safe_open(file, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
        if header["settings"] != settings.model_dump_json():
            raise TrainingError(
                f"the checkpoint was made with {header['settings']}, not {settings.model_dump_json()}; {remedy}"
            )
        progress = Progress(**json.loads(header["progress"]), best_state=_part(tensors, "best."))
        method.load_state_dict(_part(tensors, "now."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise TrainingError(f"the checkpoint cannot be read ({error}); {remedy}") from error
    return progress


def _part(tensors: dict[str, Tensor], start: str) -> dict[str, Any]:
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
