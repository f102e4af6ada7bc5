"""Eight processes promote eight versions of one task at once, round after round; counts what must never happen.

    python -m benchmarks.race --rounds 200                            an MLflow server of four workers over SQLite
    python -m benchmarks.race --rounds 200 --store postgresql://...   whatever MLflow can open
    python -m benchmarks.race --rounds 200 --kill                     one of the eight is killed on the way

Each racer is a process with a Store of its own. In every other round they are let go together; in those between, each
waits before it writes until all have decided, upon the same head. Nobody overrides anything: the gate report of each
version names the champion of the day, one report for each that there can be, made beforehand. The version in Production
does not race. A task is raced for ten rounds, then comes another, whose first round is its first promotion.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.referee import BASE, RACERS, referee
from components.errors import PrefaceError, PromotionConflict, PromotionRefused
from registry.mlflow.store import Store
from registry.release_log import Release
from registry.releases import lifecycle, state

ROUNDS_A_TASK = 10
RESULTS = Path(__file__).parent / "results"
FORK = multiprocessing.get_context("fork")


# --- who races --------------------------------------------------------------------------------------------------------


def racer(uri: str, name: str, pipe: Connection, blind: bool) -> None:
    """Promote what one is told to, and tell what one was told."""
    if blind:
        state.effective = lambda entries: sorted(entries, key=lambda entry: entry.number)  # type: ignore[assignment]
    store, appended = Store(uri), 0
    append = store.append_release

    def at_once(task: str, release: Release) -> int:
        nonlocal appended
        if together:
            pipe.send("decided")
            pipe.recv()
        number = append(task, release)
        appended += 1
        return number

    store.append_release = at_once  # type: ignore[method-assign]
    pipe.send("ready")
    while True:
        task, number, together = pipe.recv()
        appended = 0
        try:
            moved = lifecycle.promote(store, task, number, reason="the race", base_hash=BASE.value, who=name)
            told, said = "won", str(moved.entry.number)
        except (PromotionConflict, PromotionRefused) as error:
            told, said = type(error).__name__, str(error)
        except PrefaceError as error:
            told, said = "failed", f"{type(error).__name__}: {error}"
        pipe.send((told, said, appended))


@dataclass
class Racer:
    name: str
    process: Any
    pipe: Connection


def start(uri: str, place: int, blind: bool) -> Racer:
    ours, theirs = FORK.Pipe()
    name = f"racer-{place}-{uuid.uuid4().hex[:6]}"
    process = FORK.Process(target=racer, args=(uri, name, theirs, blind), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    return Racer(name, process, ours)


def compete(racers: list[Racer], task: str, numbers: list[int], together: bool, kill_after: float | None) -> list[Any]:
    """One round: what each was told, None for who was killed."""
    for each, number in zip(racers, numbers, strict=True):
        each.pipe.send((task, number, together))
    doomed, due = random.choice(racers), time.monotonic() + (kill_after or 0)
    alive: dict[Connection, Racer] = {each.pipe: each for each in racers}
    told: dict[str, Any] = {}
    decided: list[Racer] = []
    while alive:
        if kill_after is not None and time.monotonic() >= due:
            os.kill(doomed.process.pid, signal.SIGKILL)
            doomed.process.join()  # a dead process that nobody asked after still counts as one
            kill_after = None
        left = None if kill_after is None else max(0.0, due - time.monotonic())
        for pipe in wait(list(alive), left):
            each = alive[pipe]  # type: ignore[index]
            try:
                answer = pipe.recv()  # type: ignore[union-attr]
            except (EOFError, ConnectionResetError):
                answer = None
            if answer == "decided":
                decided.append(each)
            else:
                told[each.name] = answer
                del alive[pipe]  # type: ignore[arg-type]
        if decided and {each.name for each in decided} >= {each.name for each in alive.values()}:
            for each in decided:
                with contextlib.suppress(BrokenPipeError):
                    each.pipe.send("go")
            decided = []
    return [told[each.name] for each in racers]


# --- the whole --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    rounds: int = 0
    violations: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    entries: int = 0
    seconds: list[float] = field(default_factory=list)


def race(uri: str, rounds: int, kill: bool = False, blind: bool = False) -> Result:
    """That many rounds at the store, one after the other."""
    random.seed(0)
    with tempfile.TemporaryDirectory() as room:  # what the first opening imports, each racer then has
        Store(f"sqlite:///{room}/rehearsal.db").releases("nothing")
    ours, theirs = FORK.Pipe()
    FORK.Process(target=referee, args=(uri, theirs), daemon=True).start()
    assert ours.recv() == "ready"
    racers, result, task, before = [start(uri, place, blind) for place in range(RACERS)], Result(), "", 0

    def ask(*what: Any) -> Any:
        ours.send(what)
        return ours.recv()

    for number in range(rounds):
        if number % ROUNDS_A_TASK == 0:
            task, before = ask("task"), 0
        numbers = ask("renew", task)
        random.shuffle(numbers)
        began, usual = time.monotonic(), sorted(result.seconds)[len(result.seconds) // 2] if result.seconds else 1.0
        told = compete(racers, task, numbers, number % 2 == 1, random.uniform(0, usual) if kill else None)
        took = time.monotonic() - began
        entries, wrong = ask("judge", task, before, told, [each.name for each in racers])
        result.rounds += 1
        result.violations += [f"round {number}: {each}" for each in wrong]
        result.told.update(answer[0] if answer else "killed" for answer in told)
        result.entries += entries - before
        result.seconds.append(took)
        before = entries
        racers = [each if each.process.is_alive() else start(uri, place, blind) for place, each in enumerate(racers)]
        if wrong or number % 10 == 9:
            said = (
                f"round {number + 1}/{rounds}: {took:.1f} s, {dict(result.told)}, violations {result.violations[-9:]}"
            )
            print(said, file=sys.stderr, flush=True)
    return result


@contextlib.contextmanager
def server(folder: Path, workers: int = 4) -> Iterator[str]:
    """MLflow's own tracking server over SQLite."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = {"host": "127.0.0.1", "port": port, "workers": workers, "artifacts-destination": folder / "kept"}
    options["backend-store-uri"] = f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", *(f"--{key}={value}" for key, value in options.items())]
    uri, quick = f"http://127.0.0.1:{port}", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quick, start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--store", help="a tracking address; without it a server over SQLite is started")
    parser.add_argument("--kill", action="store_true", help="kill one of the eight at a random moment of each round")
    parser.add_argument("--blind", action="store_true", help="a planted fault: nobody heeds who came first")
    parser.add_argument("--name", help="of a file in benchmarks/results/ to write")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if given.store:
            uri, kind = given.store, given.store.partition(":")[0]
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            uri, kind = stack.enter_context(server(folder)), "SQLite behind an MLflow server of 4 workers"
        result = race(uri, given.rounds, given.kill, given.blind)
    said = {
        "what": f"{RACERS} processes promote {RACERS} versions of one task at once",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "store": kind,
        "killed": given.kill,
        "rounds": result.rounds,
        "violations": result.violations,
        "told": dict(result.told),
        "entries": result.entries,
        "seconds a round": {"median": _share(result, 0.5), "p95": _share(result, 0.95)},
        "versions": {name: installed(name) for name in ("mlflow", "sqlalchemy")}
        | {"python": platform.python_version()},
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    if given.name:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{given.name}.json").write_text(json.dumps(said, indent=2) + "\n")
    print(json.dumps(said, indent=2))
    sys.exit(1 if result.violations else 0)


def _share(result: Result, share: float) -> float:
    return round(sorted(result.seconds)[int(share * (len(result.seconds) - 1))], 2)


if __name__ == "__main__":
    main()
