"""Where the rows went that make no example, in words, for whoever is told that too few are left.

Decides alone whether so many rows contradict each other that the file is not of one answer a text.
"""

from __future__ import annotations

from components.config.params import DataParams
from components.data.tally import Dropped, Tally
from components.errors import DataError

_MOST = 0.5  # of the rows may contradict each other; where more do, that is what the data are


def refuse_contradictions(task: str, tally: Tally, data: DataParams) -> None:
    """Nothing, if at most half of the rows repeat a text with another answer.

    Raises:
        DataError: more do: several labels a text, or texts that were cut to the same beginning.
    """
    conflicting = tally.dropped["conflicting"]
    if conflicting.rows > _MOST * tally.read:
        one = "label" if data.labels is not None else "answer"
        many = f", or make a task of each label (tasks.{task}.data.labels)" if data.labels is not None else ""
        raise DataError(
            f"{task}: {conflicting.rows} of {tally.read} rows {_contradicting(data)} ({_first(conflicting)}); a text"
            f" has one {one} here: keep one row of each text{many}{_cut(data, tally.truncated)}"
        )


def where_rows_went(tally: Tally, data: DataParams) -> str:
    """Every reason for which rows went, each with their number, as the middle of a sentence; empty if none went."""
    whys = {
        "conflicting": _contradicting(data),
        "bad": "are bad",
        "out_of_range": "lie in none of data.ranges",
        "duplicate": "repeat another row",
        "over_limit": "are over data.limit",
    }
    gone = {words: tally.dropped[why] for why, words in whys.items() if tally.dropped[why].rows}
    said = [f"{dropped.rows} {words} ({_first(dropped)})" for words, dropped in gone.items()]
    alike = tally.dropped["conflicting"].rows + tally.dropped["duplicate"].rows
    cut = _cut(data, tally.truncated) if alike else ""
    return f": of {tally.read} rows read, {', '.join(said)}{cut}" if said else ""


def _contradicting(data: DataParams) -> str:
    return f"repeat a text {'under another label' if data.labels is not None else 'with another answer'}"


def _first(dropped: Dropped) -> str:
    return ", ".join(dropped.first[:3]) + (", ..." if dropped.rows > 3 else "")


def _cut(data: DataParams, truncated: int) -> str:
    """Texts that differ behind the cut alone are one text: told where any was cut."""
    if not truncated:
        return ""
    return f" ({truncated} texts were cut after {data.max_tokens} tokens, and count as one where the rest is the same)"
