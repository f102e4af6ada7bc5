"""Rows of Parquet files. Knows nothing of what the columns mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from components.params import DataParams
from components.row import Row, pick_both, require_columns


def parquet_rows(file: Path, name: str, data: DataParams) -> Iterator[Row]:
    with pq.ParquetFile(file) as table:
        present = table.schema_arrow.names
        wanted = [path if path in present else path.split(".")[0] for path in (data.text, data.target)]
        require_columns(name, present, data, wanted)
        number = 0
        for batch in table.iter_batches(columns=wanted):
            for fields in batch.to_pylist():
                number += 1
                yield pick_both(fields, f"{name}:{number}", data)
