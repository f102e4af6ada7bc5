"""Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): many settings begin, the better half goes on.

Every rung doubles the share of the steps that a trial takes, so that each rung costs the same, and only one trial is
trained to its end. Trials train side by side in one batch. What counts is the loss on the validation split; no other
split is read. Knows nothing of MLflow and Prefect.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.config.sweep_params import choices
from components.data.prepare import Examples
from components.errors import TrainingError
from components.prefix.methods.method import build
from components.training.loop import Observe, Run, advance
from components.training.training_data import TrainingData


@dataclass(frozen=True)
class Trial:
    """Settings to be tried; ``choice`` names those that are not the task's own, by dotted name."""

    number: int
    method: MethodName
    choice: Mapping[str, Any]

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.choice.items())
        return f"trial {self.number}: {self.method}, {said}"


@dataclass(frozen=True)
class Tried:
    """How far a trial came: steps taken, best validation loss, and why it stopped short if it diverged."""

    trial: Trial
    steps: int
    loss: float
    fault: str = ""


def trials_of(task: TaskParams, methods: Sequence[MethodName]) -> list[Trial]:
    """What a sweep of the task tries: the spaces of the methods, in turn, until there are as many as it may try.

    Raises:
        TrainingError: there is no space for those methods, or less than two trials in it.
    """
    spaces = {method: space for method, space in task.sweep.spaces.items() if method in methods} if task.sweep else {}
    if task.sweep is None or not spaces:
        raise TrainingError(
            f"there is no sweep for {' or '.join(methods)} tuning in params.yaml; write one, as in "
            "`sweep: {prefix: {training: {learning_rate: {low: 0.002, high: 0.02}}}}`"
        )
    drawn = {method: choices(space, task.sweep.trials, task.sweep.seed) for method, space in spaces.items()}
    longest = max(len(some) for some in drawn.values())
    turns = [(method, some[at]) for at in range(longest) for method, some in drawn.items() if at < len(some)]
    if len(turns) < 2:
        raise TrainingError(f"the sweep's space for {' or '.join(spaces)} tuning holds one choice; name another")
    return [Trial(number, *turn) for number, turn in enumerate(turns[: task.sweep.trials], start=1)]


def sweep(
    base: Base,
    task: TaskParams,
    trials: Sequence[Trial],
    examples: Examples,
    folder: Path,
    observe: Callable[[Trial], Observe] | None = None,
) -> list[Tried]:
    """Try the settings; the best comes first, then the others by how far they came.

    Args:
        folder: keeps every trial's checkpoint and which trials went on, so that a sweep that was killed goes on.

    Raises:
        TrainingError: every trial diverged.
    """
    halvings = math.ceil(math.log2(len(trials)))
    bench = _Bench(base, task, TrainingData.of(base, task, examples), folder, observe, {})
    decided, going = _read(folder), list(trials)
    best: list[Tried] = []
    ended: list[Tried] = []
    for rung in range(halvings + 1):
        if str(rung) not in decided:
            title = f"rung {rung + 1} of {halvings + 1}, {len(going)} trials"
            decided[str(rung)] = bench.bring(going, 0.5 ** (halvings - rung), title)
            _write(folder, decided)
        tried = sorted((Tried(trial, **decided[str(rung)][str(trial.number)]) for trial in going), key=_rank)
        best = [each for each in tried if not each.fault][: math.ceil(len(going) / 2) if rung < halvings else 1]
        if not best:
            raise TrainingError(f"every trial of the sweep diverged; the first said: {tried[0].fault}")
        ended = [each for each in tried if each not in best] + ended
        going = [each.trial for each in best]
    return [*best, *ended]


@dataclass(frozen=True)
class _Bench:
    """Trials in training; ``runs`` holds those of the last rung."""

    base: Base
    task: TaskParams
    lessons: TrainingData
    folder: Path
    observe: Callable[[Trial], Observe] | None
    runs: dict[int, Run]

    def bring(self, trials: Sequence[Trial], share: float, title: str) -> dict[str, dict[str, Any]]:
        """Train them to a share of their steps, so many at once, and say where each stands."""
        side_by_side = self.task.sweep.at_once if self.task.sweep else len(trials)
        going = {trial.number: self.runs.get(trial.number) or self._begun(trial) for trial in trials}
        self.runs.clear()  # what the others hold is let go
        self.runs.update(going)
        runs = list(going.values())
        for at in range(0, len(runs), side_by_side):
            advance(self.base, runs[at : at + side_by_side], title, share)
        return {str(number): self._standing(run) for number, run in going.items()}

    def _begun(self, trial: Trial) -> Run:
        chosen, lessons = self.task.with_settings(trial.method, trial.choice), self.lessons
        settings, seen = chosen.settings(trial.method).training, self.observe(trial) if self.observe else None
        method = build(self.base, chosen, trial.method, lessons.solved)
        file = self.folder / f"trial-{trial.number}.safetensors"
        return Run.begin(self.base, method, lessons, settings, file, seen, title=str(trial))

    def _standing(self, run: Run) -> dict[str, Any]:
        """Trials of other settings are evaluated at other steps; at the end of a rung all of them are."""
        best, steps = run.progress.best_loss, run.progress.step
        if run.fault:
            return {"steps": steps, "loss": best, "fault": run.fault}
        run.save()
        loss = run.validation_loss(self.base)
        fault = "" if math.isfinite(loss) else f"validation loss {loss:g} at step {steps}: not finite"
        return {"steps": steps, "loss": best if fault else min(best, loss), "fault": fault}


def _rank(tried: Tried) -> tuple[bool, float, int]:
    return bool(tried.fault), tried.loss, tried.trial.number


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """What the rungs of a sweep that was killed came to."""
    file = folder / "rungs.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def _write(folder: Path, decided: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".rungs.json.{os.getpid()}"
    part.write_text(json.dumps(decided), encoding="utf-8")
    part.replace(folder / "rungs.json")
