"""Rows of JSON lines: an object a line. Knows nothing of what the fields mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from components.params import DataParams
from components.row import Row, pick_both


def json_rows(lines: Iterable[str], name: str, data: DataParams) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(where, fault=f"not JSON: {error}")
            continue
        if isinstance(fields, dict):
            yield pick_both(fields, where, data)
        else:
            yield Row(where, fault=f"holds a {type(fields).__name__} where an object is needed")
