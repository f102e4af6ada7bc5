"""Whoever has too few rows is told where they went: the reason is the reason, and not "add rows"."""

from __future__ import annotations

from typing import Any

import pytest

from components.config.params import DataParams
from components.data.lost_rows import refuse_contradictions, where_rows_went
from components.data.tally import Tally
from components.errors import DataError


def tally(read: int, truncated: int = 0, **dropped: int) -> Tally:
    """Of so many rows so many were dropped, the first on line 2."""
    made = Tally(read, truncated)
    for why, count in dropped.items():
        for number in range(count):
            made.dropped[why].add(f"a.csv:{number + 2}", number)
    return made


def data(**settings: Any) -> DataParams:
    return DataParams.model_validate({"source": "rows", "format": "csv", "labels": ["joy", "fear"]} | settings)


def test_several_labels_a_text_are_told_as_such_with_their_lines() -> None:
    with pytest.raises(DataError) as caught:
        refuse_contradictions("mood", tally(300, conflicting=300), data())
    assert str(caught.value) == (
        "mood: 300 of 300 rows repeat a text under another label (a.csv:2, a.csv:3, a.csv:4, ...); a text has one"
        " label here: keep one row of each text, or make a task of each label (tasks.mood.data.labels)"
    )


def test_several_answers_a_question_are_told_as_such() -> None:
    with pytest.raises(DataError, match=r"4 of 6 rows repeat a text with another answer .*keep one row of each text$"):
        refuse_contradictions("sum", tally(6, conflicting=4), data(labels=None))


def test_texts_that_were_cut_to_the_same_beginning_are_told_as_such() -> None:
    with pytest.raises(DataError, match=r"\(280 texts were cut after 16 tokens, and count as one where the rest is"):
        refuse_contradictions("mood", tally(300, 280, conflicting=299), data(max_tokens=16))


def test_a_few_contradictions_are_no_reason_to_refuse() -> None:
    refuse_contradictions("mood", tally(300, conflicting=150), data())


def test_every_reason_is_named_with_its_number_and_its_first_rows() -> None:
    assert where_rows_went(tally(202, conflicting=2, duplicate=198, out_of_range=1), data()) == (
        ": of 202 rows read, 2 repeat a text under another label (a.csv:2, a.csv:3), 1 lie in none of"
        " data.ranges (a.csv:2), 198 repeat another row (a.csv:2, a.csv:3, a.csv:4, ...)"
    )
    assert where_rows_went(tally(202), data()) == ""
