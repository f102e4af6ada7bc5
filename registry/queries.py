"""What there is to see of a task: what is in Production and in Staging, since when, by whom, and what disagrees.

Looking mends what an interrupted command left, as every command does, and changes nothing else. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from components.errors import NotFound, RegistryError, sanitized
from registry.protocol import Head, Stage, Store, Version
from registry.release_log import Release, count, effective
from registry.releases.projection import settled
from registry.releases.state import PENDING, PROJECTED, State, matches


@dataclass(frozen=True)
class Status:
    """One task at a glance: what the log says, what MLflow's stage and alias say, and the difference in words.

    ``drift`` is what was moved or deleted by hand and ``remedy`` what settles it, ``faults`` what shows that the log
    was edited, or a mending that failed.
    """

    task: str
    production: Version | None
    staging: Version | None
    versions: int
    head: Release | None
    stage: tuple[int, ...] = ()
    alias: tuple[int, ...] = ()
    drift: str = ""
    remedy: str = ""
    faults: tuple[str, ...] = ()
    newest: Version | None = None

    @property
    def alarms(self) -> tuple[str, ...]:
        """All that a person must look at."""
        return (*filter(None, [self.drift]), *self.faults)


@dataclass(frozen=True)
class Entry:
    """A line of the history. A void entry came after another that was based on the same head, and changed nothing."""

    release: Release
    void: bool
    broken: bool  # it does not stand upon the entry before it as that now reads


def status(store: Store, task: str) -> Status:
    """How a task stands, all of its log read."""
    state, failed = settled(store, task)
    at_stage, at_alias = state.shown
    head = state.head
    return Status(
        task=task,
        production=state.live,
        staging=state.staged,
        versions=len(state.versions),
        head=head,
        stage=tuple(sorted(at_stage)),
        alias=tuple(sorted(at_alias)),
        drift=state.drift,
        remedy=state.remedy if state.drift else "",
        faults=tuple(filter(None, (state.cut, *state.broken, failed))),
        newest=state.versions[-1] if state.versions else None,
    )


def statuses(store: Store) -> Iterator[Status]:
    """How every task stands, by name: at a glance where nothing stirs, else as ``status``.

    A glance is two bulk queries for all tasks together. It sees the heads and not the logs behind them, nor a second,
    lower version that was put into Production by hand; ``status`` of the task and ``preface verify`` do.
    """
    for head in sorted(store.overview(), key=lambda head: head.task):
        yield _glance(head) or status(store, head.task)


def _glance(seen: Head) -> Status | None:
    """The status of a task at rest, None where that needs a closer look."""
    last = seen.last
    stages = {version.stage: version for version in seen.latest}
    live = stages.get("Production")
    stirs = (
        not seen.latest
        or any(key.startswith(PENDING) for key in seen.tags)
        or any(v.tag("gate") and v.tag("settled") != v.tag("gate") for v in seen.latest)
        or (last is None) != (PROJECTED not in seen.tags)
        or (live.number if live else None) != seen.aliases.get("production")
        or (last is None and live is not None)
        or (last is not None and seen.tags.get(PROJECTED) != f"{last.number} {last.hash}")
        or (last is not None and (live is None or not matches(last, live)))
    )
    if stirs:
        return None
    return Status(
        task=seen.task,
        production=live,
        staging=stages.get("Staging"),
        versions=max(version.number for version in seen.latest),
        head=last,
        stage=(live.number,) if live else (),
        alias=(live.number,) if live else (),
        newest=max(seen.latest, key=lambda version: version.number),
    )


def current(store: Store, task: str, stage: Stage) -> Version | None:
    """The version at a stage, None if there is none. Production is what the release log says, if it is still there."""
    if stage == "Production":
        line = effective(store.releases(task))
        with suppress(NotFound):  # deleted from MLflow: `preface status` tells it
            found = store.version(task, line[-1].version) if line else None
            return found if found and matches(line[-1], found) else None
        return None
    return State(task, store.versions(task), [], {}).staged


def find(store: Store, address: str) -> Version:
    """The version that ``TASK@7``, ``TASK@staging`` or ``TASK@production`` names."""
    task, _, which = address.partition("@")
    number = count(which)
    if task and number is not None:
        return store.version(task, number)
    stages: dict[str, Stage] = {"staging": "Staging", "production": "Production"}
    if not task or which not in stages:
        raise RegistryError(
            f"{sanitized(address)!r} names no version; write TASK@NUMBER, TASK@staging or TASK@production"
        )
    version = current(store, task, stages[which])
    if version is None:
        raise NotFound(f"{task} has no version in {stages[which]}; see `preface status {task}`")
    return version


def history(store: Store, task: str) -> list[Entry]:
    """Every entry of the task's release log, oldest first, the void ones too."""
    state = State(task, [], store.releases(task), {})
    took_effect, broken = {entry.number for entry in state.line}, {state.line[place].number for place in state.breaks}
    return [
        Entry(entry, void=entry.number not in took_effect, broken=entry.number in broken)
        for entry in sorted(state.entries, key=lambda entry: entry.number)
    ]
