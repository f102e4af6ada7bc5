"""The referee of ``race.py``: makes the tasks that are raced for, renews their gate reports, and judges every round.

What happened is read from the log's numbers, from MLflow's own client and from what each racer was told. Knows nothing
of processes but that there was one for each racer.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from components.base.base_hash import BaseHash
from registry import queries
from registry.artifact import adapter_folder
from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Shape
from registry.mlflow.store import Store
from registry.protocol import Gate
from registry.release_log import NO_ENTRY, PREFIX, Release, effective
from registry.releases import registration
from registry.releases.projection import reconcile_projection
from registry.releases.state import PENDING, PROJECTED

RACERS = 8
BASE = BaseHash("1" * 64, "2" * 64, "3" * 64)


def referee(uri: str, pipe: Connection) -> None:
    """Make tasks, renew their gate reports, look at what a round left."""
    store = Store(uri)
    with tempfile.TemporaryDirectory() as room:
        pipe.send("ready")
        while True:
            name, *given = pipe.recv()
            pipe.send({"task": new_task, "renew": renew, "judge": judge}[name](store, Path(room), *given))


def new_task(store: Store, room: Path) -> str:
    """A task of nine versions, none of them in Production, each with a report against any champion."""
    task = f"race-{uuid.uuid4().hex[:8]}"
    reports = [room / f"against-{champion}.json" for champion in range(RACERS + 2)]
    for champion, path in enumerate(reports):
        path.write_text(json.dumps({"passed": True, "champion": champion or None}))
    for seed in range(1, RACERS + 2):
        draft = _draft(task, seed)
        values = np.random.default_rng(seed).standard_normal(draft.tensor_shape).astype(np.float32)
        folder = room / f"{task}-{seed}"
        adapter_folder.write(folder, values, draft)
        run = store.start_run(task, f"run {seed}", {}, {})
        store.log_files(run, reports, "reports")
        registration.register(store, folder, run, reports[0], "")
    return task


def _draft(task: str, seed: int) -> Draft:
    return Draft(
        task=task,
        method="prompt",
        kind="classification",
        virtual_tokens=3,
        shape=Shape(layers=2, kv_heads=2, head_size=8, hidden=32, heads=4),
        base=BasePin(name="tiny", hash=BASE.value, weights=BASE.weights, config=BASE.config, tokenizer=BASE.tokenizer),
        data=DataPin(hash="d" * 64, lock={}),
        fingerprint=hashlib.sha256(f"{task} {seed}".encode()).hexdigest(),
        recipe=1,
        seed=seed,
        params={},
        template="{text}",
        labels=None,
        max_tokens=256,
        max_new_tokens=8,
        metrics={},
        code=CodePin(version="0.1.0", git_commit=""),
        libraries={},
        machine=None,
        created="2026-11-24T00:00:00Z",
    )


def renew(store: Store, room: Path, task: str) -> list[int]:
    """Every version's gate tag names its report against today's champion; who may race: all but that one."""
    live = queries.current(store, task, "Production")
    champion = live.number if live else 0
    racing = [number for number in range(1, RACERS + 2) if number != champion][:RACERS]
    raw = (room / f"against-{champion}.json").read_bytes()
    gate = Gate("passed", f"reports/against-{champion}.json", hashlib.sha256(raw).hexdigest())
    for number in racing:
        store.tag_version(task, number, PREFIX + "gate", str(gate))
    reconcile_projection(store, task)
    return racing


def judge(store: Store, room: Path, task: str, before: int, told: list[Any], names: list[str]) -> tuple[int, list[str]]:
    """How many entries the log has, and every violation. The log is told apart here by nothing but its numbers."""
    wrong: list[str] = []
    killed = None in told
    if killed:
        status = queries.status(store, task)
        wrong += [f"after a kill a person is told: {alarm}" for alarm in status.alarms]
    entries = store.releases(task)
    if [entry.number for entry in entries] != list(range(1, len(entries) + 1)):
        wrong.append(f"the log's numbers are {[entry.number for entry in entries]}")
    head, line = NO_ENTRY, []
    for entry in entries:
        if entry.based_on == head:
            head, line = entry.number, [*line, entry]
    if len({entry.token for entry in entries}) != len(entries):
        wrong.append("an attempt was entered twice")
    if line != effective(entries):
        wrong.append("an entry that came too late took effect")
    new = [entry for entry in line if entry.number > before]
    if len(new) != 1:
        wrong.append(f"{len(new)} entries took effect in one round")
        return len(entries), wrong
    [winner] = new
    for name, answer in zip(names, told, strict=True):
        wrong += _mistold(name, answer, winner, [entry for entry in entries[before:] if entry.who == name])
    if not killed and sum(answer[0] == "won" for answer in told) != 1:
        wrong.append(f"not one was told that it won: {[answer[0] for answer in told]}")
    return len(entries), wrong + _unlike(store, task, winner)


def _mistold(name: str, answer: Any, winner: Release, entered: list[Release]) -> list[str]:
    """In what one racer was told something else than what happened."""
    if answer is None:
        return []
    told, said, appended = answer
    wrong = [f"{name} appended {appended} entries, the log has {len(entered)}"] if appended != len(entered) else []
    if told == "failed":
        wrong.append(f"{name} was not told who won: {said}")
    if (told == "won") != (winner.who == name) or (told == "won" and said != str(winner.number)):
        wrong.append(f"{name} was told {told}, the winner is {winner.who}")
    if told == "PromotionConflict" and f"{winner.who}@" not in said:
        wrong.append(f"{name} was told of another winner than {winner.who}: {said}")
    return wrong


def _unlike(store: Store, task: str, winner: Release) -> list[str]:
    """In what MLflow's own client sees something else than the winner."""
    client = store._client
    registered = client.get_registered_model(task)
    versions = client.search_model_versions(f"name = '{task}'")
    seen = {
        "stage Production": [int(version.version) for version in versions if version.current_stage == "Production"],
        "alias production": [int(registered.aliases.get("production", 0))],
        "marks left": [key for key in registered.tags if key.startswith(PENDING)],
        "projected": registered.tags.get(PROJECTED),
    }
    projected = f"{winner.number} {winner.hash}"
    due = dict(zip(seen, ([winner.version], [winner.version], [], projected), strict=True))
    return [f"{what}: {value}, not {due[what]}" for what, value in seen.items() if value != due[what]]
