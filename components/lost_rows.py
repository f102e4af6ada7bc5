"""Where the rows went that make no example, in words, for whoever is told that too few are left.

Decides alone whether so many rows contradict each other that the file is not of one answer a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.errors import DataError
from components.params import DataParams

Dropped = Mapping[str, tuple[int, Sequence[str]]]  # by the reason: how many rows, and where the first of them stand
_MOST = 0.5  # of the rows may contradict each other; where more do, that is what the data are


def refuse_contradictions(task: str, read: int, dropped: Dropped, data: DataParams, truncated: int = 0) -> None:
    """Nothing, if at most half of the rows repeat a text with another answer.

    Raises:
        DataError: more do: several labels a text, or texts that were cut to the same beginning.
    """
    count, first = dropped["conflicting"]
    if count > _MOST * read:
        one = "label" if data.labels is not None else "answer"
        raise DataError(
            f"{task}: {count} of {read} rows {_contradicting(data)} ({_first(count, first)}); a text has one {one}"
            " here: keep one row of each text"
            + (f", or make a task of each label (tasks.{task}.data.labels)" if data.labels is not None else "")
            + _cut(data, truncated)
        )


def where_rows_went(read: int, dropped: Dropped, data: DataParams, truncated: int = 0) -> str:
    """Every reason for which rows went, each with their number, as the middle of a sentence; empty if none went."""
    whys = {
        "conflicting": _contradicting(data),
        "bad": "are bad",
        "out_of_range": "lie in none of data.ranges",
        "duplicate": "repeat another row",
        "over_limit": "are over data.limit",
    }
    said = [f"{dropped[why][0]} {words} ({_first(*dropped[why])})" for why, words in whys.items() if dropped[why][0]]
    alike = dropped["conflicting"][0] + dropped["duplicate"][0]
    return f": of {read} rows read, {', '.join(said)}{_cut(data, truncated) if alike else ''}" if said else ""


def _contradicting(data: DataParams) -> str:
    return f"repeat a text {'under another label' if data.labels is not None else 'with another answer'}"


def _first(count: int, first: Sequence[str]) -> str:
    return ", ".join(first[:3]) + (", ..." if count > 3 else "")


def _cut(data: DataParams, truncated: int) -> str:
    """Texts that differ behind the cut alone are one text: told where any was cut."""
    if not truncated:
        return ""
    return f" ({truncated} texts were cut after {data.max_tokens} tokens, and count as one where the rest is the same)"
