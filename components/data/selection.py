"""Which examples stay: one of each text, none where the answers differ, and no more than the limits allow.

Holds the examples of one spilled file at a time, so that memory does not grow with the rows (but for eight bytes for
each example of a split that has a limit). What an example is made of is not known here, nor where the kept ones go.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.config.params import SPLITS, DataParams, Split
from components.data.examples import Example, Made, split_of_id
from components.data.tally import Tally
from components.io.spill import Spill


class Kept(NamedTuple):
    """An example that stays, its split, and how many tokens its text has."""

    example: Example
    split: Split
    tokens: int


def kept(made: Iterable[Made], data: DataParams, tally: Tally, room: Path, parts: int) -> Iterator[Kept]:
    """The examples that stay, in the order of the ids (so that each split stands together, in the order of SPLITS).

    Nothing is given before the last of ``made`` was taken. ``room`` is an empty folder for ``parts`` files at a time.
    """
    with Spill(room / "texts", parts) as texts, Spill(room / "ids", parts) as ids:
        for one in made:
            texts.add(one.key, tuple(one), _weight(one))
        limits = _Limits(data)
        for alike in texts.read():
            for one in _one_of_each(alike, tally):
                limits.count(one.id)
                ids.add(one.id, tuple(one), _weight(one))
        limits.decide()
        for part in ids.read():
            for one in sorted(map(Made._make, part), key=lambda one: (one.id, one.number)):
                split = split_of_id(one.id, data.split)
                if limits.admit(one.id, split):
                    yield Kept(Example(one.id, one.text, one.target), split, one.tokens)
                else:
                    tally.dropped["over_limit"].add(one.where, SPLITS.index(split), _rank(one.id), one.number)


def _weight(one: Made) -> int:
    return len(one.text) + len(one.target)


@dataclass(slots=True)
class _Alike:
    """The rows of one text: the first of them, and the places of the first few."""

    first: Made
    rows: int = 0
    conflict: bool = False
    places: list[tuple[int, str]] = field(default_factory=list)


def _one_of_each(rows: Iterable[tuple[Any, ...]], tally: Tally) -> Iterator[Made]:
    groups: dict[str, _Alike] = {}
    for one in map(Made._make, rows):
        group = groups.setdefault(one.key, _Alike(one))
        group.rows += 1
        group.conflict |= one.target != group.first.target
        if len(group.places) <= tally.dropped["duplicate"].named:
            group.places.append((one.number, one.where))
    for group in groups.values():
        dropped = tally.dropped["conflicting" if group.conflict else "duplicate"]
        # Rows alike are named one after the other, those whose first stands first in the file before the others.
        for number, where in group.places[not group.conflict :]:
            dropped.add(where, group.first.number, number)
        dropped.rows += group.rows - len(group.places)
        if not group.conflict:
            yield group.first


def _rank(id_: str) -> int:
    """Who stays where there is a limit: the smallest."""
    return int(id_[8:] + id_[:8], 16)


class _Limits:
    """Which ids stay where a split has a limit: those of the smallest ranks, in whatever order rows come."""

    def __init__(self, data: DataParams) -> None:
        self._shares = data.split
        self._ranks = {s: array("Q") for s in SPLITS if getattr(data.limit, s) is not None}
        self._limit = {split: int(getattr(data.limit, split)) for split in self._ranks}
        self._last: dict[Split, tuple[int, int]] = {}

    def count(self, id_: str) -> None:
        if self._ranks and (split := split_of_id(id_, self._shares)) in self._ranks:
            self._ranks[split].append(_rank(id_))

    def decide(self) -> None:
        """The last rank that stays, and how many of those that share it do: a cut text may share another's id."""
        for split, counted in self._ranks.items():
            limit = self._limit[split]
            if limit < len(counted):
                ranks = np.frombuffer(counted, np.uint64)
                last = np.partition(ranks, limit - 1)[limit - 1]
                self._last[split] = int(last), limit - int(np.count_nonzero(ranks < last))
        self._ranks.clear()

    def admit(self, id_: str, split: Split) -> bool:
        """Whether the next one of this id stays; ids are asked in the order of their rows."""
        if split not in self._last:
            return True
        last, free = self._last[split]
        rank = _rank(id_)
        if rank == last:
            self._last[split] = last, free - 1
            return free > 0
        return rank < last
