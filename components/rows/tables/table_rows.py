"""Rows of tables of text: CSV and TSV. Knows columns, and not what the cells mean.

Rows in are rows kept and rows named: each physical line belongs to one row, or is blank, the header or ``sep=;``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from components.config.params import DataParams
from components.config.values import composed
from components.errors import DataError, sanitized
from components.rows.row import Row, require_columns
from components.rows.tables.dialect import shown
from components.rows.tables.table_cells import NeverClosed, TableCells
from components.rows.tables.table_dialect import find_dialect, other_delimiter
from components.rows.tables.table_shape import columns_of, is_row_of

_NULL = "\\N"  # MySQL and PostgreSQL write a missing value so, and nobody a text
_NAMES = "holds the names of the columns; take the line out, or data.columns if the table has a header"


def table_rows(text: TextIO, name: str, data: DataParams) -> Iterator[Row]:
    """Rows of a table whose columns are named by params.yaml, or by its first row.

    ``text`` is opened with ``newline=""``, so that line ends inside a cell stay as they are.

    Raises:
        DataError: a column is not there, or a quote is never closed: where the rows end after it, nobody can tell.
    """
    table = find_dialect(text, data)
    cells = TableCells(text, table.dialect)
    if table.sep_line:
        cells.skip_line()
    try:
        columns = columns_of(cells, data)
        _require_columns(columns, text, name, data, table.dialect.delimiter)
        at_text, at_target = columns.index(data.text), columns.index(data.target)
        # What is declared is obeyed: then a cell of many lines is one, whatever they look like.
        rows = cells.rows(len(columns), is_row_of(columns, data), doubt=data.quoting is None)
        for line, lines, found, fault in rows:
            if fault is None and _names_columns(found, columns):
                yield Row(f"{name}:{line}", fault=_NAMES, lines=lines)
            elif fault is None:
                yield Row(f"{name}:{line}", _value(found[at_text]), _value(found[at_target]), None, lines)
            else:
                yield Row(f"{name}:{line}", fault=fault, lines=lines)
    except NeverClosed as error:
        raise DataError(
            f'{name}:{error.line}: a quote opens here and is never closed; write a quote inside a cell as "", or where'
            " a quote is a character like any other, set data.quoting: none; a file that was cut off ends so too"
        ) from error


def _names_columns(cells: list[str], columns: list[str]) -> bool:
    """Whether a row is the header: ``data.columns`` stand beside one, or tables were joined, each with its own."""
    if len(columns) < 2 or composed(cells[-1]) != columns[-1]:
        return False
    return [composed(cell.lstrip("\ufeff")) for cell in cells] == columns


def _value(cell: str) -> str | None:
    return None if cell == _NULL else cell


def _require_columns(columns: list[str], text: TextIO, name: str, data: DataParams, delimiter: str) -> None:
    """As require_columns, and says too if another separator would do, or if there is none."""
    try:
        require_columns(name, columns, data)
    except DataError as error:
        if not columns:
            raise DataError(f"{error}; it holds no line but blank ones") from error
        other = other_delimiter(text, data)
        if other is not None and other != delimiter:
            raise DataError(
                f"{name} was split at {shown(delimiter)} into the columns {sanitized(str(columns))}, and its cells are"
                f" parted by {shown(other)}: write `delimiter: {shown(other)}` under data"
            ) from error
        single = "it is one column; " if len(columns) == 1 else ""
        raise DataError(
            f'{error}; {single}split at {shown(delimiter)}: if that is not its separator, write `delimiter: ";"` or'
            " another under data"
        ) from error
