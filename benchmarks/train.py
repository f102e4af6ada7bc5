"""Steps of training by Preface and by PEFT on the same batches, in turn, and what each exact saving brings.

    python -m benchmarks.train --rounds 12      writes benchmarks/results/train.json; `preface prepare` comes first

The least work is reckoned from the very batches. N: parameters of the base without its embeddings; VH: those of its
head. A frozen model costs 4 FLOPs a parameter and token, forward and backward, attention aside. PEFT runs padded rows
whole, for prompt tuning with the soft prompt in each, and the head at every place of them; what cannot be avoided is
the real tokens, the soft prompt once, and the head at labels. The ratio of the two bounds what can be gained exactly.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import peft_side, without
from benchmarks.fleet import tell
from components.base import base_model
from components.base.base_model import Base
from components.config import params
from components.config.params import MethodName, TaskParams
from components.data.prepare import read_examples
from components.evaluation.peak_memory import PeakMemory
from components.prefix.methods import method as methods
from components.training.batches import TrainingRow, epoch_batches
from components.training.trainer import AdapterTrainer, optimizer_step
from components.training.training_data import TrainingData

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "train.json"
ARMS: tuple[tuple[MethodName, int], ...] = (("prompt", 20), ("prompt", 100), ("prefix", 20))
LIBRARIES = ("torch", "transformers", "peft", "accelerate")
Step = Callable[[Sequence[TrainingRow]], None]


@dataclass(frozen=True)
class Bench:
    """A task on its base, and the training rows of it. folder: where the base lies."""

    name: str
    folder: Path
    base: Base
    task: TaskParams
    lessons: TrainingData

    @classmethod
    def of(cls, name: str, batch_size: int | None = None) -> Bench:
        """The task with the default settings and so many rows a step; without a number, as params.yaml has it."""
        declared = params.load(ROOT / "params.yaml")
        task = declared.task(name)
        folder = base_model.find(base_model.bases_folder(ROOT), declared.bases[task.base].hash, task.base)
        if folder is None:
            sys.exit(f"the base {task.base} is not here: `preface prepare {name}`")
        base = base_model.load(folder, declared.bases[task.base].hash)
        examples = read_examples(ROOT / "data" / "prepared" / name)
        if batch_size:
            own = {"training": {"batch_size": batch_size}}
            task = task.model_validate(task.model_dump() | {"prompt": own, "prefix": own})
        return cls(name, folder, base, task, TrainingData.of(base, task, examples))

    @property
    def rows(self) -> Sequence[TrainingRow]:
        return self.lessons.rows

    def with_tokens(self, virtual_tokens: int) -> TaskParams:
        """The task with so many virtual tokens, whichever the method."""
        whole = self.task.model_dump()
        for method in ("prompt", "prefix"):
            whole[method]["virtual_tokens"] = virtual_tokens
        return self.task.model_validate(whole)

    def batches(self, method: MethodName) -> list[list[TrainingRow]]:
        """Those of an epoch, as the project forms them."""
        settings = self.task.settings(method).training
        return [batch for step in epoch_batches(self.rows, settings, 0) for batch in step]


def ours(bench: Bench, method: MethodName, virtual_tokens: int) -> Step:
    task = bench.with_tokens(virtual_tokens)
    settings = task.settings(method).training
    learner = AdapterTrainer.of(
        bench.base, methods.build(bench.base, task, method, bench.lessons.solved), settings, bench.rows
    )

    def step(rows: Sequence[TrainingRow]) -> None:
        optimizer_step(bench.base, [learner], [[rows]], [settings.learning_rate])

    return step


def theirs(bench: Bench, method: MethodName, virtual_tokens: int) -> Step:
    task = bench.with_tokens(virtual_tokens)
    model = peft_side.model_of(bench.base, task, method, virtual_tokens)
    return peft_side.bare_loop(bench.base, model, task.settings(method).training)


# --- what cannot be avoided -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """body: N; head: VH."""

    body: int
    head: int

    @classmethod
    def of(cls, base: Base) -> Sizes:
        model: Any = base.model
        head = model.get_output_embeddings().weight
        tables = {id(head), id(model.get_input_embeddings().weight)}
        return cls(sum(each.numel() for each in model.parameters() if id(each) not in tables), head.numel())

    def least(self, rows: Sequence[TrainingRow], method: MethodName, virtual_tokens: int) -> int:
        """FLOPs of a step: each real token once, the soft prompt once, the head at labels."""
        tokens = sum(len(row.ids) for row in rows) + (virtual_tokens if method == "prompt" else 0)
        return 4 * self.body * tokens + 4 * self.head * sum(len(row.target) for row in rows)

    def peft(self, rows: Sequence[TrainingRow], method: MethodName, virtual_tokens: int) -> int:
        """FLOPs of PEFT's step on the same rows."""
        width = max(len(row.text) + len(row.target) for row in rows)
        width += virtual_tokens if method == "prompt" else 0
        return 4 * (self.body + self.head) * len(rows) * width


def product_rate(base: Base, tokens: int) -> float:
    """FLOPs a second of the base's own matrix products, each of so many tokens: what the machine can do at best."""
    flops, seconds = 0, 0.0
    linears = [each for each in base.model.base_model.modules() if isinstance(each, torch.nn.Linear)]
    with torch.no_grad():
        for layer in linears:
            given = torch.randn(tokens, layer.in_features).to(base.device, base.dtype)
            layer(given)
            began = time.perf_counter()
            layer(given)
            seconds += time.perf_counter() - began
            flops += 2 * tokens * layer.in_features * layer.out_features
    return flops / seconds


# --- measuring --------------------------------------------------------------------------------------------------------


def in_turn(sides: dict[str, Step], batches: Sequence[Sequence[TrainingRow]]) -> dict[str, list[float]]:
    """Seconds of each side on each batch; who begins goes round. The first batch warms up and does not count."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for number, rows in enumerate(batches):
        names = list(sides)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            sides[name](rows)
            took[name].append(time.perf_counter() - began)
    return {name: seconds[1:] for name, seconds in took.items()}


def ratio(more: Sequence[float], less: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(more, less, strict=True))


def against_peft(bench: Bench, method: MethodName, virtual_tokens: int, rounds: int) -> dict[str, Any]:
    """Ratios on the same bucketed batches, beside what the batches allow."""
    sizes, batches = Sizes.of(bench.base), bench.batches(method)[: rounds + 1]
    sides = {"ours": ours(bench, method, virtual_tokens), "peft": theirs(bench, method, virtual_tokens)}
    took = in_turn(sides, batches)
    least = [sizes.least(rows, method, virtual_tokens) for rows in batches[1:]]
    bound = [sizes.peft(rows, method, virtual_tokens) / flops for rows, flops in zip(batches[1:], least, strict=True)]
    gained = [b / a for a, b in zip(took["ours"], took["peft"], strict=True)]
    tokens = round(statistics.median(sum(len(row.ids) for row in rows) for rows in batches))
    rate = statistics.median(product_rate(bench.base, tokens) for _ in range(5))
    reached = statistics.median(flops / seconds for flops, seconds in zip(least, took["ours"], strict=True))
    return {
        "seconds a step, median": {name: round(statistics.median(seconds), 4) for name, seconds in took.items()},
        "faster than PEFT": round(statistics.median(gained), 3),
        "bound": round(statistics.median(bound), 3),
        "share of the bound": round(statistics.median(a / b for a, b in zip(gained, bound, strict=True)), 3),
        "GFLOP/s": {"least work over our time": round(reached / 1e9), "the base's products alone": round(rate / 1e9)},
        "share of the products' rate": round(reached / rate, 3),
    }


def savings(bench: Bench, method: MethodName, virtual_tokens: int, rounds: int) -> dict[str, float]:
    """How much longer a step takes with each saving switched off, one at a time."""
    batches = bench.batches(method)[: rounds + 1]
    step = ours(bench, method, virtual_tokens)
    sides: dict[str, Step] = {"whole": step}
    for name, switch in without.SWITCHES.items():
        if name != without.SHARED or method == "prompt":
            sides[name] = without.switched_off(switch, step)
    took = in_turn(sides, batches)
    said = {name: round(ratio(seconds, took["whole"]), 3) for name, seconds in took.items() if name != "whole"}
    return said | {"rows of like length together": round(padding(bench, method, step, rounds), 3)}


def padding(bench: Bench, method: MethodName, step: Step, rounds: int) -> float:
    """The same rows in batches at random, over batches of like length: their whole times."""
    batches = bench.batches(method)[:rounds]
    rows, size = [row for batch in batches for row in batch], len(batches[0])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    mixed = [[rows[i] for i in order[at : at + size]] for at in range(0, len(rows), size)]
    took = {"like": 0.0, "mixed": 0.0}
    for pair in zip(batches, mixed, strict=True):
        for name, batch in zip(took, pair, strict=True):
            began = time.perf_counter()
            step(batch)
            took[name] += time.perf_counter() - began
    return took["mixed"] / took["like"]


def against_trainer(bench: Bench, method: MethodName, virtual_tokens: int, rounds: int) -> dict[str, Any]:
    """Rows a second of whole loops, a few steps of each in turn; each pays its own batches and its own padding."""
    task, steps = bench.with_tokens(virtual_tokens), 12
    settings = task.settings(method).training
    step = ours(bench, method, virtual_tokens)
    model = peft_side.model_of(bench.base, task, method, virtual_tokens)
    endless = itertools.cycle(bench.batches(method))
    gained = []
    for turn in range(rounds):
        generator = torch.Generator().manual_seed(turn)
        rows = [bench.rows[i] for i in torch.randperm(len(bench.rows), generator=generator).tolist()]
        began = time.perf_counter()
        for _ in range(steps):
            step(next(endless))
        middle = time.perf_counter()
        trainer = peft_side.trainer(bench.base, model, rows, settings, steps)
        made = time.perf_counter()
        trainer.train()
        gained.append((time.perf_counter() - made) / (middle - began))
    bench.base.model.eval()  # the Trainer leaves it in training mode
    return {"steps": steps, "faster than PEFT + Trainer": round(statistics.median(gained), 3)}


def peak(task: str, side: str, method: MethodName, virtual_tokens: int, batch_size: int) -> int:
    """Bytes above the loaded base that three steps took, in a process of their own."""
    asked = ["--task", task, "--batch-size", str(batch_size), "--peak", side, method, str(virtual_tokens)]
    command = [sys.executable, "-m", "benchmarks.train", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def tell_peak(bench: Bench, side: str, method: MethodName, virtual_tokens: int) -> None:
    batches = sorted(bench.batches(method), key=lambda rows: -max(len(row.ids) for row in rows))[:3]
    step = (ours if side == "ours" else theirs)(bench, method, virtual_tokens)
    memory = PeakMemory(bench.base.device)
    for rows in batches:
        step(rows)
    print(memory.above())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="movie-sentiment")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--arm", action="append", help="METHOD:VIRTUAL_TOKENS, one piece of it; prints and keeps nothing"
    )
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    bench = Bench.of(given.task, given.batch_size)
    if given.peak:
        side, method, tokens = given.peak
        tell_peak(bench, side, method, int(tokens))
        return
    arms: dict[str, Any] = {}
    for method, tokens in _arms(given.arm):
        found = against_peft(bench, method, tokens, given.rounds)
        found["longer without"] = savings(bench, method, tokens, given.rounds)
        found |= against_trainer(bench, method, tokens, 3)
        above = {side: peak(bench.name, side, method, tokens, given.batch_size) for side in ("ours", "peft")}
        found["peak above the base, MiB"] = {side: round(value / 2**20) for side, value in above.items()}
        found["peak, share of PEFT's"] = round(above["ours"] / above["peft"], 3)
        arms[f"{method}, {tokens} virtual tokens"] = found
        print(json.dumps({method: found}, indent=1), file=sys.stderr, flush=True)
    if given.arm:
        return
    said = {"task": given.task, "rounds": given.rounds, "rows a step": given.batch_size, "dtype": str(bench.base.dtype)}
    tell(said | {"arms": arms}, RESULTS, LIBRARIES)


def _arms(asked: Sequence[str] | None) -> list[tuple[MethodName, int]]:
    if not asked:
        return list(ARMS)
    split = (arm.split(":") for arm in asked)
    return [("prompt" if method == "prompt" else "prefix", int(tokens)) for method, tokens in split]


if __name__ == "__main__":
    main()
