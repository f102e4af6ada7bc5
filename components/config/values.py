"""A value of a row, as some format's reader found it, becomes a text or an answer. Knows no file and no format.

One rule for every format: null, NaN and a text of nothing but white space are missing values, and a missing value is
never the word for it. The words `NA`, `null` and `None` are words. Labels are compared in Unicode's composed form
(NFC), since a Mac takes é apart and a keyboard types it as one; a number is compared by its value, since pandas writes
the integers of a column with a gap as 1.0; true and false are compared without letter case.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

from components.errors import DataError, sanitized

_WHOLE = re.compile(r"(-?\d+)\.0+")
ENCODE = "set data.encoding, as in cp1252 or gb18030, if the file is in another"
_SHOWN = 60  # characters of a value in a message, and labels


def composed(text: str) -> str:
    """The text in Unicode's composed form: what looks the same is then equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def shown(value: object) -> str:
    """A value as part of a message: quoted where it is text, printable, short."""
    try:
        said = sanitized(repr(value[:400]) if isinstance(value, str) else repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists in lists
        said = f"a {type(value).__name__} too large to show"
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."


def text_of(value: object, column: str, encoding: str) -> str:
    """The text of a row, without the white space around it.

    Raises:
        DataError: the value is missing, is no text, or holds bytes that are no characters.
    """
    if not isinstance(value, str):
        _refuse_missing(value, column)
        raise DataError(f"{sanitized(column)!r} holds {type(value).__name__}, not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{sanitized(column)!r} holds bytes that are not {encoding}, or half a character; {ENCODE}"
        ) from error
    text = value.strip()
    if not text:
        raise DataError(f"{sanitized(column)!r} is empty")
    return text


def answer_of(value: object, column: str, labels: Mapping[str, str] | None, encoding: str) -> str:
    """The answer of a row: a label as params.yaml spells it, or any text where there are no labels.

    Raises:
        DataError: the value is missing, is neither text nor a number, or is none of the labels.
    """
    if isinstance(value, str) and labels is not None and value in labels:  # nearly every row: the quick way
        return value
    _refuse_missing(value, column)
    if isinstance(value, bool):
        answer = "true" if value else "false"
    elif isinstance(value, int | float | Decimal):
        answer = _number(value, column)
    else:
        answer = text_of(value, column, encoding)
    if labels is None or answer in labels:
        return answer
    label = same_label(answer, labels)
    if label is None:
        raise DataError(f"label {shown(answer)} is none of {_some(labels)}{near_label(answer, labels)}")
    return label


def number_of(value: object, column: str) -> float:
    """The number that stands in a cell as text or as such.

    Raises:
        DataError: there is none, or it is NaN, true or false.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # what it takes is one
    except (TypeError, ValueError):
        number = math.nan
    except OverflowError:  # an integer of more than 308 digits lies in an open range all the same
        number = math.inf if isinstance(value, int) and value > 0 else -math.inf
    if math.isnan(number):
        raise DataError(f"{sanitized(column)!r} is {shown(value)}, not a number")
    return number


def same_label(answer: str, labels: Iterable[str]) -> str | None:
    """The label that the answer means though it is written in another way; None where none, or several, are meant."""
    by_spelling = _by_spelling(tuple(labels))
    found = {label for spelling in _spellings(answer) for label in by_spelling.get(spelling, ())}
    return found.pop() if len(found) == 1 else None


@lru_cache(maxsize=8)
def _by_spelling(labels: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    spellings: dict[str, list[str]] = {}
    for label in labels:
        for spelling in set(_spellings(label)):
            spellings.setdefault(spelling, []).append(label)
    return spellings


def near_label(answer: str, labels: Iterable[str]) -> str:
    """The label that an answer nearly looks like, as the end of a sentence; empty if there is none."""
    near = [label for label in labels if composed(label).casefold().split() == composed(answer).casefold().split()]
    return f"; {near[0]!r} differs in letter case or white space alone" if near else ""


def same_labels(labels: Iterable[str]) -> tuple[str, str] | None:
    """Two labels that differ in the bytes alone and look the same; None if there are none such."""
    seen: dict[str, str] = {}
    for label in labels:
        if seen.setdefault(composed(label), label) != label:
            return seen[composed(label)], label
    return None


def _spellings(label: str) -> Iterator[str]:
    yield composed(label)
    if whole := _WHOLE.fullmatch(label):
        yield whole[1]
    if label.lower() in ("true", "false"):
        yield label.lower()


def _refuse_missing(value: object, column: str) -> None:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{sanitized(column)!r} is empty")
    if isinstance(value, float | Decimal) and math.isnan(value):
        raise DataError(f"{sanitized(column)!r} is NaN, a missing value")


def _number(value: int | float | Decimal, column: str) -> str:
    if isinstance(value, float) and math.isinf(value):
        raise DataError(f"{sanitized(column)!r} is {value}, not text")
    try:
        return str(value)
    except ValueError as error:  # Python writes no integer of more than 4,300 digits
        raise DataError(f"{sanitized(column)!r} holds an integer of thousands of digits, not an answer") from error


def _some(labels: Iterable[str]) -> str:
    ordered = sorted(labels)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return f"{ordered[:_SHOWN]}{more}"
