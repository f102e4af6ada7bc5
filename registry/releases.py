"""The release log: the history of one task's Production, as a pure function of its entries.

It is append-only and totally ordered. An entry names the entry that was the head when it was written (`based_on`), and
that entry's hash; it takes effect only if no other came between. One that came too late is void: kept, shown, without
effect. This module knows neither where the log is kept nor who may be promoted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Literal, cast, get_args

Action = Literal["promote", "rollback"]
PREFIX = "preface."
NO_ENTRY = 0  # MLflow counts versions, and so entries, from 1


@dataclass(frozen=True)
class Release:
    """One entry of the log: who put which version into Production, when, why, and upon which entry."""

    action: Action
    version: int
    based_on: int
    head_hash: str
    who: str
    host: str
    when: str
    reason: str
    git_commit: str
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
        """The entry that these tags spell, None if they spell none: somebody made it by hand."""
        said = {f.name: tags.get(PREFIX + f.name, "") for f in fields(cls) if f.name != "number"}
        action, version, based_on = said.pop("action"), said.pop("version"), said.pop("based_on")
        if action not in get_args(Action) or not (version.isdecimal() and based_on.isdecimal()):
            return None
        return cls(cast(Action, action), int(version), int(based_on), **said, number=number)


def effective(entries: Iterable[Release]) -> list[Release]:
    """The entries that took effect, oldest first. The last is the head: its version is in Production."""
    line: list[Release] = []
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.based_on == (line[-1].number if line else NO_ENTRY):
            line.append(entry)
    return line


def rolled_away(line: Sequence[Release]) -> dict[int, Release]:
    """Versions that a rollback took out of Production and nothing put back since, each with that rollback."""
    bad: dict[int, Release] = {}
    for before, entry in pairwise(line):
        if entry.action == "rollback":
            bad[before.version] = entry
        bad.pop(entry.version, None)
    return bad


def last_good(line: Sequence[Release]) -> int | None:
    """The version that was last in Production before the present one and was not rolled away from."""
    if not line:
        return None
    unfit = {*rolled_away(line), line[-1].version}
    return next((entry.version for entry in reversed(line) if entry.version not in unfit), None)
