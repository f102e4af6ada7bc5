"""What Prefect costs: a retraining by the flow, and by the same components called one after the other.

    python -m benchmarks.orchestration --rounds 10      writes benchmarks/results/orchestration.json

Both sides run in this process, in turn, on the same tiny base and rows and against the same MLflow store and Prefect
server; each round trains another seed. Beside them, in turn too: a run that finds nothing to learn, by the flow; the
whole command that finds that; and runs that a worker starts, one that trains and one that does not, from the moment in
which they are due. The share is of a training that takes three minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tiny_project
from benchmarks.fleet import asked, moment, tell, two_workers

RESULTS = Path(__file__).parent / "results" / "orchestration.json"
TRAINING = 180.0
FLOW, DIRECT = "flow", "components directly"


def directly(root: Path, task: str) -> None:
    """What the flow does, without Prefect: the bodies of its steps, and the rules of the gate."""
    from components.gates.decide import decide
    from flows.dvc import repro
    from flows.orchestration.concurrency import Held
    from flows.tasks import run_steps, steps

    held = Held("cpu")
    data = repro.prepare(root, [task])[task]
    job = steps.plan.fn(str(root), task, None, False, data)
    assert steps.registered.fn(job) is None
    steps.place_rows.fn(job)
    steps.push_data.fn(job)
    run = run_steps.open_run.fn(job)
    adapter = steps.train_adapter.fn(job, run)
    baselines, champion = steps.measure_baselines.fn(job), steps.champion.fn(job)
    file = steps.evaluate_adapter.fn(job, adapter, baselines, champion)
    report = steps.report_in(file)
    scores = {name: scored.metrics for name, scored in report.baselines.items()}
    decision = decide(report.candidate.metrics, scores, report.in_production(), job.params.gate, report.unopposed())
    made = steps.register_version.fn(job, run, adapter, file, decision, held.spent())
    steps.promote_version.fn(job, made.number)


def by_the_flow(root: Path, task: str) -> str:
    from flows import retrain

    return retrain.run(root, task).result


def by_command(root: Path, own: dict[str, str], task: str) -> None:
    command = [sys.executable, "-m", "cli.main", "retrain", task]
    alone = {name: value for name, value in own.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(command, cwd=root, env=alone, capture_output=True, text=True)
    assert "nothing to learn" in done.stdout, done.stdout + done.stderr


def by_a_worker(api: str, task: str) -> Any:
    """A run as a schedule asks for it, once it has ended."""
    [deployment] = asked(api, "deployments/filter", {"deployments": {"name": {"any_": [task]}}})
    run = asked(api, f"deployments/{deployment['id']}/create_flow_run", {})["id"]
    while True:
        [found] = asked(api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        if found["end_time"]:
            return found
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    took: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        took.setdefault(name, []).append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as room:
        root = Path(room) / "project"
        names = tiny_project.make(root, 3 * given.rounds + 2, given.steps)
        with two_workers(root) as (api, own):
            os.environ.update(own)
            os.chdir(root)
            from flows.dvc import repro

            repro.prepare(root)
            directly(root, names.pop()), by_the_flow(root, names.pop())  # imports, and the base
            for turn in range(given.rounds):
                one, two, three = names.pop(), names.pop(), names.pop()
                pair: list[tuple[str, Callable[[], object]]] = [
                    (DIRECT, lambda task=one: directly(root, task)),
                    (FLOW, lambda task=two: by_the_flow(root, task)),
                ]
                for name, work in pair if turn % 2 else reversed(pair):
                    timed(name, work)
                timed("flow, nothing to learn", lambda task=two: by_the_flow(root, task))
                timed("command, nothing to learn", lambda task=two: by_command(root, own, task))
                for name, state in (("worker", "Promoted"), ("worker, nothing to learn", "Unchanged")):
                    run = by_a_worker(api, three)
                    assert run["state_name"] == state, run["state"]
                    due = moment(run["expected_start_time"])
                    took.setdefault(f"{name}: due to end", []).append(moment(run["end_time"]) - due)
                    took.setdefault(f"{name}: due to start", []).append(moment(run["start_time"]) - due)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    overhead = medians[FLOW] - medians[DIRECT]
    whole = overhead + medians["worker: due to start"]
    said = {
        "rounds": given.rounds,
        "seconds, median": {name: round(value, 3) for name, value in medians.items()},
        "seconds, most": {name: round(max(seconds), 3) for name, seconds in took.items()},
        "flow over components": round(medians[FLOW] / medians[DIRECT], 3),
        "overhead, seconds": {
            "in one process": round(overhead, 3),
            "with the start by a worker": round(whole, 3),
            "share of a training of three minutes": round(whole / TRAINING, 4),
        },
    }
    tell(said, RESULTS)


if __name__ == "__main__":
    main()
