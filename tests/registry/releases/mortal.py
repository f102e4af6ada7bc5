"""Real processes that work on the registry and are killed, or stopped, before a given call to MLflow.

Run as a program it imports everything, opens no store that a test uses, and forks one child for each order that it
reads: a JSON object a line. What it answers is a line as well. ``Mortals`` is the other end, for the tests. Neither
knows what is right: they do what they are told, and say what anybody sees in the store.

    {"uri": ..., "task": ..., "stages": true,       whom to work on
     "steps": [["promote", {"number": 2}], ...],    what to do, one after the other
     "at": 7, "signal": 9, "writes": false,         which signal before which call; of writes alone if so
     "then": 9, "gap": 1,                           and which so many calls later
     "plant": "no marks"}                           a fault to plant
    {"go_on": 4711}                                 wake a stopped child
    {"rehearse": true, "steps": ...}                do it without forking, on a store that is thrown away

    {"pid": 4711, "end": "done" | "killed" | "stopped", "said": [one for each step]}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

READS = ("get_", "search_", "list_", "download_")


class Mortals:
    """A running one of these programs, as a test speaks to it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def mortals(folder: Path) -> Iterator[Mortals]:
    """Start the program; what it and its children leave in the temporary folder goes into ``folder``."""
    folder.mkdir()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"TMPDIR": str(folder)},
            start_new_session=True,
        )
    try:
        yield Mortals(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with whoever is stopped
        process.communicate()


def main() -> None:
    from registry.releases import registration  # noqa: F401  (a child finds them imported)

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    pipes: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("rehearse"):  # on a store of nobody's: what the first use imports and caches, each child then has
            order["uri"] = f"sqlite:///{os.environ['TMPDIR']}/rehearsal.db"
            answers.write(json.dumps({"end": "done", "said": _work(order)}) + "\n")
            answers.flush()
            continue
        pid = order.get("go_on") or _fork(order, pipes)
        if "go_on" in order:
            os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, os.WUNTRACED)
        answer: dict[str, Any] = {"pid": pid, "end": "stopped", "said": []}
        if not os.WIFSTOPPED(status):
            with os.fdopen(pipes.pop(pid)) as pipe:
                said = pipe.read()
            answer |= {"end": "killed"} if os.WIFSIGNALED(status) else {"end": "done", "said": json.loads(said)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _fork(order: dict[str, Any], pipes: dict[int, int]) -> int:
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        pipes[pid] = out
        return pid
    code = 1
    try:
        said = json.dumps(_work(order), default=str)
        with os.fdopen(into, "w") as pipe:
            pipe.write(said)
        code = 0
    finally:
        os._exit(code)


def _work(order: dict[str, Any]) -> list[Any]:
    import mlflow

    from components.errors import PrefaceError
    from registry.mlflow.store import Store

    store, task = Store(order["uri"], stages=order.get("stages", True)), order["task"]
    PLANTS[order.get("plant", "")]()
    calls = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if not (order.get("writes") and call.__name__.startswith(READS)):
                calls += 1
                if calls == order["at"]:
                    os.kill(os.getpid(), order["signal"])
                if calls == order["at"] + order.get("gap", 1) and order.get("then"):
                    os.kill(os.getpid(), order["then"])
            return call(*args, **kwargs)

        return inner

    if order.get("at"):
        client = store._client
        for name in dir(client):
            if not name.startswith("_") and callable(getattr(client, name)):
                setattr(client, name, counted(getattr(client, name)))
        for name in ("download_artifacts", "list_artifacts"):
            setattr(mlflow.artifacts, name, counted(getattr(mlflow.artifacts, name)))
    said: list[Any] = []
    for name, given in order["steps"]:
        try:
            said.append(STEPS[name](store, task, **given))
        except PrefaceError as error:
            said.append({"error": type(error).__name__, "said": str(error)})
    return said


# --- what a child can do ----------------------------------------------------------------------------------------------


def _register(store: Any, task: str, adapter: str, report: str, run: str | None = None, forced: bool = False) -> Any:
    from registry.releases import registration

    run = run or store.start_run(task, "a run", {}, {})
    version = registration.register(store, Path(adapter), run, Path(report), "0" * 32 + ".dir", forced)
    return {"version": version.number}


def _judge(store: Any, task: str, number: int, report: str) -> Any:
    from registry.releases import registration

    version = registration.judge_again(store, store.version(task, number), Path(report))
    return {"version": version.number}


def _move(action: str) -> Callable[..., Any]:
    def step(store: Any, task: str, **given: Any) -> Any:
        from registry.releases import lifecycle

        moved = getattr(lifecycle, action)(store, task, who="ada", reason="to see", **given)
        return {"version": moved.version.number, "changed": moved.changed}

    return step


def _restore(store: Any, task: str) -> Any:
    from registry.releases import lifecycle

    lifecycle.restore(store, task)
    return {}


def _start_run(store: Any, task: str) -> Any:
    return {"run": store.start_run(task, "a run", {}, {})}


def _by_hand(store: Any, task: str, number: int) -> Any:
    """What somebody does in MLflow's page."""
    store.set_stage(task, number, "Production")
    store.set_alias(task, "production", number)
    return {}


def _status(store: Any, task: str) -> Any:
    """The next command of anybody, and what it tells."""
    from registry import queries

    status = queries.status(store, task)
    production, staging = (v.number if v else None for v in (status.production, status.staging))
    return {"drift": status.drift, "faults": status.faults, "production": production, "staging": staging}


def _facts(store: Any, task: str) -> Any:
    """What the store holds, read with MLflow's client alone but for the log; changes nothing."""
    from registry import queries
    from registry.release_log import PREFIX
    from registry.releases.state import PENDING, PROJECTED

    client = store._client
    if not client.search_registered_models(f"name = '{task}'"):
        return {}
    registered = client.get_registered_model(task)
    versions = sorted(client.search_model_versions(f"name = '{task}'"), key=lambda version: int(version.version))
    if not versions:
        return {}
    log = queries.history(store, task)
    line = [entry.release for entry in log if not entry.void]
    projected = registered.tags.get(PROJECTED, "0").partition(" ")[0]
    said = {int(v.version): {key: v.tags.get(PREFIX + key, "") for key in ("gate", "settled")} for v in versions}
    return {
        "log": [(e.release.action, e.release.version, e.void, e.broken) for e in log],
        "head": line[-1].version if line else None,
        "stages": {int(version.version): version.current_stage for version in versions},
        "aliases": {alias: int(number) for alias, number in registered.aliases.items()},
        "verdicts": {number: tags["gate"].partition(" ")[0] for number, tags in said.items()},
        "unsettled": [number for number, tags in said.items() if tags["gate"] != tags["settled"]],
        "duplicates": [int(v.version) for v in versions if v.tags.get(PREFIX + "duplicate_of")],
        "rolled_away": [int(v.version) for v in versions if v.tags.get(PREFIX + "rolled_away")],
        "projected": int(projected) == (line[-1].number if line else 0),
        "pending": sorted(key for key in registered.tags if key.startswith(PENDING)),
    }


STEPS: dict[str, Callable[..., Any]] = {
    "register": _register,
    "judge": _judge,
    "promote": _move("promote"),
    "rollback": _move("rollback"),
    "adopt": _move("adopt"),
    "restore": _restore,
    "start_run": _start_run,
    "by_hand": _by_hand,
    "status": _status,
    "facts": _facts,
}


# --- faults to plant, so that a campaign that finds nothing is known to look ------------------------------------------


def _no_marks() -> None:
    from registry.mlflow.store import Store
    from registry.releases.state import PENDING

    real = Store.tag_task

    def forgetful(self: Store, task: str, key: str, value: str) -> None:
        if not key.startswith(PENDING):
            real(self, task, key, value)

    Store.tag_task = forgetful  # type: ignore[method-assign]


def _tag_first() -> None:
    from registry.releases import projection

    _no_marks()
    real = projection._project
    projection._project = lambda *args: reversed(list(real(*args)))  # type: ignore[assignment, return-value]


PLANTS: dict[str, Callable[[], None]] = {"": lambda: None, "no marks": _no_marks, "tag first": _tag_first}

if __name__ == "__main__":
    main()
