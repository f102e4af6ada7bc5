"""Hostile files of JSON, Parquet and texts: rows in = rows kept + rows named, and no other file is touched.

How many rows go in is known because this test writes the files. CSV and TSV have their own property.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from components.config.params import SPLITS, DataParams, TaskParams
from components.data.prepare import prepare, read_examples
from components.errors import DataError
from components.rows.reader import read_rows

# Examples of each of the five forms below: 200 in all by default, 20,000 where slow tests run.
many = pytest.mark.parametrize("count", [40, pytest.param(4_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
MARKS = ["", "\x00", "\u2028", "\x85", "\r", "\r\n", "\n", '"', "'", ",", "\t", "\ufeff", "\x1e", "é", "e\u0301"]
WORDS = st.lists(st.sampled_from([*MARKS, "a", "b", "film", " ", "{", "}", "[", "]", "\\"]), max_size=8).map("".join)
HUGE = st.sampled_from(["x" * 200_000, "x " * 50_000, "\x00" * 5000])
HALF = st.sampled_from(["\ud800", "a\udfff", "\udce9"])
TEXT = WORDS | st.text(max_size=20) | HUGE | st.sampled_from(["nan", "NA", "null", "None", "good", "bad", "1", "true"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, 1.0, 0, 2**63])
VALUE = TEXT | HALF | st.none() | st.booleans() | NUMBERS | st.lists(TEXT, max_size=2) | st.just({"a": {}})
LABEL = st.sampled_from(["good", "bad"]) | VALUE
LABELS = st.none() | st.sampled_from([["good", "bad"], ["1", "0"], ["true", "false"], ["é", "nan"]])
ENCODING = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis"])

ROW = st.fixed_dictionaries({"text": VALUE, "target": LABEL}) | st.dictionaries(st.text(max_size=3), VALUE, max_size=2)
BROKEN = st.sampled_from(
    [
        *('{"text": "a', "{'text': 1}", "{} x", "[1]", "3", "nul", "}", '"', "\x00", '{"text": "a", "text": "b"}'),
        *('{"text": NaN, "target": -Infinity}', '{"a":' * 3000, '{"text": ' + "1" * 5000 + "}"),
    ]
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tokenizer, and beside it files that nobody may touch."""
    room = tmp_path_factory.mktemp("room")
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: id_ for id_, word in enumerate(["?", "good", "bad", "1", "0", "true", "false", "é", "nan"])},
            unk_token="?",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(room / "tokenizer.json"))
    (room / "mine").mkdir()
    (room / "mine" / "weights.bin").write_bytes(b"mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)  # thousands of folders, and no power cut
        yield room


def holds(room: Path, rows: int, **data: Any) -> str:
    """Prepare room/raw, where so many rows stand, and check what must hold; "kept" or the error's text is returned."""
    given = {"source": "rows", "max_bad_rows": 1.0, "max_tokens": 16} | data
    gate = [{"metric": "accuracy" if data.get("labels") else "chrf", "direction": "higher", "threshold": 0.0}]
    task = TaskParams.model_validate({"base": "tiny", "instruction": "Say it.", "data": given, "gate": gate})
    before = snapshot(room)
    shutil.rmtree(room / "prepared", ignore_errors=True)
    try:
        report = prepare("film", task, room / "raw", room / "tokenizer.json", 64, room / "prepared")
    except DataError as error:
        assert not (room / "prepared").exists()
        said = str(error)
        assert said.isprintable(), said
        assert len(said) < 4000
    else:
        said = "kept"
        named = sum(each["rows"] for each in report["dropped"].values())
        assert report["rows_read"] == report["rows_kept"] + named == rows
        kept = [example for split in SPLITS for example in read_examples(room / "prepared").of(split)]
        assert len(kept) == report["rows_kept"]
        assert all(example.text.strip() and example.target.strip() for example in kept)
    assert snapshot(room) == before, "a file outside the folder that is written was touched"
    return said


def snapshot(room: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Every file and folder of the room, but for what is prepared there: its age and its content."""
    paths = [path for path in room.rglob("*") if "prepared" not in path.relative_to(room).parts[:1]]
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


def good_rows(labels: list[str] | None) -> list[dict[str, str]]:
    """Sixty rows that make a data set by themselves, whatever the hostile ones beside them come to."""
    return [{"text": f"text number {n}", "target": (labels or ["good", "bad"])[n % 2]} for n in range(60)]


def raw(room: Path, **files: bytes) -> None:
    shutil.rmtree(room / "raw", ignore_errors=True)
    (room / "raw").mkdir()
    for name, content in files.items():
        (room / "raw" / name).write_bytes(content)


@many
def test_json_lines(room: Path, count: int) -> None:
    @settings(max_examples=count, **QUIET)
    @given(
        st.lists((ROW | ROW).map(json.dumps) | ROW.map(lambda row: json.dumps(row, ensure_ascii=False)) | BROKEN),
        st.sampled_from(["\n", "\r\n", "\n\n \n"]),
        ENCODING,
        LABELS,
    )
    def holding(lines: list[str], end: str, encoding: str, labels: Any) -> None:
        whole = [*map(json.dumps, good_rows(labels)), *lines]
        content = end.join(line.replace("\n", " ") for line in whole).encode(encoding, "replace")
        raw(room, **{"rows.jsonl": content})
        assert holds(room, len(whole), format="jsonl", encoding=encoding, labels=labels) == "kept"

    holding()


@many
def test_json_documents(room: Path, count: int) -> None:
    forms: dict[str, Callable[[list[Any], int | None], str]] = {
        "list": lambda rows, indent: json.dumps(rows, indent=indent),
        "wrapped": lambda rows, indent: json.dumps({"count": 3, "data": rows}, indent=indent),
        "one after another": lambda rows, indent: "\n".join(json.dumps(row, indent=indent or 1) for row in rows),
        "cut": lambda rows, indent: json.dumps(rows, indent=indent)[:-1],
    }
    values = ROW | ROW | ROW | VALUE.filter(lambda value: not isinstance(value, list | dict))

    @settings(max_examples=count, **QUIET)
    @given(st.lists(values), st.sampled_from(list(forms)), st.none() | st.integers(0, 2), LABELS)
    def holding(values: list[Any], form: str, indent: int | None, labels: Any) -> None:
        rows = [*good_rows(labels), *values]
        raw(room, **{"rows.json": forms[form](rows, indent).encode()})
        said = holds(room, len(rows), format="jsonl", labels=labels)
        assert said.startswith("rows.json:") if form == "cut" else said == "kept"

    holding()


LONG, SHORT = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
ARROW: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "string": (pa.string(), TEXT),
    "large": (pa.large_string(), TEXT),
    "binary": (pa.binary(), st.binary() | st.just(b"a")),
    "int": (pa.int64(), LONG | st.sampled_from([0, 1])),
    "float": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "us": (pa.timestamp("us"), LONG),
    "ns": (pa.timestamp("ns", "Europe/Berlin"), LONG),
    "days": (pa.date32(), SHORT),
    "duration": (pa.duration("s"), LONG),
    "list": (pa.list_(pa.string()), st.lists(TEXT, max_size=2)),
    "struct": (pa.struct([("a", pa.int32())]), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    "null": (pa.null(), st.none()),
    "decimal": (pa.decimal128(20, 2), st.decimals(-(10**9), 10**9, places=2)),
    "category": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["good", "bad", "1", "nan"])),
}
TABLES = [["text", "target"], ["text", "target", "other"], ["text", "text", "target"], ["text"]]


@st.composite
def columns(draw: st.DrawFn, rows: int) -> pa.Array:
    type_, values = ARROW[draw(st.sampled_from(["string", "string", *ARROW]))]
    given_ = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
    if pa.types.is_dictionary(type_):
        return pa.array(given_, pa.string()).dictionary_encode()
    if pa.types.is_temporal(type_):  # by their bits: also what no calendar of Python's reaches
        return pa.array(given_, pa.int32() if pa.types.is_date32(type_) else pa.int64()).view(type_)
    return pa.array(given_, type_)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 12))
    names = draw(st.sampled_from(TABLES))
    return pa.Table.from_arrays([draw(columns(rows)) for _ in names], names=names)


@many
def test_parquet(room: Path, count: int) -> None:
    @settings(max_examples=count, **QUIET)
    @given(tables(), LABELS, st.booleans())
    def holding(table: pa.Table, labels: Any, partitioned: bool) -> None:
        raw(room, _SUCCESS=b"")
        fine = table.column_names.count("text") == 1 and (partitioned or "target" in table.column_names)
        pq.write_table(pa.Table.from_pylist(good_rows(labels)), room / "raw" / "part-0.parquet")
        place = room / "raw" / "target=good" if partitioned else room / "raw"
        place.mkdir(exist_ok=True)
        pq.write_table(table, place / "part-1.parquet", row_group_size=5)
        assert (holds(room, 60 + table.num_rows, format="parquet", labels=labels) == "kept") is fine

    holding()


NAMES = st.sampled_from(
    [
        *("good", "bad", "_x", "e\u0301", "\u00e9", "a=b", "[a]", "caf\udce9", "new\nline", "1"),
        *(".git", "__MACOSX", "Thumbs.db", ".DS_Store"),
    ]
)
CONTENT = st.binary(max_size=40) | TEXT.map(str.encode) | WORDS.map(lambda text: text.encode("utf-16"))


@many
def test_folders_of_texts(room: Path, count: int) -> None:
    @settings(max_examples=count, **QUIET)
    @given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), CONTENT, max_size=12), ENCODING, LABELS)
    def holding(files: dict[tuple[str, ...], bytes], encoding: str, labels: Any) -> None:
        raw(room)
        count = 60
        for number, row in enumerate(good_rows(labels)):
            path = room / "raw" / row["target"] / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(row["text"], encoding=encoding)
        for parts, content in files.items():
            path = room.joinpath("raw", *parts)
            if path.exists() or any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            count += not any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db") for part in parts)
        assert holds(room, count, format="folder", encoding=encoding, labels=labels) == "kept"

    holding()


@many
def test_any_bytes(room: Path, count: int) -> None:
    begins = st.sampled_from([b"", b"\xff\xfe", b"PAR1", b"\x1f\x8b", b'{"text": "', b"[{", b"PK\x03\x04", b"text,\n"])

    @settings(max_examples=count, **QUIET)
    @given(begins, st.binary(max_size=200), st.sampled_from(["jsonl", "parquet", "folder"]), ENCODING)
    def holding(begin: bytes, content: bytes, format_: str, encoding: str) -> None:
        lines = "\n".join(map(json.dumps, good_rows(None))).encode(encoding)
        raw(room, any=begin + content, **({"zzz": lines} if format_ == "jsonl" else {}))
        task = {"format": format_, "encoding": encoding}
        data = DataParams.model_validate({"source": "rows", "max_bad_rows": 1.0} | task)
        try:
            rows = sum(1 for _ in read_rows(room / "raw", data))
        except DataError:
            rows = -1  # and so holds() is refused as well
        holds(room, rows, **task)

    holding()
