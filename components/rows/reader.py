"""Rows out of files: CSV, TSV, JSON lines, Parquet, and a folder of text files whose subfolders are the labels.

Finds each row's text and target and says where the row stands. Whether they are of any use is not known here: a row
that cannot be read is handed on with its fault, and only a file that cannot be read at all is an error.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from components.config.params import DataParams
from components.config.params_faults import yaml_word
from components.errors import DataError, sanitized
from components.rows.data_files import data_files, partition_of, shown_path
from components.rows.folder_rows import refuse_strays, text_file_row
from components.rows.json_rows import json_rows
from components.rows.kinds.file_kind import refuse_other_kinds
from components.rows.parquet_rows import parquet_rows
from components.rows.row import Row as Row
from components.rows.tables.table_dialect import find_dialect
from components.rows.tables.table_rows import table_rows


def read_rows(folder: Path, data: DataParams) -> Iterator[Row]:
    """Every row of every file below the folder that holds rows (see data_files.py), in the order of their names.

    Raises:
        DataError: no file at all, a file that is not of the declared format or encoding, or that lacks a column.
    """
    names = data_files(folder, data).read
    if data.format == "folder":
        refuse_strays(names, data)
    for name in names:
        try:
            yield from _file_rows(folder / name, name, data)
        except UnicodeError as error:
            raise DataError(
                f"{shown_path(name)} is not {data.encoding} text ({sanitized(str(error))}); set data.encoding"
            ) from error
        except DataError as error:
            if len(names) == 1:
                raise
            pattern = yaml_word(name.as_posix())
            raise DataError(
                f"{error}; if the file is not meant, leave it out with `ignore: [{pattern}]` under the task's data"
            ) from error


def table_dialects(folder: Path, data: DataParams) -> list[dict[str, Any]]:
    """The dialects of the tables below the folder, each with the number of its files and the first one's name; none
    where the format is no table's.

    Raises:
        DataError: no file at all.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in data_files(folder, data).read if data.format in ("csv", "tsv") else ():
        with _opened(folder / name, data) as text:
            found[find_dialect(text, data).description()].append(shown_path(name))
    return [{"dialect": dialect, "files": len(names), "first": names[0]} for dialect, names in found.items()]


def _file_rows(file: Path, name: Path, data: DataParams) -> Iterator[Row]:
    """The rows of a file; the target is the folder's name where a folder is called TARGET=VALUE."""
    if data.format == "folder":
        with _opened(file, data) as text:
            yield text_file_row(file, name, text, data)
        return
    refuse_other_kinds(file, shown_path(name), data)
    partition = partition_of(name)
    if data.target not in partition:
        yield from _rows(file, shown_path(name), data)
        return
    without = data.model_copy(update={"target": data.text})
    for row in _rows(file, shown_path(name), without):
        yield row if row.fault is not None else replace(row, target=partition[data.target])


def _rows(file: Path, name: str, data: DataParams) -> Iterator[Row]:
    if data.format == "parquet":
        yield from parquet_rows(file, name, data)
        return
    with _opened(file, data) as text:
        match data.format:
            case "csv" | "tsv":
                yield from table_rows(text, name, data)
            case "jsonl":
                yield from json_rows(text, name, data)


def _opened(file: Path, data: DataParams) -> TextIO:
    """The text of a file. Bytes that are no characters become lone surrogates: their row is found later, and named."""
    # The csv module does its own line ends, those inside quotes being part of a cell; in JSON only \n ends a line.
    newline = {"csv": "", "tsv": "", "jsonl": "\n"}.get(data.format)
    return file.open(encoding=_codec(data.encoding), errors="surrogateescape", newline=newline)


def _codec(encoding: str) -> str:
    """UTF-8 with or without the byte order mark that spreadsheets write: left in, it would hide the first column."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
