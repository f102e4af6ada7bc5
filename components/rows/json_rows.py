"""Rows of JSON: an object a line, a list of objects, an object that holds one, or objects one after another.

Lines end at \\n alone: JSON allows every other character inside of a text. Knows nothing of what the fields mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from components.config.params import DataParams
from components.errors import DataError, sanitized
from components.rows.json_stream import BLANK, JsonStream, twice_on, values_of
from components.rows.json_wrapped import PANDAS, objects_in
from components.rows.row import Row, pick_both


def json_rows(text: TextIO, name: str, data: DataParams) -> Iterator[Row]:
    """Every row of a file, opened with lines that end at \\n alone. A line that is no JSON is a row with a fault.

    Raises:
        DataError: a list, or an object over many lines, that is broken: what follows its fault cannot be told apart.
    """
    if _is_document(text):
        yield from _document_rows(text, name, data)
        return
    for number, line in enumerate(text, start=1):
        if line.strip(BLANK):
            yield from _line_rows(line, f"{name}:{number}", data)


def _is_document(text: TextIO) -> bool:
    """Whether the file is one list, one object or objects over many lines, and not an object a line."""
    char = JsonStream(text).peek()
    text.seek(0)
    if char in ("", "["):
        return char == "["
    line = next(line for line in text if line.strip(BLANK))
    ends_there = not any(other.strip(BLANK) for other in text)
    text.seek(0)
    try:
        return len(values_of(line)) == 1 and ends_there
    except (ValueError, RecursionError):
        pass
    try:
        JsonStream(text).take()  # what is no JSON by lines may be by values
        return True
    except (ValueError, RecursionError):
        return False
    finally:
        text.seek(0)


def _line_rows(line: str, where: str, data: DataParams) -> Iterator[Row]:
    """The rows of a line, as a rule one; whatever is wrong in a line, it is one bad row."""
    try:
        values = values_of(line)
    except (ValueError, RecursionError) as error:
        yield Row(where, fault=f"not JSON: {_said(error)}")
        return
    if len(values) == 1 and isinstance(values[0], list) and any(isinstance(value, dict) for value in values[0]):
        values = values[0]
    for number, value in enumerate(values, start=1):
        yield _row(value, where if len(values) == 1 else f"{where}#{number}", data)


def _document_rows(text: TextIO, name: str, data: DataParams) -> Iterator[Row]:
    stream = JsonStream(text)
    number = 0
    try:
        for value, alone in stream.values():
            if number == 0 and isinstance(value, list | str):
                raise DataError(
                    f"{name} holds lists of values, which have no names (orient='values'); {PANDAS}, or write CSV"
                )
            inside = objects_in(value, name, data) if alone and isinstance(value, dict) else [value]
            for each in inside:
                number += 1
                yield _row(each, f"{name}:{stream.began}" if each is value and alone else f"{name}#{number}", data)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name}:{stream.line()}: not JSON: {_said(error)}; {number} objects stand before it, and what follows"
            " cannot be told apart: write the file again, best as JSON lines (an object a line)"
        ) from error


def _row(value: Any, where: str, data: DataParams) -> Row:
    if not isinstance(value, dict):
        return Row(where, fault=f"holds a {type(value).__name__} where an object is needed")
    for path in (data.text, data.target):
        if key := twice_on(value, path):
            return Row(where, fault=f"the key {sanitized(key)!r} stands twice in the object; keep one")
    return pick_both(value, where, data)


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "lists or objects stand inside of one another too deep"
    if not isinstance(error, json.JSONDecodeError):
        return sanitized(str(error))
    if error.doc.lstrip(BLANK)[:2] in ("{'", "['"):
        return "single quotes are Python's, not JSON's: write it with json.dumps"
    return f"{error.msg} (column {error.colno})"
