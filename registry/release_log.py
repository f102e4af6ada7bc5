"""The release log: the history of one task's Production, as pure functions of its entries.

It is append-only and totally ordered. An entry names the one that was the head when it was written (``based_on``), and
that one's hash; it takes effect only if no other came between. One that came too late is void: kept, shown, without
effect. Nobody writes upon a void or absent entry, so one that is named all the same was edited or deleted afterwards:
it still counts, and the break shows. This module knows neither where the log is kept nor who may be promoted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Literal, cast, get_args

Action = Literal["promote", "rollback", "adopt"]
PREFIX = "preface."
NO_ENTRY = 0  # MLflow counts versions, and so entries, from 1


@dataclass(frozen=True)
class Release:
    """One entry of the log: who put which version into Production, when, why, and upon which entry.

    ``digest`` and ``gate`` are the version's own, as they were then: which bytes, on which report. ``override`` holds
    the refusals that somebody overrode, ``drift`` what had been moved by hand before. ``token`` is the caller's: by it
    a caller knows its own entry where an answer was lost and the request was sent twice.
    """

    action: Action
    version: int
    based_on: int
    head_hash: str
    who: str
    host: str
    when: str
    reason: str
    git_commit: str
    digest: str = ""
    gate: str = ""
    override: str = ""
    drift: str = ""
    token: str = ""
    number: int = field(default=NO_ENTRY, compare=False)  # given by the store

    @property
    def hash(self) -> str:
        """Over everything that the entry says, its place in the log included."""
        content = {**self.tags(), "number": str(self.number)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def tags(self) -> dict[str, str]:
        return {PREFIX + f.name: str(getattr(self, f.name)) for f in fields(self) if f.name != "number"}

    @classmethod
    def from_tags(cls, number: int, tags: Mapping[str, str]) -> Release | None:
        """The entry that these tags spell, None if they spell none: somebody made or spoilt it by hand."""
        said = {f.name: tags.get(PREFIX + f.name, "") for f in fields(cls) if f.name != "number"}
        action, version, based_on = said.pop("action"), count(said.pop("version")), count(said.pop("based_on"))
        if action not in get_args(Action) or version is None or based_on is None:
            return None
        return cls(cast(Action, action), version, based_on, **said, number=number)


def effective(entries: Iterable[Release]) -> list[Release]:
    """The entries that took effect, oldest first. The last is the head: its version is in Production."""
    entries = sorted(entries, key=lambda entry: entry.number)
    named = {entry.based_on for entry in entries}
    line: list[Release] = []
    for entry in entries:
        head = line[-1].number if line else NO_ENTRY
        if entry.based_on == head or entry.number in named or entry.based_on > head:
            line.append(entry)
    return line


def breaks(line: Sequence[Release]) -> list[int]:
    """Places in the line at which an entry does not stand upon the one before it as that now reads."""
    ground = [(NO_ENTRY, ""), *((entry.number, entry.hash) for entry in line)]
    return [place for place, entry in enumerate(line) if (entry.based_on, entry.head_hash) != ground[place]]


def rolled_away(line: Sequence[Release]) -> dict[int, Release]:
    """Versions that a rollback took out of Production and nothing put back since, each with that rollback."""
    bad: dict[int, Release] = {}
    for before, entry in pairwise(line):
        if entry.action == "rollback":
            bad[before.version] = entry
        bad.pop(entry.version, None)
    return bad


def beneath(line: Sequence[Release]) -> list[Release]:
    """What lies beneath the present version, nearest last: where rollbacks can land, one after the other.

    A rollback takes off all that was put on top of the version that it lands on, so that the next one goes further back
    and never forth. What stands before a break in the chain is left out: an edited history chooses no version.
    """
    first = max(breaks(line), default=0)
    stack: list[tuple[Release, int]] = []
    for place, entry in enumerate(line):
        versions = [before.version for before, _ in stack]
        if entry.action == "rollback" and entry.version in versions:
            del stack[len(versions) - 1 - versions[::-1].index(entry.version) :]
        stack.append((entry, place))
    return [entry for entry, place in stack[:-1] if place >= first]


def last_good(line: Sequence[Release], undone: Callable[[Release], bool] = lambda entry: False) -> int | None:
    """The version that was last in Production before the present one and was not rolled away from.

    Args:
        undone: entries that are to be undone together with the head, and so are passed over.
    """
    unfit = {*rolled_away(line), *(entry.version for entry in line[-1:])}
    good = (entry for entry in reversed(beneath(line)) if entry.version not in unfit and not undone(entry))
    return next((entry.version for entry in good), None)


def count(text: object) -> int | None:
    """The number of a version or an entry that a text spells; None where no store can have given such a one out.

    Stores count up from 1, one at a time. Tags can be edited, and what is a billion would be counted up to.
    """
    said = str(text)
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else None
