"""How well each method does by how many rows it may learn from, on the held-out test rows; a table and a picture.

    python -m benchmarks.few_examples --rows 32 100 500 2000 --seeds 0 1 2

Rows are the first so many of the training split in an order that follows from the seed, labels in turn; settings are
those of params.yaml, frozen beforehand, and the validation split alone says when to stop. Each adapter is asked the
test rows once, at its end. Results are kept as they come: what is there is not trained again.
Writes benchmarks/results/few-examples.json and docs/few-examples.png.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.fleet import tell
from benchmarks.time_to_accuracy import settings_of
from benchmarks.train import LIBRARIES, RESULTS, ROOT, Bench
from components.adapter_training import train_adapter
from components.data import Example, Examples, read_examples
from components.inference import answer, from_artifact
from components.methods.text import in_turns
from components.params import MethodName
from components.report import wording

KEPT, PICTURE = RESULTS.with_name("few-examples.json"), ROOT / "docs" / "few-examples.png"


def some(rows: Sequence[Example], count: int, seed: int, labelled: bool) -> list[Example]:
    """So many rows, drawn by the seed, of each label as many as of the others."""
    mixed = list(rows)
    random.Random(seed).shuffle(mixed)
    by_pair = {(row.text, row.target): row for row in mixed}
    return [by_pair[pair] for pair in in_turns(mixed, labelled)[:count]]


def learned(bench: Bench, name: str, arm: str, count: int, seed: int) -> dict[str, Any]:
    """The test accuracy of one adapter."""
    kind, _, own = arm.partition(",")
    method: MethodName = "prompt" if kind == "prompt" else "prefix"
    task = settings_of(bench.task, method, own, seed)
    examples = read_examples(ROOT / "data" / "prepared" / name)
    few = some(examples.of("train"), count, seed, task.data.labels is not None)
    trained = train_adapter(
        bench.base, name, task, method, Examples({**examples.splits, "train": few}, examples.content_hash)
    )
    test = examples.of("test")
    prefix = from_artifact(bench.base, method, trained.table)
    said = answer(bench.base, prefix, wording(task), [row.text for row in test], task.max_new_tokens)
    right = statistics.fmean(one == row.target for one, row in zip(said, test, strict=True))
    return {
        "arm": arm, "rows": count, "seed": seed, "accuracy": round(right, 4), "best step": trained.best_step,
        "steps": trained.steps, "seconds": round(trained.seconds, 1),
    }  # fmt: skip


def draw(found: Sequence[dict[str, Any]], untrained: dict[str, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in found:
        curves[each["arm"]][each["rows"]].append(each["accuracy"])
    for arm, points in curves.items():
        counts = sorted(points)
        middle = [statistics.fmean(points[count]) for count in counts]
        ends = [[m - min(points[c]) for c, m in zip(counts, middle, strict=True)],
                [max(points[c]) - m for c, m in zip(counts, middle, strict=True)]]  # fmt: skip
        axes.errorbar(counts, middle, yerr=ends, marker="o", capsize=3, label=arm)
    for name, value in untrained.items():
        axes.axhline(value, linestyle=":", color="grey")
        axes.annotate(name, (32, value), textcoords="offset points", xytext=(2, 3), fontsize=8, color="grey")
    axes.set_xscale("log")
    axes.set_xticks(sorted({each["rows"] for each in found}), [str(c) for c in sorted({e["rows"] for e in found})])
    axes.minorticks_off()
    axes.set_xlabel("training rows")
    axes.set_ylabel("accuracy on the test split")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="movie-sentiment")
    parser.add_argument("--arms", nargs="+", default=["prompt", "prefix"])
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 100, 500, 2000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draw", nargs="*", default=[], metavar="NAME=ACCURACY", help="lines of what is not trained")
    given = parser.parse_args()
    found = json.loads(KEPT.read_text())["found"] if KEPT.exists() else []
    bench = Bench.of(given.task, 8)
    wanted = [(arm, count, seed) for seed in given.seeds for count in given.rows for arm in given.arms]
    for arm, count, seed in wanted:
        if not any((each["arm"], each["rows"], each["seed"]) == (arm, count, seed) for each in found):
            found.append(learned(bench, given.task, arm, count, seed))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
            tell({"task": given.task, "split": "test", "dtype": str(bench.base.dtype), "found": found}, KEPT, LIBRARIES)
    lines = (line.split("=") for line in given.draw)
    draw(found, {name: float(value) for name, value in lines})


if __name__ == "__main__":
    main()
