"""Rows of Parquet files. Knows nothing of what the columns mean.

Dictionary columns are read as what they stand for, bytes as the UTF-8 text that Hive and Impala put there without
saying so. A value that cannot be read spoils its own row; a file that cannot be read at all is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.config.params import DataParams
from components.config.values import composed
from components.errors import DataError, line_of
from components.rows.row import Row, pick_both, require_columns

_ROWS = 8192  # read at once
_UNREADABLE = (ValueError, OverflowError, pa.ArrowException)  # what pyarrow says of a value that Python cannot hold


def parquet_rows(file: Path, name: str, data: DataParams) -> Iterator[Row]:
    """Every row of a file.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    try:
        with pq.ParquetFile(file) as table:
            present = table.schema_arrow.names
            spelt = [composed(column) for column in present]
            wanted = [path if path in spelt else path.split(".")[0] for path in (data.text, data.target)]
            require_columns(name, spelt, data, wanted)
            names = list(dict.fromkeys(wanted))
            columns = [present[spelt.index(column)] for column in names]
            number = 0
            # One thread: the rows are made into Python's values here, and reading is never what takes the time.
            for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
                # pyarrow takes a name with a dot for a path too, and gives what stands there as well.
                for fields in _rows(batch.select(columns), names):
                    number += 1
                    yield _row(fields, f"{name}:{number}", data)
    except (pa.ArrowException, OSError, NotImplementedError) as error:
        raise DataError(
            f"{name} is not Parquet that can be read ({line_of(error)}); write the file again, and"
            " look whether it arrived whole"
        ) from error


def _rows(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[dict[str, Any] | str]:
    """Each row's values by the name of their column, or what keeps them from being read."""
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except _UNREADABLE:
        yield from (_one_by_one(batch, index, names) for index in range(batch.num_rows))
    else:
        yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _one_by_one(batch: pa.RecordBatch, index: int, names: Sequence[str]) -> dict[str, Any] | str:
    try:
        return {name: column[index].as_py() for name, column in zip(names, batch.columns, strict=True)}
    except _UNREADABLE as error:
        return f"a value that cannot be read: {line_of(error)}"


def _row(fields: dict[str, Any] | str, where: str, data: DataParams) -> Row:
    if isinstance(fields, str):
        return Row(where, fault=fields)
    row = pick_both(fields, where, data)
    if not isinstance(row.text, bytes) and not isinstance(row.target, bytes):
        return row
    try:
        return Row(where, _decoded(row.text), _decoded(row.target))
    except UnicodeDecodeError as error:
        return Row(where, fault=f"bytes that are not UTF-8 text ({error.reason} at byte {error.start})")


def _decoded(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value
