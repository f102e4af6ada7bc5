"""One row of a file, and how its text and target are found in it. Knows no format of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.config.params import DataParams
from components.config.values import ENCODE, composed, near_label
from components.errors import DataError, sanitized


@dataclass(frozen=True)
class Row:
    """One row as it stands in its file. ``where`` is ``file:line`` (a Parquet row's number, a text file's name).

    A row of a table spans ``lines`` physical lines from there on.
    """

    where: str
    text: object = None
    target: object = None
    fault: str | None = None
    lines: int = field(default=1, compare=False)


def require_columns(name: str, present: Sequence[str], data: DataParams, wanted: Sequence[str] | None = None) -> None:
    """Nothing, if each wanted column (the text and the target) stands in the file once.

    Raises:
        DataError: one is not there, or several are of its name.
    """
    for column in wanted or (data.text, data.target):
        if present.count(column) != 1:
            said = "no column" if column not in present else f"{present.count(column)} columns named"
            keys = (
                "data.text, data.target or data.columns" if data.format in ("csv", "tsv") else "data.text, data.target"
            )
            near = near_label(column, present) if column not in present else ""
            if any("\ud800" <= char <= "\udfff" for each in present for char in each):
                near += f"; there are bytes that are not {data.encoding}: {ENCODE}"
            raise DataError(f"{name} has {said} {column!r}{near}; it has {_listed(present)}: set {keys}")


def pick_both(fields: Mapping[str, Any], where: str, data: DataParams) -> Row:
    """The row's text and target, or its fault."""
    try:
        return Row(where, pick(fields, data.text), pick(fields, data.target))
    except KeyError as error:
        return Row(where, fault=f"no field {error.args[0]!r}; it has {_listed(sorted(fields))}")


def pick(fields: Mapping[str, Any], path: str) -> object:
    """The value at a dotted path, a list of strings joined by a space.

    Raises:
        KeyError: the path leads nowhere.
    """
    here: Any = fields
    for part in [path] if path in fields else path.split("."):
        here = _value(here, part, path)
    if isinstance(here, list) and all(isinstance(item, str) for item in here):
        return " ".join(here)
    return here


def _value(here: Any, part: str, path: str) -> object:
    if isinstance(here, Mapping):
        if part in here:
            return here[part]
        for key in here:  # written in another Unicode form
            if isinstance(key, str) and composed(key) == part:
                return here[key]
    raise KeyError(path)


def _listed(names: Sequence[str]) -> str:
    """Names of columns as part of a message: a file of a thousand columns is told by its first."""
    return sanitized(str(list(names[:20]))) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
