"""How well each method does by how many rows it may learn from, on the held-out test rows; a table and a picture.

    python -m benchmarks.few_examples --rows 32 100 500 --seeds 0 1 2

Rows are the first so many of the training split in an order that follows from the seed, labels in turn; settings are
those of params.yaml, frozen beforehand, and the validation split alone says when to stop. Each adapter is asked the
test rows once, at its end. Results are kept as they come: what is there by the same fingerprint is not trained again.
What all rows come to is taken from ``benchmarks.quality``.
Writes benchmarks/results/few-examples.json and docs/few-examples.png.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import product

from benchmarks import quality
from benchmarks.quality import Found, gathered, known_by, learned
from benchmarks.train import RESULTS, ROOT, Bench
from components.data.prepare import Example, Examples, read_examples
from components.evaluation.metrics import leading_metric
from components.prefix.methods.text import in_turns

KEPT, PICTURE = RESULTS.with_name("few-examples.json"), ROOT / "docs" / "few-examples.png"


def some(rows: Sequence[Example], count: int, seed: int, labelled: bool) -> list[Example]:
    """So many rows, drawn by the seed, of each label as many as of the others."""
    mixed = list(rows)
    random.Random(seed).shuffle(mixed)
    by_pair = {(row.text, row.target): row for row in mixed}
    return [by_pair[pair] for pair in in_turns(mixed, labelled)[:count]]


def draw(found: Sequence[Found], metric: str, untrained: dict[str, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in found:
        curves[each["arm"]][each["rows"]].append(each["score"])
    for arm, points in curves.items():
        counts = sorted(points)
        middle = [statistics.fmean(points[count]) for count in counts]
        ends = [[m - min(points[c]) for c, m in zip(counts, middle, strict=True)],
                [max(points[c]) - m for c, m in zip(counts, middle, strict=True)]]  # fmt: skip
        axes.errorbar(counts, middle, yerr=ends, marker="o", capsize=3, label=words(arm))
    for name, value in untrained.items():
        axes.axhline(value, linestyle=":", color="grey")
        axes.annotate(name, (32, value), textcoords="offset points", xytext=(2, 3), fontsize=8, color="grey")
    axes.set_xscale("log")
    axes.set_xticks(sorted({each["rows"] for each in found}), [str(c) for c in sorted({e["rows"] for e in found})])
    axes.minorticks_off()
    axes.set_xlabel("training rows")
    axes.set_ylabel(f"{metric} on the test split")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(PICTURE, dpi=110)


def words(arm: str) -> str:
    """An arm as a legend names it: ``prefix,init="text"`` is prefix, init text."""
    return arm.replace('"', "").replace(",", ", ").replace("=", " ").replace("_", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="movie-sentiment")
    parser.add_argument("--arms", nargs="+", default=["prompt", "prefix"])
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 100, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draw", nargs="*", default=[], metavar="NAME=ACCURACY", help="lines of what is not trained")
    given = parser.parse_args()
    bench = Bench.of(given.task)
    examples = read_examples(ROOT / "data" / "prepared" / given.task)

    def make(missing: Sequence[Found]) -> list[Found]:
        (one,) = missing
        few = some(examples.of("train"), one["rows"], one["seed"], bench.task.data.labels is not None)
        chosen = Examples({**examples.splits, "train": few}, examples.content_hash)
        (made,) = learned(bench, f"ours:{one['arm']}", one["seed"], chosen)
        return [{"score": made["score"], "best step": made["best step"]}]

    wanted, whole = [], []
    for seed, arm in product(given.seeds, given.arms):
        known = known_by(bench.task, bench.base.hash.value, examples.content_hash, f"ours:{arm}", seed)
        one = {"task": given.task, "arm": arm, "seed": seed, "fingerprint": known}
        wanted += [[one | {"rows": rows}] for rows in given.rows]
        whole.append(one | {"arm": f"ours:{arm}", "split": "test"})
    found = gathered(KEPT, {"split": "test", "dtype": str(bench.base.dtype)}, wanted, make)
    for one in quality.kept(quality.KEPT):
        if any(asked.items() <= one.items() for asked in whole):
            found.append(one | {"arm": one["arm"].removeprefix("ours:"), "rows": len(examples.of("train"))})
    lines = (line.split("=") for line in given.draw)
    draw(found, leading_metric(bench.task.data.labels), {name: float(value) for name, value in lines})


if __name__ == "__main__":
    main()
