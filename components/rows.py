"""Rows out of files: CSV, TSV, JSON lines, Parquet, and a folder of text files whose subfolders are the labels.

Finds each row's text and target and says where the row stands. Whether they are of any use is not known here: a row
that cannot be read is handed on with its fault, and only a file that cannot be read at all is an error.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import DataError
from components.params import DataParams


@dataclass(frozen=True)
class Row:
    """One row as it stands in its file. ``where`` is ``file:line`` (a Parquet row's number, a text file's name)."""

    where: str
    text: object = None
    target: object = None
    fault: str | None = None


def read_rows(folder: Path, data: DataParams) -> Iterator[Row]:
    """Every row of every file below the folder, files in the order of their names; hidden files are passed over.

    Raises:
        DataError: no file at all, a file that is not of the declared format or encoding, or that lacks a column.
    """
    names = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not names:
        raise DataError(f"{folder} holds no file; check the source of the task, then run `preface prepare`")
    for name in names:
        try:
            yield from _read_file(folder / name, name, data)
        except UnicodeError as error:
            raise DataError(f"{name} is not {data.encoding} text ({error}); set data.encoding") from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{name} is not Parquet ({' '.join(str(error).split())}); set data.format") from error


def _read_file(file: Path, name: Path, data: DataParams) -> Iterator[Row]:
    if data.format == "parquet":
        yield from _parquet(file, name.as_posix(), data)
        return
    # Bytes that are no characters become lone surrogates: the row that holds them is found later, and named.
    with file.open(encoding=_codec(data.encoding), errors="surrogateescape", newline=_newline(data)) as lines:
        match data.format:
            case "csv":
                yield from _table(_csv_cells(lines, name), name.as_posix(), data)
            case "tsv":
                yield from _table(_tsv_cells(lines), name.as_posix(), data)
            case "jsonl":
                yield from _json_lines(lines, name.as_posix(), data)
            case "folder":
                yield _text_file(lines, name)


def _codec(encoding: str) -> str:
    """UTF-8 with or without the byte order mark that spreadsheets write: left in, it would hide the first column."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _newline(data: DataParams) -> str | None:
    """The csv module does its own line ends, those inside quotes being part of a cell."""
    return "" if data.format == "csv" else None


Cells = tuple[int, list[str], str | None]


def _csv_cells(lines: TextIO, name: Path) -> Iterator[Cells]:
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


def _tsv_cells(lines: Iterable[str]) -> Iterator[Cells]:
    """(line, cells, fault) of each TSV row. TSV has no quoting: a quote is a character like any other."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.removesuffix("\n").split("\t"), None


def _table(rows: Iterator[Cells], name: str, data: DataParams) -> Iterator[Row]:
    """Rows of a table whose columns are named by params.yaml, or by its first line."""
    columns = data.columns or next((cells for _, cells, _ in rows), [])
    _require_columns(name, columns, data)
    for number, cells, fault in rows:
        where = f"{name}:{number}"
        if fault is None and len(cells) != len(columns):
            fault = f"{len(cells)} cells where there are {len(columns)} columns"
        if fault is None:
            yield Row(where, cells[columns.index(data.text)], cells[columns.index(data.target)])
        else:
            yield Row(where, fault=fault)


def _json_lines(lines: Iterable[str], name: str, data: DataParams) -> Iterator[Row]:
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
            yield _pick_both(fields, where, data)
        else:
            yield Row(where, fault=f"holds a {type(fields).__name__} where an object is needed")


def _parquet(file: Path, name: str, data: DataParams) -> Iterator[Row]:
    with pq.ParquetFile(file) as table:
        present = table.schema_arrow.names
        wanted = [path if path in present else path.split(".")[0] for path in (data.text, data.target)]
        _require_columns(name, present, data, wanted)
        number = 0
        for batch in table.iter_batches(columns=wanted):
            for fields in batch.to_pylist():
                number += 1
                yield _pick_both(fields, f"{name}:{number}", data)


def _text_file(lines: TextIO, name: Path) -> Row:
    if name.parent == Path():
        return Row(name.as_posix(), fault="stands in no subfolder, whose name would be its label")
    return Row(name.as_posix(), lines.read(), name.parent.name)


def _require_columns(name: str, present: Sequence[str], data: DataParams, wanted: Sequence[str] | None = None) -> None:
    for column in wanted or (data.text, data.target):
        if present.count(column) != 1:
            said = "no column" if column not in present else f"{present.count(column)} columns named"
            raise DataError(
                f"{name} has {said} {column!r}; it has {list(present)}: set data.text, data.target or data.columns"
            )


def _pick_both(fields: Mapping[str, Any], where: str, data: DataParams) -> Row:
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
