"""Several adapters in one batch, over the same one after the other: steps of both, in turn, on the same rows.

    python -m benchmarks.together --rounds 12      writes benchmarks/results/together.json

`preface prepare` comes first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.fleet import tell
from benchmarks.train import LIBRARIES, Bench
from components.config.params import MethodName
from components.prefix.methods import method as methods
from components.training.trainer import AdapterTrainer, optimizer_step

RESULTS = Path(__file__).parent / "results" / "together.json"
ARMS: tuple[tuple[MethodName, int], ...] = (("prompt", 20), ("prefix", 20))


def compared(bench: Bench, method: MethodName, virtual_tokens: int, count: int, rounds: int) -> dict[str, Any]:
    """So many adapters, each on batches of its own: together, and one after the other."""
    task = bench.with_tokens(virtual_tokens)
    settings = task.settings(method).training
    learners = [
        AdapterTrainer.of(
            bench.base, methods.build(bench.base, task, method, bench.lessons.solved), settings, bench.rows
        )
        for _ in range(count)
    ]
    batches = bench.batches(method)
    rate, took = settings.learning_rate, {"together": [], "one after the other": []}
    for turn in range(rounds + 1):  # the first warms up
        own = [[batches[(turn * count + number) % len(batches)]] for number in range(count)]

        def together(own: list[Any] = own) -> None:
            optimizer_step(bench.base, learners, own, [rate] * count)

        def alone(own: list[Any] = own) -> None:
            for learner, rows in zip(learners, own, strict=True):
                optimizer_step(bench.base, [learner], [rows], [rate])

        sides = [("together", together), ("one after the other", alone)]
        for name, side in sides[turn % 2 :] + sides[: turn % 2]:
            began = time.perf_counter()
            side()
            took[name].append(time.perf_counter() - began)
    ratios = [alone / one for one, alone in zip(took["together"][1:], took["one after the other"][1:], strict=True)]
    medians = {name: round(statistics.median(seconds[1:]), 4) for name, seconds in took.items()}
    return {"seconds, median": medians, "faster together": round(statistics.median(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="movie-sentiment")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rows", type=int, nargs="+", default=[2], help="of each adapter in a step")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    arms: dict[str, Any] = {}
    for size in given.rows:
        bench = Bench.of(given.task, size)
        for method, tokens in ARMS:
            found = compared(bench, method, tokens, given.adapters, given.rounds)
            arms[f"{method}, {tokens} virtual tokens, {size} rows each"] = found
            print(json.dumps({method: found}), file=sys.stderr, flush=True)
    said = {"task": given.task, "adapters": given.adapters, "rounds": given.rounds, "dtype": str(bench.base.dtype)}
    tell(said | {"arms": arms}, RESULTS, LIBRARIES)


if __name__ == "__main__":
    main()
