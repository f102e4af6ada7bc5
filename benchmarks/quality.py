"""What adapters score on held-out test rows: Preface's, PEFT's of the same method, and full fine-tuning, over seeds.

    python -m benchmarks.quality --tasks movie-sentiment news-topic --seeds 0 1 2

An arm is who trains, the method, and settings other than params.yaml's: ``ours:prefix``, ``peft:prefix``, ``full``.
PEFT begins from the task's text by its own functions and trains by transformers' Trainer, with our learning rate, steps
and rows a step. On both sides the state with the best validation loss is asked the test rows, once. To choose settings
by there are ``--split beyond``, rows that the training split's limit left out, and ``--split validation``. What is
found is kept in benchmarks/results/quality.json as it comes, and what is there is not trained again; two processes with
other seeds may fill it together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from benchmarks.fleet import tell
from benchmarks.time_to_accuracy import by_peft, settings_of
from benchmarks.train import LIBRARIES, RESULTS, ROOT, Bench
from components import comparison
from components.adapter_training import train_adapter
from components.data import Examples, prepare, read_examples
from components.evaluation import Scored, leading_metric, mean_interval, score
from components.inference import answer, from_artifact
from components.params import MethodName, TaskParams
from components.records import Split
from components.report import wording
from components.training import mean_loss

KEPT = RESULTS.with_name("quality.json")
BEYOND = 3000  # so many other rows, whose standard error is half a point where nine of ten are right
ARMS = ("ours:prompt", "peft:prompt", "ours:prefix", "peft:prefix", "full")
Found = dict[str, Any]


def learned(bench: Bench, arm: str, seed: int, examples: Examples, split: Split = "test") -> Found:
    """What one arm scores, and the score of each row of the split."""
    who, _, rest = arm.partition(":")
    if who == "full":
        task = settings_of(bench.task, "prefix", "", seed)
        made = comparison.trained(bench.base, bench.folder, "full", task, examples, split)
        return _told(task, made.scored, None, made.validation_loss or 0.0)
    kind, _, own = rest.partition(",")
    method: MethodName = "prompt" if kind == "prompt" else "prefix"
    task = settings_of(bench.task, method, own, seed)
    if who == "ours":
        trained = train_adapter(bench.base, bench.name, task, method, examples)
        best, loss, table = trained.best_step, trained.best_loss, trained.table
    else:
        best, loss, table = _by_peft(bench, task, method)
    test = examples.of(split)
    prefix = from_artifact(bench.base, method, table)
    said = answer(bench.base, prefix, wording(task), [row.text for row in test], task.max_new_tokens)
    labels = list(task.data.labels) if task.data.labels else None
    return _told(task, score(said, [row.target for row in test], labels), best, loss)


def _by_peft(bench: Bench, task: TaskParams, method: MethodName) -> tuple[int, float, torch.Tensor]:
    """The best state's step, validation loss and table."""
    seen: list[tuple[float, int, torch.Tensor]] = []

    @torch.no_grad()
    def look(_: float, step: int, table: torch.Tensor) -> None:
        loss = mean_loss(bench.base, from_artifact(bench.base, method, table), bench.lessons.validation)
        seen.append((loss, step, table.clone()))

    by_peft(bench, task, method, task.settings(method).training.evaluate_every, look)
    loss, step, table = min(seen, key=lambda each: each[0])
    return step, loss, table


def _told(task: TaskParams, scored: Scored, step: int | None, loss: float) -> Found:
    name = leading_metric(task.data.labels)
    return {
        "metric": name, "score": round(scored.metrics[name], 4), "best step": step, "validation loss": round(loss, 4),
        "rows": " ".join(f"{value:.4g}" for value in scored.rows),
    }  # fmt: skip


def gathered(file: Path, said: Found, wanted: Sequence[Found], make: Callable[[Found], Found]) -> list[Found]:
    """What is wanted with what is made of it; kept as it comes, so that an interrupted benchmark goes on."""
    for each in wanted:
        if not any(each.items() <= one.items() for one in kept(file)):
            made = each | make(each)
            print(json.dumps({name: value for name, value in made.items() if name != "rows"}), file=sys.stderr)
            with FileLock(f"{tempfile.gettempdir()}/{file.name}.lock"):
                tell(said | {"found": [*kept(file), made]}, file, LIBRARIES)
    return kept(file)


def kept(file: Path) -> list[Found]:
    found: list[Found] = json.loads(file.read_text())["found"] if file.exists() else []
    return found


def beyond(bench: Bench, examples: Examples) -> Examples:
    """The examples with other test rows: the first of the training split that its limit left out."""
    whole = bench.task.model_dump()
    whole["data"]["limit"] = {}
    with tempfile.TemporaryDirectory() as room:
        raw, words, context = (
            ROOT / "data" / "raw" / bench.name,
            bench.folder / "tokenizer.json",
            bench.base.shape.context,
        )
        prepare(bench.name, bench.task.model_validate(whole), raw, words, context, Path(room))
        train = read_examples(Path(room)).of("train")
    known = {row.id for split in examples.splits.values() for row in split}
    others = [row for row in train if row.id not in known][:BEYOND]
    if not others:
        sys.exit(f"{bench.name} has no training rows beyond those that it trains on; take --split validation")
    return Examples({**examples.splits, "test": others}, examples.content_hash)


def ahead(ours: Sequence[Found], others: Sequence[Found]) -> str:
    """Mean difference of the row scores over all seeds, and its 95 % interval over the rows of the split."""
    sides = [np.mean([np.array(one["rows"].split(), float) for one in side], axis=0) for side in (ours, others)]
    difference = sides[0] - sides[1]
    low, high = mean_interval(difference)
    return f"{difference.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def table(found: Sequence[Found]) -> str:
    """A line a task and arm, in Markdown; each arm of ours beside PEFT's and full fine-tuning."""
    head = "| task | arm | scores | mean | validation loss, mean | ahead of PEFT's | ahead of full |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for task in dict.fromkeys(one["task"] for one in found):
        by_arm: dict[str, list[Found]] = {}
        for one in found:
            if one["task"] == task:
                by_arm.setdefault(one["arm"], []).append(one)
        for arm, own in by_arm.items():
            scores, mine = ", ".join(f"{one['score']:g}" for one in own), arm.startswith("ours:")
            beside = [by_arm.get(arm.replace("ours:", "peft:")), by_arm.get("full")]
            leads = [ahead(own, other) if mine and other else "" for other in beside]
            mean, loss = (statistics.fmean(one[name] for one in own) for name in ("score", "validation loss"))
            lines.append(f"| {task} | {arm} | {scores} | {mean:.4g} | {loss:.4f} | {leads[0]} | {leads[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["movie-sentiment", "news-topic", "paper-outcome"])
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=["test", "validation", "beyond"], default="test")
    given = parser.parse_args()
    asked = {"split": given.split}
    wanted = [asked | {"task": t, "arm": a, "seed": s} for t in given.tasks for s in given.seeds for a in given.arms]

    def make(one: Found) -> Found:
        bench = Bench.of(one["task"])  # anew for each arm: PEFT puts modules of its own into the model
        examples = read_examples(ROOT / "data" / "prepared" / one["task"])
        if given.split == "beyond":
            return learned(bench, one["arm"], one["seed"], beyond(bench, examples))
        return learned(bench, one["arm"], one["seed"], examples, given.split)

    found = gathered(KEPT, {}, wanted, make)
    print(table([one for one in found if one["split"] == given.split]))


if __name__ == "__main__":
    main()
