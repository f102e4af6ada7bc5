"""The whole registry, task by task and version by version: every break of a chain, of a log, or of a projection.

Looks and mends nothing, so that whoever may only read can walk too. Whatever cannot be read is itself a break, and the
walk goes on; a store that does not answer at all is left alone after a few times. What a version's chain is made of is
in ``version_chain.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from components.errors import PrefaceError
from registry.audit.local_environment import LocalEnvironment
from registry.audit.patience import Asking
from registry.audit.version_chain import links
from registry.protocol import Store, Version
from registry.releases.projection import plan
from registry.releases.state import State, read


@dataclass(frozen=True)
class Break:
    """Where, in which link, and what."""

    where: str
    link: str
    fault: str


@dataclass(frozen=True)
class Walked:
    """A task as a whole (``version`` None), or one of its versions, with its breaks."""

    task: str
    version: int | None
    breaks: tuple[Break, ...]


def verify_registry(open_store: Callable[[], Store], tasks: Sequence[str], here: LocalEnvironment) -> Iterator[Walked]:
    """Walk the tasks. Whoever runs it to its end knows every break.

    Args:
        open_store: gives a store. Each task gets its own: a store keeps what it downloads for as long as it lives.
    """
    asking, unasked = Asking(), 0
    for task in tasks:
        try:
            store, state, log = asking.tracking.ask(partial(_opened, open_store, task))
        except Exception as error:
            yield Walked(task, None, (Break(task, "task", _unreadable(error)),))
            if asking.tracking.spent:
                left = f"it did not answer {asking.tracking.limit} times in a row, so the walk ends at {task}"
                yield Walked(task, None, (Break("registry", "tracking store", left),))
                return
            continue
        yield Walked(task, None, tuple(Break(task, link, fault) for link, fault in log))
        for version in state.versions:
            broken, silent = _version(store, version, state, here, asking)
            unasked += silent
            yield Walked(task, version.number, broken)
    if unasked:
        left = (
            f"it did not answer {asking.artifacts.limit} times in a row, and was not asked for {unasked} more versions"
        )
        yield Walked("", None, (Break("registry", "artifact store", left),))


def _opened(open_store: Callable[[], Store], task: str) -> tuple[Store, State, list[tuple[str, str]]]:
    """The task, and what is wrong with it as a whole: seen twice, since it is read part by part and may be moving."""
    store = open_store()
    state = read(store, task)
    log = list(_log(state))
    if log:
        state = read(store, task)
        again = set(_log(state))
        log = [fault for fault in log if fault in again]
    return store, state, log


def _version(
    store: Store, version: Version, state: State, here: LocalEnvironment, asking: Asking
) -> tuple[tuple[Break, ...], bool]:
    """The version's breaks, and whether a store that was given up on kept some from being seen."""
    try:
        chain = links(store, version, state, here, asking)
    except Exception as error:  # what nobody foresaw is a break of this version, and not the end of the walk
        return (Break(version.name, "version", _unreadable(error)),), False
    found = tuple(Break(version.name, link.name, link.fault) for link in chain if link.fault and link.asked)
    return found, not all(link.asked for link in chain)


def _log(state: State) -> Iterator[tuple[str, str]]:
    """In what the task's log is not whole, and stages, aliases and marks are not after it."""
    task, versions = state.task, {version.number for version in state.versions}
    for fault in (*state.broken, state.cut):
        if fault:
            yield "release log", fault
    for first, last in _absent({entry.number for entry in state.entries}, state.projected[0]):
        what = f"release {first} is" if first == last else f"releases {first} to {last} are"
        yield "release log", f"{what} not there: deleted, or made unreadable"
    for first, last in _absent(versions, 0):
        yield (
            "versions",
            f"version {first} was deleted" if first == last else f"versions {first} to {last} were deleted",
        )
    for entry in state.entries:
        if entry.version not in versions:
            yield "release log", f"release {entry.number} names version {entry.version}, which does not exist"
    if state.interrupted:
        who = ", ".join(state.pending.values()) or "nobody any more"
        yield "projection", f"an operation did not come to its end (at it: {who}); `preface status {task}` mends that"
        return
    if state.drift:
        yield "projection", f"{state.drift}; {state.remedy}"
        return
    staged = {v.number for v in state.versions if v.stage == "Staging"}
    aliased = {v.number for v in state.versions if "staging" in v.aliases}
    if staged != aliased:
        said = f"MLflow's stage Staging says {sorted(staged) or 'nothing'}, its alias {sorted(aliased) or 'nothing'}"
        yield "projection", f"{said}; `preface reconcile {task} --restore` puts the newest that passed there"
    # Which version waits in Staging is anybody's choice, as long as it passed: its own gate report says that.
    left = [write for write in plan(state, force=True) if not {"Staging", "staging"} & {*write.arguments}]
    if left:
        what = "; ".join(f"{write.method} {' '.join(map(repr, write.arguments))}" for write in left)
        yield "projection", f"not after the log: {what}; `preface reconcile {task} --restore` does it"


def _absent(numbers: set[int], at_least: int) -> list[tuple[int, int]]:
    """The gaps from 1 to the highest number, each as its first and last: a tag that was edited may say any number."""
    ends = [0, *sorted(numbers), max(numbers | {at_least}, default=0) + 1]
    return [(before + 1, after - 1) for before, after in pairwise(ends) if after - before > 1]


def _unreadable(error: Exception) -> str:
    return f"cannot be read: {error if isinstance(error, PrefaceError) else repr(error)}"
