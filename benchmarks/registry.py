"""How the registry grows: status, promotion and rollback among 10, 100 and 1,000 tasks of 20 versions each.

    python -m benchmarks.registry                    three sizes, on SQLite; writes benchmarks/results/registry.json
    python -m benchmarks.registry --tasks 10 100     other sizes

The tasks are rows written into MLflow's own tables, as its client would leave them after 20 promotions each; making
20,000 versions through the client would take hours and change nothing that is timed. One task of each registry is real,
made, promoted and rolled back by the house's own code: it is the one that is timed, its adapters' download included.
Timings are interleaved over the sizes, medians and 95th percentiles of the wall clock; ratios are to the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from components.base.base_hash import BaseHash
from components.base.machine import CPUINFO, cpu_kind
from registry import queries
from registry.artifact import adapter_folder
from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Shape
from registry.mlflow.store import Store
from registry.release_log import PREFIX, Release
from registry.releases import lifecycle, registration

VERSIONS, ROUNDS = 20, 40
BASE = BaseHash("1" * 64, "2" * 64, "3" * 64)
PIN = BasePin(name="tiny", hash=BASE.value, weights=BASE.weights, config=BASE.config, tokenizer=BASE.tokenizer)
RESULTS = Path(__file__).parent / "results" / "registry.json"


def fill(database: Path, tasks: int) -> None:
    """Write ``tasks`` tasks at rest: 20 versions, each promoted in its turn, the last in Production."""
    now = int(time.time() * 1000)
    with sqlite3.connect(database) as db:
        for name in (f"task-{number:04d}" for number in range(tasks)):
            log, line = f"{name}.releases", []
            for number in range(1, VERSIONS + 1):
                before = line[-1] if line else None
                line.append(
                    Release(
                        "promote",
                        number,
                        before.number if before else 0,
                        before.hash if before else "",
                        "ada",
                        "here",
                        "2026-11-23T20:00:00+00:00",
                        "better on short reviews",
                        "c" * 40,
                        "d" * 64,
                        f"passed gate/gate.json {'e' * 64}",
                        token="t" * 32,
                        number=number,
                    )
                )
            tags = {"holds": "adapters", "projected": f"{line[-1].number} {line[-1].hash}"}
            _model(db, name, now, {PREFIX + key: value for key, value in tags.items()})
            _model(db, log, now, {PREFIX + "holds": "releases"})
            alias = "insert into registered_model_aliases (name, alias, version) values (?, 'production', ?)"
            db.execute(alias, (name, VERSIONS))
            for entry in line:
                stage = "Production" if entry.number == VERSIONS else "Archived"
                _version(db, name, entry.number, now, stage, f"models:/m-{entry.number}", _tags(entry))
                _version(db, log, entry.number, now, "None", f"models:/{name}/{entry.number}", entry.tags())


def _tags(entry: Release) -> dict[str, str]:
    said = {
        "method": "prefix",
        "fingerprint": f"{entry.number:064d}",
        "base": "tiny",
        "base_hash": BASE.value,
        "data_hash": "d" * 64,
        "git_commit": "c" * 40,
        "manifest_digest": entry.digest,
        "metric.accuracy": "0.9",
        "metric.macro_f1": "0.9",
        "dvc_md5": "a" * 32,
        "gate": entry.gate,
        "settled": entry.gate,
    }
    return {PREFIX + key: value for key, value in said.items()}


def _model(db: sqlite3.Connection, name: str, now: int, tags: dict[str, str]) -> None:
    db.execute(
        "insert into registered_models (name, creation_time, last_updated_time) values (?, ?, ?)", (name, now, now)
    )
    db.executemany(
        "insert into registered_model_tags (name, key, value) values (?, ?, ?)", [(name, *tag) for tag in tags.items()]
    )


def _version(
    db: sqlite3.Connection, name: str, number: int, now: int, stage: str, source: str, tags: dict[str, str]
) -> None:
    db.execute(
        "insert into model_versions (name, version, creation_time, last_updated_time, description, current_stage,"
        " source, run_id, status) values (?, ?, ?, ?, ?, ?, ?, ?, 'READY')",
        (name, number, now, now, "A card. " * 100, stage, source, "r" * 32),
    )
    db.executemany(
        "insert into model_version_tags (name, version, key, value) values (?, ?, ?, ?)",
        [(name, number, *tag) for tag in tags.items()],
    )


def make_real(store: Store, room: Path, task: str) -> None:
    """A task of two versions by the house's own code, both of which have been in Production."""
    for number in (1, 2):
        draft = Draft(
            task=task,
            method="prompt",
            kind="classification",
            virtual_tokens=20,
            shape=Shape(layers=30, kv_heads=3, head_size=64, hidden=576, heads=9),
            base=PIN,
            data=DataPin(hash="d" * 64, lock={}),
            fingerprint=f"{number:064d}",
            seed=number,
            recipe=1,
            machine=None,
            params={},
            template="{text}\n",
            labels={"no": "no", "yes": "yes"},
            max_tokens=16,
            max_new_tokens=1,
            metrics={"accuracy": 0.9},
            code=CodePin(version="0", git_commit=""),
            libraries={},
            created="2026-11-23",
        )
        folder, report = room / f"adapter-{number}", room / "gate.json"
        adapter_folder.write(folder, np.full(draft.tensor_shape, number, dtype=np.float32), draft)
        report.write_text(json.dumps({"passed": True, "champion": number - 1 or None}))
        run = store.start_run(task, "run", {}, {})
        registration.register(store, folder, run, report, "a" * 32)
        lifecycle.promote(store, task, reason="better", base_hash=BASE.value)


def acts(store: Store, every: bool) -> dict[str, Callable[[], object]]:
    """What is timed, in its order; ``every``: with the status of all tasks."""
    one: dict[str, Callable[[], object]] = {
        "status of one task": lambda: queries.status(store, "real"),
        "rollback": lambda: lifecycle.rollback(store, "real", 1, reason="worse", base_hash=BASE.value),
        # It was just rolled away from.
        "promote": lambda: lifecycle.promote(store, "real", 2, reason="", base_hash=BASE.value, override=True),
    }
    return one | ({"status of all tasks": lambda: list(queries.statuses(store))} if every else {})


def measure(sizes: list[int]) -> dict[str, dict[int, list[float]]]:
    """Seconds of each act in each registry, the registries in turn."""
    room = Path(tempfile.mkdtemp(prefix="registry-"))
    seconds: dict[str, dict[int, list[float]]] = {}
    try:
        stores: dict[int, str] = {}
        for size in sizes:
            here = room / str(size)
            stores[size] = f"sqlite:///{here}/mlflow.db"
            make_real(Store(stores[size]), here, "real")
            fill(here / "mlflow.db", size - 1)
        for turn in range(ROUNDS):
            for size in sizes:
                for name, act in acts(Store(stores[size]), every=turn % 8 == 0).items():
                    began = time.perf_counter()
                    act()
                    seconds.setdefault(name, {}).setdefault(size, []).append(time.perf_counter() - began)
    finally:
        shutil.rmtree(room)
    return seconds


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 100, 1000])
    sizes = sorted(parser.parse_args().tasks)
    figures = {
        name: {
            str(size): {
                "median": round(statistics.median(of), 4),
                "p95": round(float(np.percentile(of, 95)), 4),
                "n": len(of),
                "ratio": round(statistics.median(of) / statistics.median(by_size[sizes[0]]), 2),
            }
            for size, of in by_size.items()
        }
        for name, by_size in measure(sizes).items()
    }
    for name, by_size in figures.items():
        for size, row in by_size.items():
            print(f"{name:20} {size:>5} tasks {row}")
    RESULTS.parent.mkdir(exist_ok=True)
    said = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions_per_task": VERSIONS,
        "store": "SQLite",
        "libraries": {name: version(name) for name in ("mlflow", "sqlalchemy")},
        "machine": f"{cpu_kind(CPUINFO)}, {os.cpu_count()} cores",
        "seconds": figures,
    }
    RESULTS.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
