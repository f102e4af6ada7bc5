"""Seconds of training until the validation split is answered so well, by Preface and by PEFT with its Trainer.

    python -m benchmarks.time_to_accuracy ours:prefix ours:prefix,layers=15 peft:prefix --seeds 0 1 2

An arm is who trains, the method, and settings other than params.yaml's; of PEFT, other than 20 virtual tokens from the
task's text. The clock runs while an arm trains, the making of what it keeps included; it stands while weights are
loaded and while the split is answered, every so many steps, by the same code for both. The test split is asked once, at
the end, of the state that did best on the validation split.
Writes benchmarks/results/time-to-accuracy.json if ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import peft_side
from benchmarks.fleet import tell
from benchmarks.train import LIBRARIES, ROOT, Bench
from components.config.params import MethodName, TaskParams
from components.data.prepare import read_examples
from components.data.template import Template
from components.prefix.inference import answer, from_artifact
from components.prefix.methods import method as methods
from components.records import Split
from components.training.batches import epoch_batches
from components.training.trainer import AdapterTrainer, learning_rate, optimizer_step

RESULTS = Path(__file__).parent / "results" / "time-to-accuracy.json"
WANTED = (0.88, 0.90)
PEFTS_START = 'init="text",virtual_tokens=20,'  # what PEFT offers; an arm may say another after it
Curve = list[tuple[float, int, float]]  # seconds, steps, accuracy
Look = Callable[[float, int, torch.Tensor], None]


def settings_of(task: TaskParams, method: MethodName, text: str, seed: int) -> TaskParams:
    """The task with an arm's own settings: ``layers=15,steps=200``; the method's, or else its training's."""
    whole = task.model_dump()
    own = whole[method]
    own["training"]["seed"] = seed
    for name, value in (pair.split("=") for pair in text.split(",") if pair):
        place = own["training"] if name in own["training"] else own
        place[name] = json.loads(value)
    return task.model_validate(whole)


def asked_of(task: TaskParams, arm: str, seed: int) -> tuple[str, MethodName, TaskParams]:
    """Who trains, by which method, with which settings: ``ours:prefix,layers=15``."""
    who, _, rest = arm.partition(":")
    kind, _, own = rest.partition(",")
    method: MethodName = "prompt" if kind == "prompt" else "prefix"
    return who, method, settings_of(task, method, own if who == "ours" else PEFTS_START + own, seed)


def by_us(bench: Bench, task: TaskParams, method: MethodName, every: int, look: Look) -> None:
    settings = task.settings(method).training
    began = time.perf_counter()
    learner = AdapterTrainer.of(
        bench.base, methods.build(bench.base, task, method, bench.lessons.solved), settings, bench.rows
    )
    spent, epoch, step = time.perf_counter() - began, 0, 0
    while True:
        for batches in epoch_batches(bench.rows, settings, epoch):
            began = time.perf_counter()
            optimizer_step(bench.base, [learner], [batches], [learning_rate(step, settings)])
            spent += time.perf_counter() - began
            step += 1
            if step % every == 0 or step == settings.steps:
                look(spent, step, learner.method.folded())
            if step == settings.steps:
                return
        epoch += 1


def by_peft(bench: Bench, task: TaskParams, method: MethodName, every: int, look: Look) -> None:
    settings = task.settings(method).training
    began = time.perf_counter()
    torch.manual_seed(settings.seed)
    asked, start = task.settings(method), None
    if asked.init == "examples":  # PEFT has no such start: it is given the very numbers that ours begins from
        start = methods.build(bench.base, task, method, bench.lessons.solved).folded()
    model = peft_side.model_of(bench.base, task, method, asked.virtual_tokens, start)

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal began
            if state.global_step % every == 0 or state.global_step == settings.steps:
                spent = time.perf_counter() - began
                look(spent, state.global_step, model.prompt_encoder.default.embedding.weight.detach().float())
                began = time.perf_counter() - spent

    peft_side.trainer(bench.base, model, bench.rows, settings, settings.steps, Clock()).train()
    bench.base.model.eval()


@dataclass(frozen=True)
class Raced:
    """What one arm reached when; test: what its best state says to the test split."""

    curve: Curve
    test: float

    def first(self, wanted: float) -> float | None:
        """Seconds until so much was right for the first time; None if it never was."""
        return next((seconds for seconds, _, right in self.curve if right >= wanted), None)

    @property
    def best(self) -> float:
        return max(right for _, _, right in self.curve)


def race(arm: str, name: str, seed: int, every: int) -> Raced:
    """Train one arm to its end."""
    bench = Bench.of(name)
    who, method, task = asked_of(bench.task, arm, seed)
    examples = read_examples(ROOT / "data" / "prepared" / name)
    found: Curve = []
    best: list[torch.Tensor] = []

    def right_of(table: torch.Tensor, split: Split) -> float:
        rows = examples.of(split)
        prefix, texts = from_artifact(bench.base, method, table), [row.text for row in rows]
        said = answer(bench.base, prefix, Template.of(task), texts, task.max_new_tokens)
        return statistics.fmean(one == row.target for one, row in zip(said, rows, strict=True))

    def look(seconds: float, step: int, table: torch.Tensor) -> None:
        right = right_of(table, "validation")
        if not found or right > max(each for _, _, each in found):
            best[:] = [table.clone()]
        found.append((round(seconds, 2), step, round(right, 4)))
        print(f"{arm} seed {seed}: {seconds:.1f} s, step {step}, {right:.4f}", file=sys.stderr, flush=True)

    (by_us if who == "ours" else by_peft)(bench, task, method, every, look)
    return Raced(found, round(right_of(best[0], "test"), 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--task", default="movie-sentiment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    raced: dict[str, list[Raced]] = {arm: [] for arm in given.arms}
    for seed in given.seeds:
        for arm in given.arms:
            raced[arm].append(race(arm, given.task, seed, given.every))
    found: dict[str, dict[str, Any]] = {}
    for arm, seeds in raced.items():
        found[arm] = {f"seconds to {wanted}": [each.first(wanted) for each in seeds] for wanted in WANTED}
        found[arm] |= {"best": [each.best for each in seeds], "test": [each.test for each in seeds]}
        if given.keep:
            found[arm]["curves"] = [each.curve for each in seeds]
    whole = {"task": given.task, "split": "validation", "seeds": given.seeds, "arms": found}
    if given.keep:
        tell(whole, RESULTS, LIBRARIES)
    else:
        print(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
