"""Rows out of files: CSV, TSV, JSON lines, Parquet, and a folder of text files whose subfolders are the labels.

Finds each row's text and target and says where the row stands. Whether they are of any use is not known here: a row
that cannot be read is handed on with its fault, and only a file that cannot be read at all is an error.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from components.errors import DataError, told
from components.json_rows import json_rows
from components.params import DataParams
from components.parquet_rows import parquet_rows
from components.row import Row as Row
from components.table_dialect import find_dialect
from components.table_rows import table_rows


def read_rows(folder: Path, data: DataParams) -> Iterator[Row]:
    """Every row of every file below the folder, files in the order of their names; hidden files are passed over.

    Raises:
        DataError: no file at all, a file that is not of the declared format or encoding, or that lacks a column.
    """
    for name in _names(folder):
        try:
            yield from _read_file(folder / name, name, data)
        except UnicodeError as error:
            raise DataError(f"{name} is not {data.encoding} text ({error}); set data.encoding") from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{name} is not Parquet ({' '.join(str(error).split())}); set data.format") from error


def table_dialects(folder: Path, data: DataParams) -> list[dict[str, Any]]:
    """The dialects of the tables below the folder, each with the number of its files and the first one's name; none
    where the format is no table's.

    Raises:
        DataError: no file at all.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in _names(folder) if data.format in ("csv", "tsv") else []:
        with _opened(folder / name, data) as text:
            found[find_dialect(text, data).told()].append(told(name.as_posix()))
    return [{"dialect": dialect, "files": len(names), "first": names[0]} for dialect, names in found.items()]


def _names(folder: Path) -> list[Path]:
    names = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not names:
        raise DataError(f"{folder} holds no file; check the source of the task, then run `preface prepare`")
    return names


def _read_file(file: Path, name: Path, data: DataParams) -> Iterator[Row]:
    if data.format == "parquet":
        yield from parquet_rows(file, name.as_posix(), data)
        return
    with _opened(file, data) as lines:
        match data.format:
            case "csv" | "tsv":
                yield from table_rows(lines, name.as_posix(), data)
            case "jsonl":
                yield from json_rows(lines, name.as_posix(), data)
            case "folder":
                yield _text_file(lines, name)


def _opened(file: Path, data: DataParams) -> TextIO:
    """The text of a file. Bytes that are no characters become lone surrogates: their row is found later, and named."""
    return file.open(encoding=_codec(data.encoding), errors="surrogateescape", newline=_newline(data))


def _codec(encoding: str) -> str:
    """UTF-8 with or without the byte order mark that spreadsheets write: left in, it would hide the first column."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _newline(data: DataParams) -> str | None:
    """The csv module does its own line ends, those inside quotes being part of a cell."""
    return "" if data.format in ("csv", "tsv") else None


def _text_file(lines: TextIO, name: Path) -> Row:
    if name.parent == Path():
        return Row(name.as_posix(), fault="stands in no subfolder, whose name would be its label")
    return Row(name.as_posix(), lines.read(), name.parent.name)
