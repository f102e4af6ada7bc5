"""Every row of a Parquet file is a row or a named fault, whatever its columns hold."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config.params import DataParams
from components.errors import DataError
from components.rows.parquet_rows import parquet_rows
from components.rows.reader import read_rows
from components.rows.row import Row


def read(folder: Path, table: pa.Table, **settings: Any) -> list[Row]:
    pq.write_table(table, folder / "a.parquet")
    data = DataParams.model_validate({"source": "rows", "format": "parquet"} | settings)
    return list(parquet_rows(folder / "a.parquet", "a.parquet", data))


def column(folder: Path, values: pa.Array) -> list[tuple[object, str | None]]:
    """The targets of a column, and the faults of their rows."""
    table = pa.table({"text": [f"text {n}" for n in range(len(values))], "target": values})
    return [(row.target, row.fault) for row in read(folder, table)]


@pytest.mark.parametrize(
    ("values", "targets"),
    [
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([b"caf\xc3\xa9", None]), ["café", None]),
        (pa.array([1, None, 2**63 - 1], pa.int64()), [1, None, 2**63 - 1]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([True, None]), [True, None]),
        (pa.array([Decimal("1.50"), None]), [Decimal("1.50"), None]),
        (pa.array([["a", "b"], None, []], pa.list_(pa.string())), ["a b", None, ""]),
        (pa.nulls(2), [None, None]),
        (pa.array([1.5, 2.0], pa.float16()), [1.5, 2.0]),
    ],
)
def test_a_column_of_any_type_gives_its_values(tmp_path: Path, values: pa.Array, targets: list[object]) -> None:
    assert column(tmp_path, values) == [(target, None) for target in targets]


def test_what_pandas_writes_for_missing_values_is_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", "b", "c"],
            "object": ["x", None, np.nan],
            "category": pd.Categorical(["x", None, "y"]),
            "string": pd.array(["x", pd.NA, "y"], dtype="string"),
            "number": [1.0, np.nan, 2.0],
            "integer": pd.array([1, None, 2], dtype="Int64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
            "time": pd.to_datetime(["2026-01-01", None, "2026-01-02"]),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    for name in frame.columns[1:]:
        data = DataParams.model_validate({"source": "rows", "format": "parquet", "target": name})
        rows = list(parquet_rows(tmp_path / "a.parquet", "a.parquet", data))
        assert len(rows) == 3
        assert rows[1].target is None or (isinstance(rows[1].target, float) and math.isnan(rows[1].target)), name


def test_a_float_of_no_value_stays_one_and_never_becomes_its_name(tmp_path: Path) -> None:
    ((target, _),) = column(tmp_path, pa.array([math.nan]))
    assert isinstance(target, float)
    assert math.isnan(target)


def test_a_value_that_python_cannot_hold_spoils_its_own_row_alone(tmp_path: Path) -> None:
    utc = pa.timestamp("us")
    times = column(tmp_path, pa.array([0, 2**62, 86_400_000_000], pa.int64()).cast(utc))
    assert times[0] == (datetime(1970, 1, 1), None)
    assert times[1][1] is not None
    assert times[1][1].startswith("a value that cannot be read: ")
    assert times[2] == (datetime(1970, 1, 2), None)

    bad = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe"))
    assert [fault is None for _, fault in column(tmp_path, bad)] == [True, False]
    assert column(tmp_path, pa.array([b"ok", b"\xff\xfe"])) == [
        ("ok", None),
        (None, "bytes that are not UTF-8 text (invalid start byte at byte 0)"),
    ]


def test_nested_columns_are_reached_and_names_compared_in_one_unicode_form(tmp_path: Path) -> None:
    table = pa.table({"re\u0301ponse": [{"texte": "a"}, None], "target": ["x", "y"]})
    rows = read(tmp_path, table, text="r\u00e9ponse.texte")
    assert rows[0] == Row("a.parquet:1", "a", "x")
    assert rows[1].fault == "no field 'réponse.texte'; it has ['réponse', 'target']"


def test_a_column_whose_name_has_a_dot_is_told_from_what_stands_inside_of_another(tmp_path: Path) -> None:
    table = pa.table({"row": [{"text": "other"}], "row.text": ["a"], "target": ["x"]})
    assert read(tmp_path, table, text="row.text") == [Row("a.parquet:1", "a", "x")]


def test_two_columns_of_one_name_and_a_missing_one_are_told(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "text", "target"])
    with pytest.raises(DataError, match=r"a\.parquet has 2 columns named 'text'; .* set data\.text, data\.target$"):
        read(tmp_path, twice)
    with pytest.raises(DataError, match=r"has no column 'text'; it has \['c0', .* and 980 more: set data"):
        read(tmp_path, pa.table({f"c{n}": ["a"] for n in range(1000)}))


def test_rows_beyond_one_batch_are_numbered_on(tmp_path: Path) -> None:
    rows = read(tmp_path, pa.table({"text": ["a"] * 20_000, "target": ["x"] * 20_000}))
    assert (len(rows), rows[-1].where) == (20_000, "a.parquet:20000")


@pytest.mark.parametrize("at", [40, 200, -12])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, at: int) -> None:
    pq.write_table(pa.table({"text": ["a"] * 900, "target": ["x"] * 900}), tmp_path / "a.parquet", compression="zstd")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[at : at + 8] = bytes(8)
    (tmp_path / "a.parquet").write_bytes(content)
    data = DataParams.model_validate({"source": "rows", "format": "parquet"})
    with pytest.raises(DataError, match=r"a\.parquet is not Parquet that can be read") as caught:
        list(parquet_rows(tmp_path / "a.parquet", "a.parquet", data))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("format_", "ending"), [("parquet", "parquet"), ("jsonl", "json"), ("csv", "csv")])
def test_a_column_that_became_a_folders_name_comes_back(tmp_path: Path, format_: str, ending: str) -> None:
    content = {"jsonl": b'{"text": "one"}\n{"text": 3}\n', "csv": b"text\none\ntwo\n"}
    for value in ("good", "caf%C3%A9", "__HIVE_DEFAULT_PARTITION__"):
        file = tmp_path / "year=2024" / f"label={value}" / f"part-0.{ending}"
        file.parent.mkdir(parents=True)
        if format_ == "parquet":
            pq.write_table(pa.table({"text": ["one", "two"]}), file)
        else:
            file.write_bytes(content[format_])
    data = DataParams.model_validate({"source": "rows", "format": format_, "target": "label"})
    assert [row.target for row in read_rows(tmp_path, data)] == [None, None, "café", "café", "good", "good"]


def test_a_folder_as_spark_writes_it_gives_its_rows_and_nothing_else(tmp_path: Path) -> None:
    for part in range(2):
        pq.write_table(pa.table({"text": [f"text {part}"], "target": ["x"]}), tmp_path / f"part-0000{part}.parquet")
    pq.write_metadata(pa.schema([("text", pa.string())]), tmp_path / "_common_metadata")
    for name in ("_SUCCESS", "._SUCCESS.crc", ".part-00000.parquet.crc"):
        (tmp_path / name).write_bytes(b"")
    data = DataParams.model_validate({"source": "rows", "format": "parquet"})
    assert [row.text for row in read_rows(tmp_path, data)] == ["text 0", "text 1"]
