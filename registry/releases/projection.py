"""Brings MLflow's stages, aliases and marks after the release log and the gates, from wherever a crash left them.

``plan`` says what is still to be written, given what the store says now: pure, and empty once all is as it should be.
``reconcile_projection`` reads, writes and reads again until nothing is left, so that of several who do it at once the
last to look has it right. Whoever is killed on the way leaves a mark, and whoever comes next goes on. What may go where
is not decided here.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from components.errors import NotFound, RegistryError, StoreUnavailable
from registry.protocol import Store, Version
from registry.release_log import PREFIX, count, rolled_away
from registry.releases.state import PENDING, PROJECTED, State, read

# Nothing here takes so long: a mark that is older was left by a process that was killed.
STALE = timedelta(minutes=10)
ROUNDS, TRIES = 50, 4
# Characters of a mark that repeats an entry's words: one that MLflow refuses would stop every later move.
LONGEST = 5000


@dataclass(frozen=True)
class Write:
    """One call to the store about a task: the method, and what it is given beside the task."""

    method: str
    arguments: tuple[object, ...]


def reconcile_projection(store: Store, task: str, force: bool = False) -> State:
    """Bring everything after the log, and say how it now stands.

    Args:
        force: also what was moved by hand, which is otherwise left alone.
    """
    mark, staged, failed, before = PENDING + uuid.uuid4().hex[:12], False, 0, None
    store.tag_task(task, mark, f"{now()} {user()}@{socket.gethostname()} {_process()}")
    for _ in range(ROUNDS):
        state = read(store, task)
        todo = list(plan(state, mark, force, staged))
        if not todo and _is_sure(state, before):
            store.untag_task(task, mark)
            return state
        # Once stages are brought after the log, what then disagrees may be one's own write that came late.
        before, force = state, force or _is_due(state, mark)
        for write in todo:
            staged = staged or "Staging" in write.arguments
            try:
                getattr(store, write.method)(task, *write.arguments)
            except RegistryError:
                # Of two that set or take away the same thing at one moment, databases refuse one: look who was it.
                failed += 1
                if failed > TRIES:
                    raise
                break
    raise StoreUnavailable(
        f"{task} was moved by others {ROUNDS} times while its stages were brought after the log; run the command again"
    )


def repair(store: Store, task: str) -> State:
    """How the task stands, once what an interrupted operation left is brought to its end."""
    state, before = read(store, task), None
    for _ in range(ROUNDS):
        if state.interrupted:
            return reconcile_projection(store, task)
        if _is_sure(state, before):
            break
        before, state = state, read(store, task)
    return state


def settled(store: Store, task: str) -> tuple[State, str]:
    """The same for who only looks: as it stands, and why, where that could not be brought to its end."""
    try:
        return repair(store, task), ""
    except NotFound:
        raise
    except RegistryError as error:  # who may only read, or a store that takes no writes now
        return read(store, task), f"what an interrupted command left could not be mended: {error}"


def _is_sure(state: State, before: State | None) -> bool:
    """Whether the task stands so: its parts are read one by one, and a difference counts once it is seen twice."""
    return not (state.drift or state.cut) or state == before


def _is_due(state: State, own: str) -> bool:
    """Whether something began here that must be brought to its end, by others than who left the mark ``own``."""
    return bool(state.pending.keys() - {own}) or state.unprojected


def plan(state: State, own: str = "", force: bool = False, staged: bool = False) -> Iterator[Write]:
    """What is to be written, in order; nothing if all is settled.

    Args:
        own: the caller's own mark, which says nothing of anybody else.
        force: overrule what was moved by hand.
        staged: the caller put a version into Staging; another may have moved on before that arrived.
    """
    others = {key: value for key, value in state.pending.items() if key != own}
    head, live = state.head, state.live
    too_late = staged and live is not None and (live.stage == "Staging" or "staging" in live.aliases)
    if head and (force or too_late or _is_due(state, own)):
        yield from _project(state)
    elif force and not head and not state.cut:
        yield from _clear(state)
    if staged or others:
        yield from _take_out(state)
    # After the head has left Staging: whoever waits takes that place.
    yield from _settle(state, loose=force or staged or bool(others))
    for key, value in others.items():
        if _is_over(value):
            yield Write("untag_task", (key,))


def _settle(state: State, loose: bool) -> Iterator[Write]:
    """Versions whose gate has spoken: duplicates are marked, and of those that passed the newest waits in Staging.

    Args:
        loose: what stands in Staging may be nobody's decision.
    """
    fresh, out = [], set(state.released)
    for version in state.unsettled:
        mark = version.tag("fingerprint")
        first = min(v.number for v in state.versions if v.ready and v.tag("fingerprint") == mark)
        if first != version.number and not version.tag("forced") and not version.tag("duplicate_of"):
            # Two runs of one fingerprint can pass each other unasked; the lowest number is the one that counts.
            yield Write("tag_version", (version.number, PREFIX + "duplicate_of", str(first)))
            yield Write("tag_version", (version.number, PREFIX + "settled", version.tag("gate")))
            out.add(version.number)
        else:
            fresh.append(version)
    moves, since = [], 0
    decided = any(v.number not in out and (_passed(v) or v.stage == "Staging") for v in fresh)
    if not decided:  # what gave way in Staging to a version that was then released does not come back by itself
        since = max(state.released, default=0)
    if loose or decided:
        moves = list(_stage([v for v in state.versions if v.number not in out and v.number > since]))
        yield from moves
    if not moves:  # settled once it is seen to stand there: a slower registration may put its own in that place
        for version in fresh:
            yield Write("tag_version", (version.number, PREFIX + "settled", version.tag("gate")))


def _take_out(state: State) -> Iterator[Write]:
    """What was in Production waits for nothing: it was put into Staging by somebody who had not seen that yet."""
    ever = state.released - {entry.version for entry in state.line[-1:]}
    for version in state.versions:
        if version.number in ever and version.stage == "Staging":
            yield Write("set_stage", (version.number, "Archived"))
        if version.number in ever:
            yield from _no_longer_staging(version)


def _passed(version: Version) -> bool:
    return version.ready and version.gate.verdict == "passed" and not version.tag("duplicate_of")


def _stage(versions: Sequence[Version]) -> Iterator[Write]:
    """The newest that passed into Staging, and out what did not pass; of versions that were never in Production."""
    due = max((version for version in versions if _passed(version)), key=lambda version: version.number, default=None)
    if due and (due.stage != "Staging" or "staging" not in due.aliases):
        yield Write("set_stage", (due.number, "Staging"))
        yield Write("set_alias", ("staging", due.number))
    elif not due:
        for version in versions:
            if version.stage == "Staging":
                yield Write("set_stage", (version.number, "None"))
            yield from _no_longer_staging(version)


def _no_longer_staging(version: Version) -> Iterator[Write]:
    if "staging" in version.aliases:
        yield Write("set_alias", ("staging", None))


def _project(state: State) -> Iterator[Write]:
    """Stage, alias, marks of what was rolled away from, and last the entry that all of this follows."""
    head, (at_stage, at_alias) = state.line[-1], state.shown
    version = state.live
    if version:  # deleted from MLflow by hand otherwise: told as drift
        if at_stage != {head.version}:
            yield Write("set_stage", (head.version, "Production"))
        if at_alias != {head.version}:
            yield Write("set_alias", ("production", head.version))
        yield from _no_longer_staging(version)
    away = rolled_away(state.line)
    for other in state.versions:
        entry = away.get(other.number) if other.number in state.released else None
        said = f"{entry.when} {entry.who}: {entry.reason}"[:LONGEST] if entry else ""
        if other.tag("rolled_away") != said:
            yield Write("tag_version", (other.number, PREFIX + "rolled_away", said))
    wanted = f"{head.number} {head.hash}"
    if state.tags.get(PROJECTED) != wanted:
        yield Write("tag_task", (PROJECTED, wanted))


def _clear(state: State) -> Iterator[Write]:
    """Nothing was ever released: what stands in Production was put there by hand."""
    at_stage, at_alias = state.shown
    for number in sorted(at_stage):
        yield Write("set_stage", (number, "None"))
    if at_alias:
        yield Write("set_alias", ("production", None))


def _is_over(mark: str) -> bool:
    """Whether whoever left the mark is gone: its process is not on this machine any more, or it is too long ago."""
    when, _, rest = mark.partition(" ")
    who, _, process = rest.rpartition(" ")
    try:
        if abs(datetime.now(UTC) - datetime.fromisoformat(when)) > STALE:  # no mark is of a time to come either
            return True
        said, _, room = process.partition(":")
        if who.rpartition("@")[2] == socket.gethostname() and room in ("", _room()):
            number = count(said)
            if not number:  # 0 and below mean groups of processes
                return True
            os.kill(number, 0)
    except PermissionError:  # it is there, and another user's
        return False
    except (ValueError, TypeError, OverflowError, ProcessLookupError):
        return True
    return False


def _process() -> str:
    """This process, by its number and the room in which it has that: containers may share a host's name."""
    return f"{os.getpid()}:{_room()}"


def _room() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:  # no Linux
        return ""


def now() -> str:
    """The time as entries and marks say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user() -> str:
    """The user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
