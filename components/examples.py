"""Rows become examples: checked, truncated, freed of duplicates, and split by their own text.

A row's split follows from a hash of its normalised text, so one text never lands in two splits and adding rows moves
none. Nothing is written here, and whether there are enough good rows is not decided here.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from components.errors import DataError
from components.params import SPLITS, DataParams, Split, SplitParams
from components.rows import Row
from components.template import truncate
from components.values import answer_of, number_of, text_of


@dataclass(frozen=True)
class Example:
    """One text and what should be answered: a label, or free text. ``id`` is a hash of the normalised text."""

    id: str
    text: str
    target: str


Placed = tuple[str, Example]  # where its row stands, and the example


@dataclass
class Tally:
    """What became of the rows that did not become examples: for each reason, where they stand."""

    read: int = 0
    truncated: int = 0
    dropped: dict[str, list[str]] = field(
        default_factory=lambda: {r: [] for r in ("bad", "out_of_range", "conflicting", "duplicate", "over_limit")}
    )


def normalise(text: str) -> str:
    """What makes two texts the same: compatibility forms, letter case and white space do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def id_of(text: str) -> str:
    """16 hexadecimal digits out of the sha256 of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:16]


def split_of(text: str, shares: SplitParams) -> Split:
    """The split of a text, decided by the text alone."""
    return _split_of_id(id_of(text), shares)


def _split_of_id(id_: str, shares: SplitParams) -> Split:
    """The id's first half says the split; its second half, independent of it, says who goes when there is a limit."""
    place = int(id_[:8], 16) / 2**32
    if place < shares.train:
        return "train"
    return "validation" if place < shares.train + shares.validation else "test"


def examples(rows: Iterable[Row], data: DataParams, tokenizer: Tokenizer) -> tuple[dict[Split, list[Example]], Tally]:
    """Examples by split, each in the order of the ids, and the tally of what was dropped."""
    tally = Tally()
    alike: dict[str, list[Placed]] = defaultdict(list)
    for row in rows:
        tally.read += 1
        try:
            made = _example(row, data, tokenizer, tally)
        except DataError as fault:
            tally.dropped["bad"].append(f"{row.where}: {fault}")
            continue
        if made is None:
            tally.dropped["out_of_range"].append(row.where)
        else:
            # What is left after truncation must differ too, or one text would be trained on and tested on.
            alike[normalise(made.text)].append((row.where, made))

    kept: dict[Split, list[Placed]] = {split: [] for split in SPLITS}
    for group in alike.values():
        if len({example.target for _, example in group}) > 1:
            tally.dropped["conflicting"] += [where for where, _ in group]
            continue
        tally.dropped["duplicate"] += [where for where, _ in group[1:]]
        kept[_split_of_id(group[0][1].id, data.split)].append(group[0])
    return {split: _limited(placed, getattr(data.limit, split), tally) for split, placed in kept.items()}, tally


def _limited(placed: list[Placed], limit: int | None, tally: Tally) -> list[Example]:
    """At most ``limit`` examples, the same ones whatever the order of the rows; in the order of the ids."""
    ranked = sorted(placed, key=lambda pair: (pair[1].id[8:], pair[1].id))
    over = len(ranked) if limit is None else limit
    tally.dropped["over_limit"] += [where for where, _ in ranked[over:]]
    return sorted((example for _, example in ranked[:over]), key=lambda example: example.id)


def _example(row: Row, data: DataParams, tokenizer: Tokenizer, tally: Tally) -> Example | None:
    """The row's example; None where its number lies in none of the ranges; DataError where it is a bad row."""
    if row.fault is not None:
        raise DataError(row.fault)
    whole = _string(row.text, data.text, data)
    if data.first_lines is not None:
        lines = [line.strip() for line in whole.splitlines() if line.strip()]
        whole = "\n".join(lines[: data.first_lines])
    target = _target(row.target, data)
    if target is None:
        return None
    text, cut = truncate(tokenizer, whole, data.max_tokens)
    if not text:
        raise DataError(f"the first character of {data.text!r} alone is over max_tokens {data.max_tokens}")
    tally.truncated += cut
    # The id is that of the whole text: its split is then the same whatever base's tokenizer truncates it.
    return Example(id_of(whole), text, target)


def _target(value: object, data: DataParams) -> str | None:
    if data.ranges is not None:
        return _range_of(number_of(value, data.target), data.ranges)
    return answer_of(value, data.target, data.labels, data.encoding)


def _range_of(number: float, ranges: Mapping[str, tuple[float | None, float | None]]) -> str | None:
    for label, (low, high) in ranges.items():
        if (low is None or low <= number) and (high is None or number <= high):
            return label
    return None


def _string(value: object, column: str, data: DataParams) -> str:
    return text_of(value, column, data.encoding)
