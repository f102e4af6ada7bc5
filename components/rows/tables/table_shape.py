"""What the columns of a table are called, and what the cells of a line look like that is a row. Reads no file."""

from __future__ import annotations

from collections.abc import Sequence

from components.config.params import DataParams
from components.config.values import composed, number_of, same_label
from components.errors import DataError
from components.rows.tables.table_cells import IsRow, TableCells


def columns_of(cells: TableCells, data: DataParams) -> list[str]:
    """The names of the columns, composed: those of params.yaml, or the cells of the table's first row, which is read.

    Raises:
        NeverClosed: a quote opens in the first row and is not closed.
    """
    header = cells.header() if data.columns is None else None
    names = data.columns or (header[2] if header is not None else [])
    return [composed(name) for name in names]


def is_row_of(columns: Sequence[str], data: DataParams) -> IsRow:
    """A function that says whether cells look like a row: one for each column, and an answer of the task among them.

    What an answer is, values.py says: `True` in a cell answers `true`. Where the answers are not known, prose must not
    pass for a row: after a separator of a table stands no blank, and after a comma in a sentence there does.
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
        if labels is None:
            return _is_number(answer)
        return answer in labels or same_label(answer, labels) is not None

    return is_row


def _is_number(text: str) -> bool:
    try:
        number_of(text, "")
    except DataError:
        return False
    return True
