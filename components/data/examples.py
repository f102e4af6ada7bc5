"""Rows become examples: checked, truncated, and given the id that says their split.

A row's split follows from a hash of its normalised text, so one text never lands in two splits and adding rows moves
none. Rows are taken as they come and none is held for long; which of several alike stays is not decided here.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

from components.config.params import DataParams, Split, SplitParams
from components.config.values import answer_of, number_of, text_of
from components.data.tally import Tally
from components.data.template import Cut, truncate_all
from components.errors import DataError
from components.rows.reader import Row

BATCH_ROWS, BATCH_CHARACTERS = 4096, 1_000_000  # tokenised in one call: an encoding weighs a hundred times its text


@dataclass(frozen=True)
class Example:
    """One text and what should be answered: a label, or free text. ``id`` is a hash of the normalised text."""

    id: str
    text: str
    target: str


def normalise(text: str) -> str:
    """What makes two texts the same: compatibility forms, letter case and white space do not count."""
    if text.isascii():  # NFKC leaves it as it is
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def id_of(text: str) -> str:
    """16 hexadecimal digits out of the sha256 of the normalised text."""
    return _digest(text)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(normalise(text).encode()).hexdigest()


def split_of_id(id_: str, shares: SplitParams) -> Split:
    """The split of an id: a larger id is never in an earlier split.

    The id's first half says the split; its second half, independent of it, says who goes when there is a limit.
    """
    place = int(id_[:8], 16) / 2**32
    if place < shares.train:
        return "train"
    return "validation" if place < shares.train + shares.validation else "test"


class Made(NamedTuple):
    """An example with what decides whether it stays: its row's number and place, and ``key``, one for each text."""

    number: int
    where: str
    key: str
    id: str
    text: str
    target: str
    tokens: int


class Waiting(NamedTuple):
    """A row that is not dropped so far: its number and place, its whole text and its target."""

    number: int
    where: str
    whole: str
    target: str


class Asked(NamedTuple):
    """Rows that are being tokenised, and what comes of them."""

    rows: list[Waiting]
    cuts: Future[list[Cut]]


def made(rows: Iterable[Row], data: DataParams, tokenizer: Tokenizer, tally: Tally) -> Iterator[Made]:
    """Examples in the order of their rows, the same text as often as it is there; the tally says what was dropped."""
    with ThreadPoolExecutor(1, "tokens") as apart:
        asked: Asked | None = None
        for some in _batches(rows, data, tally):
            before, asked = asked, _asked(some, data, tokenizer, apart)
            if before:
                yield from _cut(before, data, tally)
        if asked:
            yield from _cut(asked, data, tally)


def _batches(rows: Iterable[Row], data: DataParams, tally: Tally) -> Iterator[list[Waiting]]:
    """The rows that are not dropped, as many at a time as are tokenised in one call."""
    waiting: list[Waiting] = []
    weight = 0
    for row in rows:
        tally.read += 1
        try:
            whole, target = _whole(row, data), _target(row.target, data)
        except DataError as fault:
            tally.dropped["bad"].add(f"{row.where}: {fault}", tally.read)
            continue
        if target is None:
            tally.dropped["out_of_range"].add(row.where, tally.read)
            continue
        waiting.append(Waiting(tally.read, row.where, whole, target))
        weight += len(whole)
        if len(waiting) == BATCH_ROWS or weight >= BATCH_CHARACTERS:
            yield waiting
            waiting, weight = [], 0
    if waiting:
        yield waiting


def _asked(some: list[Waiting], data: DataParams, tokenizer: Tokenizer, apart: ThreadPoolExecutor) -> Asked:
    """Tokenised while the next rows are read: the tokenizer, which is no Python, holds this thread up nowhere."""
    return Asked(some, apart.submit(truncate_all, tokenizer, [one.whole for one in some], data.max_tokens))


def _cut(asked: Asked, data: DataParams, tally: Tally) -> Iterator[Made]:
    for (number, where, whole, target), (text, cut, tokens) in zip(asked.rows, asked.cuts.result(), strict=True):
        if not text:
            fault = f"{where}: the first character of {data.text!r} alone is over max_tokens {data.max_tokens}"
            tally.dropped["bad"].add(fault, number)
            continue
        tally.truncated += cut
        # The id is that of the whole text: its split is then the same whatever base's tokenizer truncates it.
        id_ = _digest(whole)
        # What is left after truncation must differ too, or one text would be trained on and tested on.
        yield Made(number, where, (_digest(text) if cut else id_)[:32], id_[:16], text, target, tokens)


def _whole(row: Row, data: DataParams) -> str:
    """The row's text before it is truncated; DataError where it is a bad row."""
    if row.fault is not None:
        raise DataError(row.fault)
    whole = text_of(row.text, data.text, data.encoding)
    if data.first_lines is not None:
        lines = [line.strip() for line in whole.splitlines() if line.strip()]
        whole = "\n".join(lines[: data.first_lines])
    return whole


def _target(value: object, data: DataParams) -> str | None:
    if data.ranges is not None:
        return _range_of(number_of(value, data.target), data.ranges)
    return answer_of(value, data.target, data.labels, data.encoding)


def _range_of(number: float, ranges: Mapping[str, tuple[float | None, float | None]]) -> str | None:
    for label, (low, high) in ranges.items():
        if (low is None or low <= number) and (high is None or number <= high):
            return label
    return None
