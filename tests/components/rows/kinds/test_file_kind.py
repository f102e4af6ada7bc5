"""What a file really is, told in one printable line with what to type, before any row is read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.params import DataParams
from components.errors import DataError
from components.rows.kinds.file_kind import refuse_other_kinds, text_fault
from components.rows.kinds.text_kind import wide_encoding

ROWS = "text,label\r\n" + "".join(f"Parcel {n} came late,{('bad', 'good')[n % 2]}\r\n" for n in range(120))
LINES = "".join(json.dumps({"text": f"Parcel {n} came late", "label": "bad"}) + "\n" for n in range(60))
TABLE = pa.table({"text": ["one", "two"], "label": ["bad", "good"]})


def data(format_: str, **settings: Any) -> DataParams:
    return DataParams.model_validate({"source": "rows", "format": format_} | settings)


def said(folder: Path, content: bytes, format_: str, **settings: Any) -> str:
    """The refusal; empty if there is none."""
    file = folder / "rows.any"
    file.write_bytes(content)
    try:
        refuse_other_kinds(file, "rows.any", data(format_, **settings))
    except DataError as error:
        return str(error)
    return ""


def written(write: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, "<x/>" * 50)

    return written(write)


def tar() -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo("rows.csv")
            member.size = len(ROWS)
            archive.addfile(member, io.BytesIO(ROWS.encode()))

    return written(write)


def sqlite(folder: Path) -> bytes:
    with sqlite3.connect(folder / "rows.db") as connection:
        connection.execute("create table rows (text, label)")
    connection.close()
    return (folder / "rows.db").read_bytes()


BINARY = {
    "packed with gzip": lambda _: gzip.compress(ROWS.encode()),
    "packed with bzip2": lambda _: bz2.compress(ROWS.encode()),
    "packed with xz": lambda _: lzma.compress(ROWS.encode()),
    "packed with zstd": lambda _: pa.compress(ROWS.encode(), "zstd", asbytes=True),
    "a tar archive": lambda _: tar(),
    "a zip archive": lambda _: zipped("rows.csv"),
    "a 7z archive": lambda _: b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(50),
    "a spreadsheet (xlsx)": lambda _: zipped("[Content_Types].xml", "xl/worksheets/sheet1.xml"),
    "a spreadsheet (OpenDocument)": lambda _: zipped("application/vnd.oasis.opendocument.spreadsheet"),
    "a document (docx or the like)": lambda _: zipped("[Content_Types].xml", "word/document.xml"),
    "an Office file (xls, doc, or one with a password)": lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
    "a PDF document": lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "an SQLite database": sqlite,
    "a Python pickle": lambda _: pickle.dumps([1, 2, 3]),
    "a NumPy array": lambda _: written(lambda buffer: np.save(buffer, np.zeros(3))),
    "NumPy arrays (npz)": lambda _: written(lambda buffer: np.savez(buffer, np.zeros(3))),
    "an Arrow file (Feather)": lambda _: written(lambda buffer: feather.write_feather(TABLE, buffer)),
    "an Arrow stream": lambda _: written(lambda buffer: pa.ipc.new_stream(buffer, TABLE.schema).write_table(TABLE)),
    "an ORC file": lambda _: written(lambda buffer: orc.write_table(TABLE, buffer)),
    "an HDF5 file": lambda _: b"\x89HDF\r\n\x1a\n" + bytes(50),
    "a PNG image": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(50),
    "binary, of no kind that is known here": lambda _: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl", "parquet", "folder"])
@pytest.mark.parametrize("what", BINARY)
def test_a_file_of_another_kind_is_told_by_its_first_bytes(tmp_path: Path, format_: str, what: str) -> None:
    content = BINARY[what](tmp_path)
    message = said(tmp_path, content, format_)
    assert f"(it is {what}" in message
    assert "; " in message  # what to do
    assert message.isprintable()


PARQUET = written(lambda buffer: pq.write_table(TABLE, buffer))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"5f" * 32 + b"\nsize 4182033\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>rows.csv\n at main</title></head><body>text,label</body></html>\n"
TEXTS = [
    (POINTER, "a Git LFS pointer, not the file that it stands for); run `git lfs pull`"),
    (b"/annex/objects/SHA256E-s4182033--5f.csv\n", "a git-annex pointer"),
    (b"outs:\n- md5: 0123456789abcdef0123456789abcdef\n  size: 5\n  path: rows.csv\n", "a DVC pointer"),
    (PAGE, "an HTML page, titled 'rows.csv at main'); use the raw address"),
    (b"<!-- proxy --><HTML><BODY>Sign in</BODY></HTML>", "an HTML page"),
    (b'<html><head><title>Index of /data</title></head><a href="rows.csv">', "an HTML page, titled 'Index of /data'"),
    (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>',
        "an error that an object store answered, AccessDenied",
    ),
    (b'<?xml version="1.0"?><rows><row/></rows>', "an XML document"),
]


@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize(("content", "what"), TEXTS)
def test_a_text_that_stands_in_place_of_rows_is_told(tmp_path: Path, format_: str, content: bytes, what: str) -> None:
    message = said(tmp_path, content, format_)
    assert f"(it is {what}" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("format_", "content", "settings", "remedy"),
    [
        ("csv", ROWS.encode("utf-16"), {}, "(it is utf-16, which Excel calls Unicode text); set data.encoding: utf-16"),
        ("csv", ROWS.encode("utf-16-le"), {}, "(it is utf-16-le); set data.encoding: utf-16-le"),
        ("jsonl", LINES.encode("utf-16-be"), {}, "(it is utf-16-be); set data.encoding: utf-16-be"),
        ("jsonl", LINES.encode("utf-16-be"), {"encoding": "utf-16"}, "set data.encoding: utf-16-be"),
        ("tsv", ROWS.encode("utf-32"), {}, "(it is utf-32); set data.encoding: utf-32"),
        ("tsv", ROWS.encode("utf-32-be"), {"encoding": "latin-1"}, "set data.encoding: utf-32-be"),
        ("csv", "текст,ответ\nда,нет\n".encode("utf-16-le"), {}, "set data.encoding: utf-16-le"),
        ("csv", ("文字,回答\n" + "很好,好\n" * 9).encode("utf-16-be"), {}, "set data.encoding: utf-16-be"),
        ("csv", ROWS.encode("utf-16"), {"encoding": "utf-16-le"}, "set data.encoding: utf-16"),
        ("csv", ROWS.encode("utf-8-sig"), {"encoding": "cp1252"}, "by its mark); set data.encoding: utf-8"),
        ("csv", ROWS.encode(), {"encoding": "utf-16"}, "(it reads as utf-8); set data.encoding: utf-8"),
        ("jsonl", ROWS.encode(), {}, "text that begins with 'text,label'); if it is a table, set data.format: csv"),
        ("jsonl", ROWS.replace(",", "\t").encode(), {}, "set data.format: tsv"),
        ("jsonl", PARQUET, {}, "(it is Parquet); set data.format: parquet"),
        ("csv", LINES.encode(), {}, "(it is JSON); set data.format: jsonl"),
        ("csv", b'[\n  {"text": "one", "label": "bad"}\n]\n', {}, "(it is JSON); set data.format: jsonl"),
        ("tsv", b'{\n  "data": []\n}\n', {}, "(it is JSON); set data.format: jsonl"),
        ("parquet", LINES.encode(), {}, "set data.format: jsonl"),
        ("parquet", ROWS.encode(), {}, "set data.format: csv"),
        ("parquet", ROWS.encode("utf-16"), {}, "text in utf-16"),
        ("parquet", PARQUET[:-9], {}, "its end is missing; fetch or write it again"),
    ],
)  # fmt: skip
def test_another_encoding_or_format_is_told_with_the_line_to_write(
    tmp_path: Path, format_: str, content: bytes, settings: dict[str, Any], remedy: str
) -> None:
    assert remedy in said(tmp_path, content, format_, **settings)


@pytest.mark.parametrize(
    ("format_", "content", "settings"),
    [
        ("csv", ROWS.encode("utf-16"), {"encoding": "utf-16"}),
        ("csv", ROWS.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        ("csv", ROWS.encode("utf-16-le"), {"encoding": "utf-16"}),
        ("csv", ROWS.encode("utf-8-sig"), {}),
        ("csv", "text,label\ncafé,bad\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("csv", b'"text","label"\r\n"\x19","\x00"\r\n"\x19","\x00"\r\n', {}),
        ("csv", b"GIF8,ORC\none,bad\n", {}),
        ("csv", b"ID3,OggS,label\none,two,bad\n", {}),
        ("csv", b"text,label\n" + b"one\x00two,bad\n" * 9, {}),
        ("csv", b"text,label\n\x1b[1mone\x1b[0m,bad\n", {}),
        ("csv", b"<html>a page</html>,bad\n", {"columns": ["text", "label"]}),
        ("tsv", b'{"a": 1}\tbad\n', {"columns": ["text", "label"]}),
        ("jsonl", b'\n\n{"text": "<html>"}\n', {}),
        ("jsonl", LINES.encode("utf-8-sig"), {}),
        ("jsonl", b"not JSON\n" + LINES.encode(), {}),
        ("parquet", PARQUET, {}),
    ],
)
def test_a_file_that_may_be_what_it_is_declared_to_be_is_let_through(
    tmp_path: Path, format_: str, content: bytes, settings: dict[str, Any]
) -> None:
    assert said(tmp_path, content, format_, **settings) == ""


def test_in_a_folder_of_texts_a_page_is_a_text_and_a_pointer_is_not(tmp_path: Path) -> None:
    file = tmp_path / "1.txt"
    for content in (PAGE, LINES.encode(), ROWS.encode(), b"", b"version 2"):
        file.write_bytes(content)
        assert text_fault(file, data("folder")) is None
    for content, fault in (
        (POINTER, r"not text (it is a Git LFS pointer"),
        (b"%PDF-1.7\n", "not text (it is a PDF document); save it as plain text (UTF-8)"),
        ("one two three".encode("utf-16-le"), "not utf-8 text (it is utf-16-le); set data.encoding: utf-16-le"),
    ):
        file.write_bytes(content)
        assert (text_fault(file, data("folder")) or "").startswith(fault)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1))
def test_no_text_in_utf_8_is_taken_for_one_of_wide_characters(text: str) -> None:
    assert wide_encoding(text.encode()) is None


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "jsonl", "parquet", "folder"]))
def test_whatever_the_bytes_are_they_are_let_through_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, format_: str
) -> None:
    for encoding in ("utf-8", "latin-1", "utf-16", "shift_jis"):
        message = said(tmp_path_factory.getbasetemp(), content, format_, encoding=encoding)
        assert message.isprintable()
        assert len(message) < 400
