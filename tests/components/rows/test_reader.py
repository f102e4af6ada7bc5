"""Rows out of files of every format, each fault found where it stands."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.params import DataParams
from components.errors import DataError
from components.rows.reader import Row, read_rows, table_dialects


def data(**settings: Any) -> DataParams:
    return DataParams.model_validate({"source": "rows", "format": "csv"} | settings)


def read(folder: Path, name: str, content: bytes, **settings: Any) -> list[Row]:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return list(read_rows(folder, data(**settings)))


def test_csv_with_quotes_commas_and_line_ends_inside_a_cell(tmp_path: Path) -> None:
    content = b'text,target\r\n"one, ""two""\r\nthree",pos\r\nfour,neg\r\n'
    assert read(tmp_path, "a.csv", content) == [
        Row("a.csv:2", 'one, "two"\r\nthree', "pos"),
        Row("a.csv:4", "four", "neg"),
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_what_the_csv_module_wrote_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("text", "target"), *rows])
    found = read(tmp_path_factory.mktemp("rows"), "a.csv", buffer.getvalue().encode())
    assert [(row.text, row.target) for row in found] == rows


def test_a_row_of_too_many_cells_is_named_by_the_line_it_starts_on_and_the_next_one_is_read(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.csv", b'text,target\n"two\nlines",a\n\none,two,three\n"b" c,d\nfine,e\n')
    assert [(row.where, row.fault) for row in rows] == [
        ("a.csv:2", None),
        ("a.csv:5", "3 cells where there are 2 columns"),
        ("a.csv:6", "',' expected after '\"'"),
        ("a.csv:7", None),
    ]


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:3: a quote opens here and is never closed"):
        read(tmp_path, "a.csv", b'text,target\nfine,a\n"open,b\nlost,c\nlost,d\n')


def test_a_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    content = b"1\t2.5\t\"a 9\" black and white ''film''\r\n\r\n2\t-1\tdull\r\n"
    settings = {"format": "tsv", "columns": ["id", "rating", "text"], "target": "rating"}
    assert read(tmp_path, "ratings.txt", content, **settings) == [
        Row("ratings.txt:1", "\"a 9\" black and white ''film''", "2.5"),
        Row("ratings.txt:3", "dull", "-1"),
    ]


def test_json_lines_reach_into_objects_and_join_lists_of_sentences(tmp_path: Path) -> None:
    lines = [{"sentences": {"abstract": ["One .", "Two ."]}, "label": 1}, {"sentences": {}, "label": 0}, [1]]
    content = "\n".join([*map(json.dumps, lines), "", "{"]).encode()
    rows = read(tmp_path, "a.jsonl", content, format="jsonl", text="sentences.abstract", target="label")
    assert rows[0] == Row("a.jsonl:1", "One . Two .", 1)
    assert rows[1].fault == "no field 'sentences.abstract'; it has ['label', 'sentences']"
    assert rows[2].fault == "holds a list where an object is needed"
    assert rows[3].where == "a.jsonl:5"
    assert rows[3].fault is not None
    assert rows[3].fault.startswith("not JSON")


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path: Path) -> None:
    content = json.dumps({"text": "one\u2028two\x85three", "target": "a"}, ensure_ascii=False).encode()
    assert read(tmp_path, "a.jsonl", content, format="jsonl") == [Row("a.jsonl:1", "one\u2028two\x85three", "a")]


def test_parquet_reads_the_two_columns_and_numbers_its_rows(tmp_path: Path) -> None:
    table = pa.table({"doc": [{"text": "one"}, {"text": None}], "target": [1, 0], "other": [b"x", b"y"]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path, data(format="parquet", text="doc.text")))
    assert rows == [Row("a.parquet:1", "one", 1), Row("a.parquet:2", None, 0)]


def test_a_folder_of_texts_takes_each_subfolder_for_a_label(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"\x00")
    read(tmp_path, "tech/002.txt", b"two\r\nlines", format="folder")
    rows = read(tmp_path, "loose.txt", b"x", format="folder", max_bad_rows=0.5)
    assert rows == [
        Row("loose.txt", fault="stands in no subfolder, whose name would be its label"),
        Row("tech/002.txt", "two\nlines", "tech"),
    ]


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "utf-8"),
        ("utf-8", "utf-8-sig"),
        ("utf-8-sig", "utf-8-sig"),
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
        ("utf-16", "utf-16"),
    ],
)
def test_encodings_and_the_byte_order_mark_of_spreadsheets(tmp_path: Path, encoding: str, written: str) -> None:
    text = "15£ café" if written == "latin-1" else "15£ café “quoted”"
    content = f"text,target\n{text},a\n".encode(written)
    assert read(tmp_path, "a.csv", content, encoding=encoding) == [Row("a.csv:2", text, "a")]


def test_a_byte_that_is_no_character_spoils_its_own_row_alone(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.csv", b"text,target\ncaf\xe9,a\nfine,b\n")
    assert [row.text for row in rows] == ["caf\udce9", "fine"]  # a lone surrogate, which examples.py refuses


def test_the_wrong_encoding_of_a_whole_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv is not utf-16 text .*set data\.encoding"):
        read(tmp_path, "a.csv", b"text,target\none,a\n", encoding="utf-16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"texte,target\none,a\n", r"a\.csv has no column 'text'; it has \['texte', 'target'\]: set data\.text"),
        (b"text,text,target\none,two,a\n", "has 2 columns named 'text'; it has"),
        (b"text, Target\none,a\n", r"no column 'target'; ' Target' differs in letter case or white space alone; it"),
        (b"caf\xe9,target\none,a\n", "no column 'text'; there are bytes that are not utf-8: set data.encoding, as in"),
        (b"", r"a\.csv is empty \(0 bytes\)"),
    ],
)
def test_a_missing_or_ambiguous_column_is_named_beside_those_there_are(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, "a.csv", content)


@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_beside_the_rows_is_told_with_the_line_that_leaves_it_out(tmp_path: Path, format_: str) -> None:
    (tmp_path / "the notes.md").write_bytes(b"# Notes\n")
    with pytest.raises(DataError, match=r"the notes\.md (is not|has no column) .*`ignore: \[the notes\.md\]`"):
        read(tmp_path, "zebra", b"x", format=format_)


def test_a_missing_parquet_column_and_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column 'target'; it has \['text'\]"):
        list(read_rows(tmp_path, data(format="parquet")))
    (tmp_path / "a.parquet").write_bytes(b"text,target\n")
    with pytest.raises(DataError, match=r"a\.parquet is not Parquet \("):
        list(read_rows(tmp_path, data(format="parquet")))


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file"):
        list(read_rows(tmp_path, data()))


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text(f"text,target\n{name},x\n", encoding="utf-8")
    assert [row.where for row in read_rows(tmp_path, data())] == ["a.csv:2", "b.csv:2"]


def test_the_dialects_of_a_folder_of_tables_are_told_with_their_files(tmp_path: Path) -> None:
    for name, char in (("a.csv", ","), ("b.csv", ";"), ("c.csv", ",")):
        (tmp_path / name).write_text(f"text{char}target\none{char}x\n", encoding="utf-8")
    found = table_dialects(tmp_path, data())
    assert [(entry["first"], entry["files"], entry["dialect"][:13]) for entry in found] == [
        ("a.csv", 2, 'separator ","'),
        ("b.csv", 1, 'separator ";"'),
    ]
    assert table_dialects(tmp_path, data(format="jsonl")) == []
