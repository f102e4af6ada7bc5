"""The data step: sources looked at, bases and rows brought up to date by DVC, one preparation at a time.

DVC is used by its command line alone, since its Python interface is internal, and only here. What the stages do is
written in dvc.yaml and components/; nothing of it is known here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from components.config import params
from components.config.params import Params, TaskParams
from components.data.prepare import read_report
from components.errors import (
    DataError,
    ParamsError,
    PrefaceError,
    SetupError,
)
from components.provenance import stage_code
from components.redaction import redact
from components.sources import byte_source, identity
from components.sources.own_folders import refuse_sources
from flows.dvc import dvc_yaml, faults, stage_server

WAIT = 3600.0  # seconds that a preparation waits for the one before it
# Of a remote on S3: seconds instead of minutes, unless the environment says otherwise.
RETRY_DEFAULTS = {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "3"}
_RUNNING = re.compile(r"Running stage '([^']+)'")


@dataclass(frozen=True)
class DataVersion:
    """Prepared data as it now is. ``lock_entry`` is all that dvc.lock says of how it came to be."""

    task: str
    content_hash: str
    dvc_md5: str
    lock_entry: dict[str, Any]


def prepare(
    root: Path,
    tasks: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, DataVersion]:
    """Bring the bases and the prepared data of the tasks (all if None) up to date; unchanged stages do not run.

    Args:
        root: The project's folder.
        tasks: Names of tasks in params.yaml.
        say: Gets a line for each stage, when it starts or is found unchanged.

    Raises:
        SourceUnavailable: a source did not answer; worth another try.
        PrefaceError: anything else that keeps a stage from its work, as the stage said it.
    """
    declared = params.load(root / "params.yaml")
    chosen = {task: declared.task(task) for task in (tasks or declared.tasks)}
    if not chosen:
        raise ParamsError(f"{root / 'params.yaml'} has no task; describe one under `tasks:`")
    refuse_sources(declared, root, chosen, {settings.base for settings in chosen.values()})
    dvc_yaml.require_same(root / "params.yaml", declared)
    with _alone(root):
        for task in chosen:
            _look(root, task, declared)
        dvc(root, ["repro", *_targets(chosen)], say)
        entries = _lock_entries(root, list(chosen))
        return {task: _version(root, task, entry) for task, entry in entries.items()}


def prepare_each(
    root: Path, tasks: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> dict[str, DataVersion | PrefaceError]:
    """The same for many tasks at once, where one that fails keeps no other from being prepared.

    Raises:
        ParamsError: params.yaml is not valid, or names no such task.
    """
    declared = params.load(root / "params.yaml")
    chosen = {task: declared.task(task) for task in tasks}
    dvc_yaml.require_same(root / "params.yaml", declared)
    found: dict[str, DataVersion | PrefaceError] = {}
    with _alone(root):
        for task, settings in chosen.items():
            try:
                refuse_sources(declared, root, [task], [settings.base])
                _look(root, task, declared)
            except PrefaceError as error:
                found[task] = error
        left = {task: settings for task, settings in chosen.items() if task not in found}
        if left:
            status, lines = _run(root, ["repro", "--keep-going", *_targets(left)], say)
            found |= _faults(root, lines, left) if status else {}
        for task in left.keys() - found.keys():
            try:
                found[task] = _version(root, task, lock_entry(root, task))
            except PrefaceError as error:
                found[task] = error
    return {task: found[task] for task in tasks}


def _look(root: Path, task: str, declared: Params) -> None:
    """Write down what the task's source holds now, and what its base is pinned to."""
    settings = declared.task(task)
    held = byte_source.resolve(settings.data.source, settings.data.sha256, root=root)
    identity.write(
        root / identity.FOLDER / f"{task}.json", identity.of_task(settings.data, held, _code("fetch", "prepare"))
    )
    pinned = identity.of_base(declared.bases[settings.base], _code("base"))
    identity.write(root / identity.FOLDER / "bases" / f"{settings.base}.json", pinned)


def _code(*stages: str) -> dict[str, str]:
    return {stage: stage_code.digest(stage) for stage in stages}


def _targets(chosen: Mapping[str, TaskParams]) -> list[str]:
    """The stages to bring up to date, each base once."""
    bases = sorted({settings.base for settings in chosen.values()})
    return [*(f"base@{base}" for base in bases), *(f"prepare@{task}" for task in chosen)]


def _faults(root: Path, lines: Sequence[str], chosen: Mapping[str, TaskParams]) -> dict[str, PrefaceError]:
    """What kept each task from being prepared, out of what DVC said of all of them: of its base, its rows, or both.

    DVC names the stages that failed in its last words. Where it names none it failed itself, and so did every task.
    """
    said: dict[str, list[str]] = {}
    stage, failed = "", set[str]()
    for line in filter(None, lines):
        if begun := _RUNNING.match(line):
            stage = begun[1]
        if line.startswith("ERROR: failed to reproduce"):
            failed |= set(faults.STAGES.findall(line))
        said.setdefault(stage, []).append(line)
    found = {}
    for task, settings in chosen.items():
        mine = [each for each in (f"base@{settings.base}", f"fetch@{task}", f"prepare@{task}") if each in failed]
        if mine:
            found[task] = faults.fault(root, said.get(mine[0], lines), "repro")
    return found or {task: faults.fault(root, [line for line in lines if line], "repro") for task in chosen}


def push(root: Path, tasks: Sequence[str] | None = None) -> None:
    """Copy raw and prepared data to the DVC remote, where workers on other machines pull it from by hash.

    Raises:
        SourceUnavailable: the remote did not answer; a second push goes on where this one ended.
        SourceError: the remote refuses.
        DataError: the cache does not have all of it.
    """
    chosen = tasks or list(params.load(root / "params.yaml").tasks)
    with _alone(root):
        said = dvc(root, ["push", *(f"{stage}@{task}" for task in chosen for stage in ("fetch", "prepare"))])
    if lacks_files(said):
        names = ", ".join(chosen)
        raise DataError(
            f"DVC's cache lacks files of the raw or prepared data of {names}, and the remote has them not either;"
            f" delete data/raw and data/prepared of them and run `preface prepare {' '.join(chosen)}`"
        )


def lacks_files(said: Sequence[str]) -> bool:
    """Whether a push left something out: DVC warns of it, and ends as if it had pushed everything."""
    return any("Missing cache files" in line for line in said)


def lock_entry(root: Path, task: str) -> dict[str, Any]:
    """What dvc.lock records of the task's two stages: commands, parameters, and hashes of all that goes in and out.

    Raises:
        DataError: the task was never prepared.
    """
    return _lock_entries(root, [task])[task]


def _lock_entries(root: Path, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those of many tasks. The file is read once: of a hundred tasks that takes a second."""
    task = ", ".join(tasks)
    try:
        stages, found = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"], {}
        for task in tasks:
            found[task] = {stage: stages[stage] for stage in (f"fetch@{task}", f"prepare@{task}")}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(
            f"dvc.lock has no complete entry of {task!r} ({error}); run `preface prepare {task}`"
        ) from error
    return found


def _version(root: Path, task: str, entry: dict[str, Any]) -> DataVersion:
    report = read_report(root / "data" / "prepared" / task)
    return DataVersion(task, report["content_hash"], entry[f"prepare@{task}"]["outs"][0]["md5"], entry)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One preparation of a project at a time: concurrent repros of DVC wait a little and then fail."""
    path = root / ".preface" / "prepare.lock"
    path.parent.mkdir(exist_ok=True)
    try:
        with FileLock(path, timeout=WAIT):
            yield
    except Timeout as error:
        raise SetupError(f"{path} was held by another preparation for {WAIT:.0f} s; wait for it, or end it") from error


def dvc(root: Path, arguments: Sequence[str], say: Callable[[str], None] = lambda line: None) -> list[str]:
    """Run one command of DVC in the project and return what it said; raise what went wrong as one line."""
    status, lines = _run(root, arguments, say)
    if status:
        raise faults.fault(root, [line for line in lines if line], arguments[0])
    return lines


def _run(root: Path, arguments: Sequence[str], say: Callable[[str], None]) -> tuple[int, list[str]]:
    """The same, and the status that it ended with."""
    # The stages say `python`: that must be the one that Preface is installed for, activated or not.
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = RETRY_DEFAULTS | os.environ | {"PATH": here, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with (
        stage_server.at_hand(environment) if arguments[0] == "repro" else nullcontext(environment) as env,
        subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None  # as asked for above
        for line in process.stdout:
            lines.append(redact(line.rstrip()))
            if line.startswith(("Running stage", "Stage ")):
                say(lines[-1])
    return process.returncode, lines
