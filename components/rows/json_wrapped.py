"""The list of rows inside a file that is one object of JSON: `{"data": [...]}`, an answer of an API, a whole data set.

Objects that hold rows in another order, by columns or by keys, are told apart and refused with the command that turns
them. Knows no rows but by the names of their text and target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.config.params import DataParams
from components.errors import DataError, sanitized
from components.rows.row import pick

_DEEP = 3  # objects that may stand around the list
PANDAS = "write it with pandas as df.to_json(FILE, orient='records', lines=True)"


def objects_in(whole: Mapping[str, Any], name: str, data: DataParams) -> list[Any]:
    """The values that are rows: those of the one list of objects inside, or the object itself where there is none.

    Raises:
        DataError: several lists could be meant, or it is a table by columns or by keys.
    """
    if _has_text(whole, data) and not _by_columns(whole, data):
        return [whole]
    lists = dict(_lists(whole))
    fitting = {path: rows for path, rows in lists.items() if any(_has_text(row, data) for row in rows)} or lists
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if fitting:
        paths = [sanitized(f".{path}") for path in list(fitting)[:5]]
        raise DataError(
            f"{name} is one JSON object with several lists of objects: {', '.join(paths)}; write the one that is meant"
            f" as JSON lines: jq -c '{paths[0]}[]' {name} > rows.jsonl"
        )
    if _by_columns(whole, data):
        raise DataError(f"{name} is one JSON object that holds a table by its columns, not by its rows; {PANDAS}")
    if {"columns", "data"} <= whole.keys():
        raise DataError(f"{name} is one JSON object that holds columns and cells apart (orient='split'); {PANDAS}")
    if len(whole) > 1 and all(isinstance(value, Mapping) for value in whole.values()):
        raise DataError(
            f"{name} is one JSON object that holds {len(whole)} objects by their keys; write them as JSON lines:"
            f" jq -c '.[]' {name} > rows.jsonl"
        )
    return [whole]


def _has_text(fields: Any, data: DataParams) -> bool:
    try:
        pick(fields, data.text)
    except (KeyError, TypeError):
        return False
    return True


def _lists(whole: Mapping[str, Any], above: str = "", deep: int = _DEEP) -> Iterator[tuple[str, list[Any]]]:
    for key, value in whole.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield f"{above}{key}", value
        elif isinstance(value, Mapping) and deep > 1:
            yield from _lists(value, f"{above}{key}.", deep - 1)


def _by_columns(whole: Mapping[str, Any], data: DataParams) -> bool:
    """Whether text and target are lists, or objects, of as many values: columns of a table."""
    text, target = whole.get(data.text), whole.get(data.target)
    both = all(isinstance(column, list) for column in (text, target))
    both = both or all(isinstance(column, Mapping) for column in (text, target))
    return both and len(text) == len(target) > 1  # type: ignore[arg-type]  # both have a length
