"""Whether a file is what params.yaml declares it to be, told before any row is read: what it is, and what to type.

Most files that are read wrongly say in their first bytes what they are: packed, a spreadsheet, a pointer, a web page.
"""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from components.config.params import DataParams
from components.errors import DataError, sanitized
from components.rows.kinds.binary_kind import HEAD, PARQUET, FileKind, binary_kind, is_binary, unknown_kind
from components.rows.kinds.text_kind import (
    first_line,
    holds_json,
    is_json,
    is_narrow,
    pointer,
    stand_in,
    table_format,
    wide_encoding,
)

_CALLED = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON lines", "parquet": "Parquet", "folder": "text"}
_UNMARKED = ("utf-16", f"utf-16-{'le' if sys.byteorder == 'little' else 'be'}")  # what Python takes unmarked text for
_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def refuse_other_kinds(file: Path, name: str, data: DataParams) -> None:
    """Nothing, if the file may be what ``data.format`` and ``data.encoding`` say.

    Raises:
        DataError: it is something else, named together with what to do.
    """
    head, tail = _ends(file)
    if data.format == "parquet":
        fault = _parquet_fault(head, tail, file.stat().st_size)
    else:
        fault = _bytes_fault(head, data) or _text_fault(head.decode(data.encoding, errors="ignore"), data)
    if fault is not None:
        raise DataError(f"{name} is {fault}")


def text_fault(file: Path, data: DataParams) -> str | None:
    """What a file is that is no text in the declared encoding, as the fault of its row; None if it may be.

    A page of HTML or a piece of JSON is a text as any other; a pointer stands for one.
    """
    head, _ = _ends(file)
    return _bytes_fault(head, data) or _said(data, pointer(head.decode("utf-8", errors="replace")))


def _ends(file: Path) -> tuple[bytes, bytes]:
    with file.open("rb") as stream:
        head = stream.read(HEAD)
        stream.seek(max(0, file.stat().st_size - 4))
        return head, stream.read(4)


def _said(data: DataParams, kind: FileKind | None) -> str | None:
    return None if kind is None else f"not {_CALLED[data.format]} (it is {kind.what}); {kind.remedy}"


def _parquet_fault(head: bytes, tail: bytes, size: int) -> str | None:
    kind = binary_kind(head)
    if kind is PARQUET and tail == b"PAR1":
        return None
    if kind is PARQUET:
        return f"only the beginning of a Parquet file: at {size} bytes its end is missing; fetch or write it again"
    if kind is None and (wide := wide_encoding(head)):
        kind = FileKind(f"text in {wide}", f"set data.format, and data.encoding: {wide}")
    elif kind is None and is_binary(head):
        kind = unknown_kind(head)
    elif kind is None:
        text = head.decode("utf-8", errors="replace")
        like = "jsonl" if is_json(text) else table_format(text)
        kind = stand_in(text) or FileKind(_begins(text), f"set data.format: {like}, if that is what it is")
    return f"not Parquet (it is {kind.what}); {kind.remedy}"


def _bytes_fault(head: bytes, data: DataParams) -> str | None:
    """What the bytes are, if they are no text in the declared encoding."""
    if kind := binary_kind(head):
        return _said(data, kind)
    declared, found = codecs.lookup(data.encoding).name, wide_encoding(head)
    if found and declared != found and (declared, found) != _UNMARKED:
        kind_of_text = f"{found}, which Excel calls Unicode text" if found == "utf-16" else found
        return f"not {data.encoding} text (it is {kind_of_text}); set data.encoding: {found}"
    if head.startswith(codecs.BOM_UTF8) and declared not in ("utf-8", "utf-8-sig"):
        return f"not {data.encoding} text (it is utf-8, by its mark); set data.encoding: utf-8"
    if declared in _WIDE and not found and is_narrow(head):
        return f"not {data.encoding} text (it reads as utf-8); set data.encoding: utf-8"
    if declared not in _WIDE and is_binary(head):
        return _said(data, unknown_kind(head))
    return None


def _text_fault(text: str, data: DataParams) -> str | None:
    """What the text is, if it holds no rows of the declared format."""
    if (kind := stand_in(text)) and _may_stand_in(text, data):
        return _said(data, kind)
    if data.format == "jsonl" and text.strip() and not holds_json(text):
        return _said(data, FileKind(_begins(text), f"if it is a table, set data.format: {table_format(text)}"))
    if data.format in ("csv", "tsv") and data.columns is None and is_json(text):
        return _said(data, FileKind("JSON", "set data.format: jsonl"))
    return None


def _may_stand_in(text: str, data: DataParams) -> bool:
    """A table without a header may begin with a cell of HTML: then its first line has the cells of a row."""
    cells = max(first_line(text).count(mark) for mark in ",\t;|") + 1
    return data.columns is None or cells < len(data.columns)


def _begins(text: str) -> str:
    return f"text that begins with {sanitized(first_line(text)[:40])!r}"
