"""What became of the rows that are no examples: all are counted, and the first few of each kind are named."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

NAMED = 20  # how many dropped rows of each kind are named
REASONS = ("bad", "out_of_range", "conflicting", "duplicate", "over_limit")


@dataclass
class Dropped:
    """Rows dropped for one reason, told one by one in any order: how many, and the places of the first few."""

    named: int = NAMED
    rows: int = 0
    _first: list[tuple[tuple[int, ...], str]] = field(default_factory=list)

    def add(self, where: str, *rank: int) -> None:
        """Count a row; ``rank`` says which rows are the first, whenever they are told."""
        self.rows += 1
        one = (rank, where)
        if len(self._first) < self.named or one < self._first[-1]:
            self._first.insert(bisect_left(self._first, one), one)
            del self._first[self.named :]

    @property
    def first(self) -> list[str]:
        return [where for _, where in self._first]


@dataclass
class Tally:
    """How many rows were read and cut, and for each reason those that were dropped."""

    read: int = 0
    truncated: int = 0
    dropped: dict[str, Dropped] = field(default_factory=lambda: {why: Dropped() for why in REASONS})
