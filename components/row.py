"""One row of a file, and how its text and target are found in it. Knows no format of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.errors import DataError
from components.params import DataParams


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
    for column in wanted or (data.text, data.target):
        if present.count(column) != 1:
            said = "no column" if column not in present else f"{present.count(column)} columns named"
            raise DataError(
                f"{name} has {said} {column!r}; it has {list(present)}: set data.text, data.target or data.columns"
            )


def pick_both(fields: Mapping[str, Any], where: str, data: DataParams) -> Row:
    try:
        return Row(where, _pick(fields, data.text), _pick(fields, data.target))
    except KeyError as error:
        return Row(where, fault=f"no field {error.args[0]!r}; it has {sorted(fields)}")


def _pick(fields: Mapping[str, Any], path: str) -> object:
    """The value at a dotted path, a list of strings joined by a space; KeyError where the path leads nowhere."""
    here: Any = fields
    for part in [path] if path in fields else path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            raise KeyError(path)
        here = here[part]
    if isinstance(here, list) and all(isinstance(item, str) for item in here):
        return " ".join(here)
    return here
