"""The arms of a comparison, each trained and asked alone: what it costs, what it leaves behind, what it answers.

Every trained arm has the same rows, as many steps of as many rows, and the same rule to stop, which are those of prefix
tuning; what is chosen is chosen on the validation split, and the test rows are answered once. Knows nothing of tables
and pictures.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from components.base import base_model
from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.data.prepare import Examples
from components.data.template import Template
from components.errors import ParamsError, TrainingError, UnsupportedBase
from components.evaluation import baselines
from components.evaluation.inside_methods import InsideName, change
from components.evaluation.metrics import Scored, mean_interval, score
from components.evaluation.peak_memory import PeakMemory
from components.prefix.inference import answer
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import Method, build
from components.records import Record, Split
from components.training.loop import Observe, train
from components.training.training_data import TrainingData

LATENCY_ROWS = 24
# Of a training's settings; the rest are a method's own.
BUDGET = ("steps", "batch_size", "accumulate", "evaluate_every", "patience", "seed", "recompute")


@dataclass(frozen=True)
class Arm:
    """where: in the base the change sits. method: whose settings it has; inside: what else it is. choice: settings of
    its own, by dotted name."""

    where: str
    method: MethodName | None = None
    inside: InsideName | None = None
    choice: Mapping[str, Any] | None = None


def _rate(value: float) -> dict[str, Any]:
    return {"training.learning_rate": value, "training.recompute": False}


# The rates of what is not ours are those that its papers and peft's examples use for models of this size.
TRAINED: dict[str, Arm] = {
    "prompt": Arm("vectors in front of the input", "prompt"),
    "prefix": Arm("keys and values in front of every layer", "prefix"),
    "upper_prefix": Arm("keys and values in front of the upper half of the layers", "prefix"),
    "lora": Arm("beside matrices in every layer", "prefix", "lora", _rate(1e-3)),
    "ia3": Arm("factors on keys, values and feed-forward", "prefix", "ia3", _rate(1e-2)),
    "bottleneck": Arm("a small network behind every feed-forward", "prefix", "bottleneck", _rate(1e-3)),
    "full": Arm("every weight", "prefix", "full", _rate(3e-5)),
}
UNTRAINED: dict[str, str] = {
    "majority": "no base at all",
    "linear": "no base at all",
    "hard_prompt": "text in front",
    "in_context": "text in front",
}


class Compared(Record):
    """One arm. trained: numbers that were learned, and their share of the base's; stored: bytes that a task needs, None
    where nobody writes them down.

    seconds: of training; peak: bytes above what was there when it began, None where nobody tells; latency: of one
    answer, over that of the base with nothing in front; interval: 95 % of the leading metric's row scores.
    """

    arm: str
    where: str
    trained: int
    share: float
    stored: int | None
    seconds: float
    peak: int | None
    base_unchanged: bool
    steps: int
    validation_loss: float | None
    latency: float | None
    scored: Scored
    interval: tuple[float, float]
    choice: str = ""


class Failed(Record):
    """An arm that this base or these rows cannot have, and why."""

    arm: str
    where: str
    fault: str


def arms_of(task: TaskParams) -> list[str]:
    """Names of the arms that this task can have, from the cheapest on."""
    return [*task.measured_baselines, *TRAINED]


def untrained(base: Base, task: TaskParams, examples: Examples) -> list[Compared]:
    """The arms that train nothing: what the gate's baselines are."""
    template, rows = Template.of(task), examples.of("test")
    train_rows, validation, texts = examples.of("train"), examples.of("validation"), [row.text for row in rows]
    found = baselines.run(base, task, template, train_rows, validation, texts)
    asked = [*texts, *(example.text for example in validation)]
    fronts = baselines.hard_prompts(base, task) | dict(baselines.in_context(base, task, template, train_rows, asked))
    compared = []
    for name, given in found.items():
        front = fronts.get(given.choice)
        latency = _latency(base, front, base, task, texts) if front else None
        stored = len(given.choice.encode()) if name == "hard_prompt" else None  # the others' choice is a remark
        compared.append(
            Compared(
                arm=name, where=UNTRAINED[name], trained=0, share=0.0, stored=stored, seconds=0.0,
                peak=None, base_unchanged=True, steps=0, validation_loss=None, latency=latency, choice=given.choice,
                **_scores(task, given.predictions, [row.target for row in rows]),
            )
        )  # fmt: skip
    return compared


def tried(
    bare: Base, folder: Path, name: str, task: TaskParams, examples: Examples, observe: Observe | None = None
) -> Compared | Failed:
    """One arm as ``trained`` gives it; where it cannot be, that is what the comparison has to tell of it."""
    try:
        return trained(bare, folder, name, task, examples, observe=observe)
    except (TrainingError, UnsupportedBase, ParamsError) as error:
        return Failed(arm=name, where=TRAINED[name].where, fault=" ".join(str(error).split()))


def trained(
    bare: Base,
    folder: Path,
    name: str,
    task: TaskParams,
    examples: Examples,
    split: Split = "test",
    observe: Observe | None = None,
) -> Compared:
    """Train one arm and ask it the rows of a split.

    Args:
        bare: the base, which stays as it is; ``folder`` is where it was loaded from.
        observe: gets every step's figures; what it raises stops the training.

    Raises:
        TrainingError, UnsupportedBase, ParamsError: this base or these rows cannot have it.
    """
    arm = TRAINED[name]
    base, asked, autocast = bare, _settings(bare, name, task), _no_autocast
    if arm.inside:
        full = arm.inside == "full"
        dtype = torch.float32 if full else bare.dtype
        base = base_model.load(folder, bare.hash.value, bare.name, bare.device.type, dtype)
        if full and bare.dtype != torch.float32:
            autocast = _autocast(bare)
    original = list(base.model.parameters())
    before, memory = _digest(original), PeakMemory(base.device)
    settings, lessons = asked.settings(asked.method).training, TrainingData.of(base, task, examples)
    method: Method = (
        change(base, arm.inside, settings.seed) if arm.inside else build(base, asked, asked.method, lessons.solved)
    )
    began = time.monotonic()
    with autocast():
        done = train(base, method, lessons, settings, observe=observe, title=name)
    seconds, peak = time.monotonic() - began, memory.above()
    unchanged = _digest(original) == before
    numbers = sum(parameter.numel() for parameter in method.parameters())
    stored = _stored(bare, arm, method, done.table)
    if arm.inside == "full":
        served: Any = base.model
        base = replace(base, model=served.to(bare.dtype), dtype=bare.dtype)  # as it would be
    with torch.no_grad():
        prefix = KVPrefix.none(base) if arm.inside else method.prefix(base)
    asked_rows = examples.of(split)
    texts = [row.text for row in asked_rows]
    said = answer(base, prefix, Template.of(task), texts, task.max_new_tokens)
    return Compared(
        arm=name, where=arm.where, trained=numbers, share=numbers / sum(p.numel() for p in original), stored=stored,
        seconds=seconds, peak=peak, base_unchanged=unchanged, steps=done.steps, validation_loss=done.best_loss,
        latency=_latency(base, prefix, bare, task, texts), **_scores(task, said, [row.target for row in asked_rows]),
        choice=f"learning rate {settings.learning_rate:g}",
    )  # fmt: skip


def _settings(base: Base, name: str, task: TaskParams) -> TaskParams:
    arm = TRAINED[name]
    choice = dict(arm.choice or {})
    if name == "prompt":
        choice |= {f"training.{each}": getattr(task.prefix.training, each) for each in BUDGET}
    if name in ("prefix", "upper_prefix"):
        choice["layers"] = (base.shape.layers // 2 or 1) if name == "upper_prefix" else None
    if name == "upper_prefix" and task.prefix.init == "random":
        choice["init"] = "text"  # what is not trained must say something
    return task.with_settings(arm.method or "prefix", choice)


def _no_autocast() -> AbstractContextManager[Any]:
    return nullcontext()


def _autocast(bare: Base) -> Callable[[], AbstractContextManager[Any]]:
    """Float32 weights, products in the base's dtype. Nothing is kept between products: the weights move."""
    return lambda: torch.autocast(bare.device.type, bare.dtype, cache_enabled=False)


def _stored(bare: Base, arm: Arm, method: Method, table: torch.Tensor) -> int:
    """Bytes a task: a prefix in PEFT's layout, an adapter in float32, or the whole model in the base's dtype."""
    if arm.inside == "full":
        return sum(p.numel() for p in method.parameters()) * bare.dtype.itemsize
    if arm.inside:
        return sum(p.numel() * p.element_size() for p in method.parameters())
    return table.numel() * table.element_size()


def _digest(parameters: Sequence[Parameter]) -> str:
    """Of all bytes of the base's own weights, wherever modules around them were put."""
    found = hashlib.sha256()
    for parameter in parameters:
        found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _latency(base: Base, prefix: KVPrefix, bare: Base, task: TaskParams, texts: Sequence[str]) -> float:
    """Median of what one answer takes, over what it takes without; asked in turn, a row at a time."""
    template, sides = Template.of(task), ((base, prefix), (bare, KVPrefix.none(bare)))
    ratios = []
    for text in texts[:LATENCY_ROWS]:
        marks = [time.perf_counter()]
        for model, front in sides:
            answer(model, front, template, [text], task.max_new_tokens)
            marks.append(time.perf_counter())
        own, without = (end - begin for begin, end in pairwise(marks))
        ratios.append(own / without)
    return statistics.median(ratios)


def _scores(task: TaskParams, said: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    scored = score(said, targets, list(task.data.labels) if task.data.labels else None)
    return {"scored": scored, "interval": mean_interval(scored.rows)}
