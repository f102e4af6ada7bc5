"""How long it takes to prepare many small tasks, and to find that nothing changed.

    python -m benchmarks.prepare_many --tasks 10 30 100

Projects of 120 rows a task on one tiny base, each prepared by `preface prepare` and then looked at again, in turn.
Writes benchmarks/results/prepare-many.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import tiny_project
from benchmarks.fleet import tell
from benchmarks.train import RESULTS

KEPT = RESULTS.with_name("prepare-many.json")


def timed(root: Path) -> float:
    """Seconds of one `preface prepare` of all tasks."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "cli.main", "prepare"]
    subprocess.run(command, cwd=root, env=tiny_project.environment(root), check=True, capture_output=True)
    return round(time.perf_counter() - begun, 1)


def measured(tasks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as room:
        root = Path(room)
        tiny_project.make(root, tasks, steps=1)
        return {"tasks": tasks, "first": timed(root), "nothing changed": timed(root)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 30, 100])
    tell({"seconds": [measured(tasks) for tasks in parser.parse_args().tasks]}, KEPT, of=("dvc",))


if __name__ == "__main__":
    main()
