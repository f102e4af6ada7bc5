"""What adapters score on held-out test rows: Preface's, PEFT's of the same method, and full fine-tuning, over seeds.

    python -m benchmarks.quality --tasks movie-sentiment news-topic --seeds 0 1 2

An arm is who trains, the method, and settings other than params.yaml's: ``ours:prefix``, ``peft:prefix``, ``full``.
PEFT's 20 virtual tokens begin from the task's text by its own functions, and it trains by transformers' Trainer, with
our learning rate, steps and rows a step. On both sides the state with the best validation loss is asked the rows of a
split, once: of ``--split test``, or, to choose settings by, of ``validation`` and of ``beyond``, rows that the training
split's limit left out. Several splits may be named; the table is of the first. What is found is kept in
benchmarks/results/quality.json as it comes, and what is there by the same fingerprint (rows, settings, recipe) is not
trained again; two processes may fill it together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock

from benchmarks.fleet import tell
from benchmarks.time_to_accuracy import asked_of, by_peft
from benchmarks.train import LIBRARIES, RESULTS, ROOT, Bench
from components.config import params
from components.config.params import MethodName, TaskParams
from components.data.prepare import Example, Examples, prepare, read_examples
from components.data.template import Template
from components.evaluation import arms
from components.evaluation.metrics import Scored, leading_metric, mean_interval, score
from components.prefix.inference import answer, from_artifact
from components.provenance.fingerprint import fingerprint
from components.records import Split
from components.training.adapter_training import train_adapter
from components.training.loop import mean_loss

KEPT = RESULTS.with_name("quality.json")
BEYOND = 3000  # so many other rows, whose standard error is half a point where nine of ten are right
ARMS = ("ours:prompt", "peft:prompt", "ours:prefix", "peft:prefix", "full")
Found = dict[str, Any]
Asked = Split | Literal["beyond"]


def learned(bench: Bench, arm: str, seed: int, examples: Examples, splits: Sequence[Asked] = ("test",)) -> list[Found]:
    """What one arm scores on each split, and the score of each row."""
    who, method, task = asked_of(bench.task, arm, seed)
    if who == "full":
        found = []
        for split in splits:  # trained anew for each: what is compared answers one
            others = Examples({**examples.splits, "test": asked(bench, examples, split)}, examples.content_hash)
            made = arms.trained(bench.base, bench.folder, "full", task, others)
            found.append(_told(task, made.scored, None, made.validation_loss or 0.0))
        return found
    if who == "ours":
        trained = train_adapter(bench.base, bench.name, task, method, examples)
        best, loss, table = trained.best_step, trained.best_loss, trained.table
    else:
        best, loss, table = _by_peft(bench, task, method)
    prefix, labels = from_artifact(bench.base, method, table), list(task.data.labels) if task.data.labels else None
    found = []
    for split in splits:
        rows = asked(bench, examples, split)
        said = answer(bench.base, prefix, Template.of(task), [row.text for row in rows], task.max_new_tokens)
        found.append(_told(task, score(said, [row.target for row in rows], labels), best, loss))
    return found


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


def gathered(
    file: Path, said: Found, wanted: Sequence[Sequence[Found]], make: Callable[[Sequence[Found]], Sequence[Found]]
) -> list[Found]:
    """What is wanted with what is made of it; kept as it comes, so that an interrupted benchmark goes on.

    Args:
        wanted: what one training makes, for each training; what of it is there already is not made again, and takes
            the place of what was there by another fingerprint.
    """
    for each in wanted:
        missing = [one for one in each if not any(one.items() <= old.items() for old in kept(file))]
        if missing:
            made = [one | new for one, new in zip(missing, make(missing), strict=True)]
            for one in made:
                print(json.dumps({name: value for name, value in one.items() if name != "rows"}), file=sys.stderr)
            with FileLock(f"{tempfile.gettempdir()}/{file.name}.lock"):
                others = [old for old in kept(file) if not any(_replaces(one, old) for one in missing)]
                tell(said | {"found": [*others, *made]}, file, LIBRARIES)
    return [old for old in kept(file) if any(one.items() <= old.items() for each in wanted for one in each)]


def _replaces(one: Found, old: Found) -> bool:
    return all(old.get(name) == value for name, value in one.items() if name != "fingerprint")


def known_by(task: TaskParams, base_hash: str, data_hash: str, arm: str, seed: int) -> str:
    """The first digits of the fingerprint of what an arm is trained from."""
    _, method, asked = asked_of(task, arm, seed)
    return fingerprint(asked, method, base_hash, data_hash)[:12]


def kept(file: Path) -> list[Found]:
    found: list[Found] = json.loads(file.read_text())["found"] if file.exists() else []
    return found


def asked(bench: Bench, examples: Examples, split: Asked) -> Sequence[Example]:
    """The rows of a split of the examples, or of ``beyond``: the first of those that the training limit left out."""
    if split != "beyond":
        return examples.of(split)
    whole = bench.task.model_dump()
    whole["data"]["limit"] = {}
    raw, words, context = ROOT / "data" / "raw" / bench.name, bench.folder / "tokenizer.json", bench.base.shape.context
    with tempfile.TemporaryDirectory() as room:
        prepare(bench.name, bench.task.model_validate(whole), raw, words, context, Path(room))
        train = read_examples(Path(room)).of("train")
    known = {row.id for rows in examples.splits.values() for row in rows}
    others = [row for row in train if row.id not in known][:BEYOND]
    if not others:
        sys.exit(f"{bench.name} has no training rows beyond those that it trains on; take --split validation")
    return others


def ahead(ours: Sequence[Found], others: Sequence[Found]) -> str:
    """Mean difference of the row scores over the seeds that both sides have, and its 95 % interval over the rows."""
    both = {one["seed"] for one in ours} & {one["seed"] for one in others}
    if not both:
        return ""
    sides = [
        np.mean([np.array(one["rows"].split(), float) for one in side if one["seed"] in both], axis=0)
        for side in (ours, others)
    ]
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
            scores, (who, _, rest) = ", ".join(f"{one['score']:g}" for one in own), arm.partition(":")
            beside = [by_arm.get(f"peft:{rest.partition(',')[0]}"), by_arm.get("full")]
            leads = [ahead(own, other or []) if who == "ours" else "" for other in beside]
            mean, loss = (statistics.fmean(one[name] for one in own) for name in ("score", "validation loss"))
            lines.append(f"| {task} | {arm} | {scores} | {mean:.4g} | {loss:.4f} | {leads[0]} | {leads[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["movie-sentiment", "news-topic", "paper-outcome"])
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", nargs="+", choices=["test", "validation", "beyond"], default=["test"])
    given = parser.parse_args()
    declared = params.load(ROOT / "params.yaml")
    wanted = []
    for name in given.tasks:
        task, data = declared.task(name), read_examples(ROOT / "data" / "prepared" / name).content_hash
        for seed, arm in product(given.seeds, given.arms):
            known = known_by(task, declared.bases[task.base].hash, data, arm, seed)
            one = {"task": name, "arm": arm, "seed": seed, "fingerprint": known}
            wanted.append([one | {"split": split} for split in given.split])

    def make(missing: Sequence[Found]) -> list[Found]:
        one, splits = missing[0], [each["split"] for each in missing]
        bench = Bench.of(one["task"])  # anew for each arm: PEFT puts modules of its own into the model
        return learned(bench, one["arm"], one["seed"], read_examples(ROOT / "data" / "prepared" / one["task"]), splits)

    found = gathered(KEPT, {}, wanted, make)
    print(table([one for one in found if one["split"] == given.split[0]]))


if __name__ == "__main__":
    main()
