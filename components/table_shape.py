"""What the columns of a table are called, and what the cells of a line look like that is a row. Reads no file."""

from __future__ import annotations

from collections.abc import Sequence

from components.params import DataParams
from components.table_cells import IsRow, TableCells


def columns_of(cells: TableCells, data: DataParams) -> list[str]:
    """The names of the columns: those of params.yaml, or the cells of the table's first row, which is read.

    Raises:
        NeverClosed: a quote opens in the first row and is not closed.
    """
    if data.columns is not None:
        return data.columns
    header = cells.header()
    return header[2] if header is not None else []


def is_row_of(columns: Sequence[str], data: DataParams) -> IsRow:
    """A function that says whether cells look like a row: one for each column, and an answer of the task among them.

    Where the answers are not known, prose must not pass for a row: after a separator of a table stands no blank, and
    after a comma in a sentence there does.
    """
    width = len(columns)
    target = columns.index(data.target) if columns.count(data.target) == 1 and data.target != data.text else None
    labels = frozenset(data.labels) if data.labels is not None and data.ranges is None else None

    def is_row(cells: list[str]) -> bool:
        if len(cells) != width or width < 2:
            return False
        if target is None or (labels is None and data.ranges is None):
            return not any(cell[:1].isspace() for cell in cells[1:])
        answer = cells[target].strip().strip('"')
        return answer in labels if labels is not None else _is_number(answer)

    return is_row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
