"""Rows of tables of text: CSV and TSV. Knows cells and columns, and not what they mean."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from components.errors import DataError
from components.params import DataParams
from components.row import Row, require_columns
from components.values import composed

Cells = tuple[int, list[str], str | None]


def csv_cells(lines: TextIO, name: Path) -> Iterator[Cells]:
    """(line, cells, fault) of each CSV row, where line is the one that the row starts on."""
    # Without strict, a stray quote would swallow rows without a word.
    reader = csv.reader(lines, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise DataError(
                    f'{name}:{start}: a quote opens here and is never closed; write a quote inside a cell as ""'
                ) from error
            yield start, [], str(error)
        else:
            if cells:
                yield start, cells, None


def tsv_cells(lines: Iterable[str]) -> Iterator[Cells]:
    """(line, cells, fault) of each TSV row. TSV has no quoting: a quote is a character like any other."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.removesuffix("\n").split("\t"), None


def table_rows(rows: Iterator[Cells], name: str, data: DataParams) -> Iterator[Row]:
    """Rows of a table whose columns are named by params.yaml, or by its first line."""
    columns = [composed(column) for column in data.columns or next((cells for _, cells, _ in rows), [])]
    require_columns(name, columns, data)
    for number, cells, fault in rows:
        where = f"{name}:{number}"
        if fault is None and len(cells) != len(columns):
            fault = f"{len(cells)} cells where there are {len(columns)} columns"
        if fault is None:
            yield Row(where, cells[columns.index(data.text)], cells[columns.index(data.target)])
        else:
            yield Row(where, fault=fault)
