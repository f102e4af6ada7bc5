"""Every form in which JSON holds rows: read as its rows, or refused with what to write."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.params import DataParams
from components.errors import DataError
from components.rows import json_stream
from components.rows.json_rows import json_rows
from components.rows.json_stream import JsonStream
from components.rows.row import Row

OBJECTS = [{"text": f"text {n}\nof two lines", "target": "ab"[n % 2]} for n in range(6)]


def read(content: str, **settings: Any) -> list[Row]:
    data = DataParams.model_validate({"source": "rows", "format": "jsonl"} | settings)
    text = io.TextIOWrapper(io.BytesIO(content.encode()), "utf-8-sig", newline="\n")
    return list(json_rows(text, "a.json", data))


def pairs(rows: list[Row]) -> list[dict[str, object]]:
    assert [row.fault for row in rows if row.fault] == []
    return [{"text": row.text, "target": row.target} for row in rows]


FORMS = {
    "lines": "\n".join(map(json.dumps, OBJECTS)),
    "lines of Windows, blank ones between": "\r\n\r\n".join(map(json.dumps, OBJECTS)) + "\r\n",
    "a list in one line": json.dumps(OBJECTS),
    "a list, pretty": json.dumps(OBJECTS, indent=2),
    "a list, an object a line": "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    "a list behind blank lines": "\n \n" + json.dumps(OBJECTS),
    "lists, one a line": json.dumps(OBJECTS[:3]) + "\n" + json.dumps(OBJECTS[3:]) + "\n",
    "data": json.dumps({"data": OBJECTS}),
    "rows, pretty": json.dumps({"rows": OBJECTS, "count": 6, "tags": ["a"]}, indent=1),
    "a list deep inside": json.dumps({"result": {"hits": {"items": OBJECTS}}}),
    "two lists, of which one fits": json.dumps({"columns": [{"name": "text"}], "rows": OBJECTS}),
    "pretty objects one after another": "\n".join(json.dumps(each, indent=2) for each in OBJECTS),
    "objects in one line": "".join(map(json.dumps, OBJECTS)),
    "a text sequence (RFC 7464)": "".join(f"\x1e{json.dumps(each)}\n" for each in OBJECTS),
    "line ends of an old Mac": "\r".join(map(json.dumps, OBJECTS)),
    "files joined with their marks": "\n".join("\ufeff" + json.dumps(each) for each in OBJECTS),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_rows(form: str) -> None:
    assert pairs(read(FORMS[form])) == OBJECTS


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_where_a_chunk_ends_does_not_count(form: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    assert pairs(read(FORMS[form])) == OBJECTS


def test_a_row_says_where_it_stands() -> None:
    lines = FORMS["lines"]
    assert [row.where for row in read("\n" + lines)][:2] == ["a.json:2", "a.json:3"]
    assert [row.where for row in read(json.dumps(OBJECTS))][:2] == ["a.json#1", "a.json#2"]
    assert [row.where for row in read(f"{lines}\n{lines.splitlines()[0] * 2}")][-2:] == ["a.json:7#1", "a.json:7#2"]


def test_rows_inside_of_rows_are_reached_by_their_path() -> None:
    whole = {"features": [{"name": "text"}], "rows": [{"row_idx": n, "row": each} for n, each in enumerate(OBJECTS)]}
    assert pairs(read(json.dumps(whole), text="row.text", target="row.target")) == OBJECTS


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": "cut off', "not JSON: Invalid control character at (column 18)"),
        ('{"text": "a", "target": "b"},', "not JSON: a comma stands behind the object: in JSON lines there is none"),
        ("{'text': 'a'}", "not JSON: single quotes are Python's, not JSON's: write it with json.dumps"),
        ('{"text": "a"} x', "not JSON: Expecting value (column 15)"),
        ('{"a":' * 100_000, "not JSON: lists or objects stand inside of one another too deep"),
        ('{"text": ' + "1" * 5000 + "}", "not JSON: Exceeds the limit (4300 digits)"),
        ("\x00\x00\x00", "not JSON: Expecting value (column 1)"),
        ("3", "holds a int where an object is needed"),
        ("[1]", "holds a list where an object is needed"),
        ("null", "holds a NoneType where an object is needed"),
        ('{"text": "a", "text": "b", "target": "c"}', "the key 'text' stands twice in the object; keep one"),
        ('{"text": "a", "target": "c", "target": "c"}', "the key 'target' stands twice in the object; keep one"),
        ('{"target": "c"}', "no field 'text'; it has ['target']"),
    ],
)
def test_a_bad_line_is_one_bad_row_and_the_next_one_is_read(line: str, fault: str) -> None:
    good = json.dumps(OBJECTS[0])
    first, bad, last = read(f"{good}\n{line}\n{good}\n")
    assert bad.where == "a.json:2"
    assert (bad.fault or "").startswith(fault)
    assert pairs([first, last]) == [OBJECTS[0]] * 2


def test_a_bad_first_line_is_one_bad_row_too() -> None:
    rows = read('{"text": "cut off\n' + FORMS["lines"])
    assert [row.where for row in rows if row.fault] == ["a.json:1"]
    assert pairs(rows[1:]) == OBJECTS


@pytest.mark.parametrize(
    "line",
    [
        '{"e\u0301": {"a": "1"}, "e\u0301": {"a": "2"}, "target": "b"}',
        '{"\u00e9": {"a": "1"}, "e\u0301": {"a": "2"}, "target": "b"}',
        '{"e\u0301": {"a": "1", "a": "2"}, "target": "b"}',
    ],
)
def test_a_key_stands_twice_in_whatever_unicode_form(line: str) -> None:
    (row,) = read(line, text="\u00e9.a")
    assert "stands twice in the object; keep one" in (row.fault or "")


def test_a_key_that_stands_twice_elsewhere_spoils_no_row() -> None:
    (row,) = read('{"text": "a", "target": "b", "tags": {"x": 1, "x": 2}}')
    assert (row.text, row.target, row.fault) == ("a", "b", None)


def test_names_of_fields_are_compared_in_one_unicode_form() -> None:
    (row,) = read('{"re\u0301ponse": "a", "target": "b"}', text="r\u00e9ponse")
    assert (row.text, row.target) == ("a", "b")


def test_values_that_are_no_rows_in_a_list_are_bad_rows() -> None:
    rows = read(json.dumps([OBJECTS[0], None, [1], "a", OBJECTS[1]]))
    assert [(row.where, row.fault) for row in rows if row.fault] == [
        ("a.json#2", "holds a NoneType where an object is needed"),
        ("a.json#3", "holds a list where an object is needed"),
        ("a.json#4", "holds a str where an object is needed"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps(OBJECTS, indent=1)[:-20],
            r"a\.json:\d+: not JSON: .*; 5 objects stand before it, and what follows",
        ),
        (json.dumps(OBJECTS)[:-1], r"a\.json:1: not JSON: the list is never closed: the file is cut off; 6 objects"),
        ("[" + FORMS["lines"] + "]", r"a\.json:2: not JSON: a comma or \] is missing; 1 objects"),
        ("[\n{},\n]", r"a\.json:3: not JSON: a comma stands before the \] that ends the list"),
        ('[["text", "target"], ["a", "b"]]', r"lists of values, which have no names .*orient='records'"),
        ('["text", "target"]\n["a", "b"]\n', r"lists of values, which have no names"),
        ('[{"a": 1}]\n,\n[{"a": 1}]', r"a\.json:2: not JSON: a comma stands between the objects"),
        ("[" * 200_000, "too deep"),
        (json.dumps({"train": OBJECTS, "test": OBJECTS}), r"lists of objects: \.train, \.test; .* jq -c '\.train\[\]'"),
        (
            json.dumps({"text": ["a", "b"], "target": ["c", "d"]}),
            "a table by its columns.*orient='records', lines=True",
        ),
        (json.dumps({"text": {"0": "a", "1": "b"}, "target": {"0": "c", "1": "d"}}), "a table by its columns"),
        (json.dumps({"columns": ["text", "target"], "index": [0], "data": [["a", "b"]]}), "columns and cells apart"),
        (json.dumps(dict(zip("abcdef", OBJECTS, strict=True))), r"holds 6 objects by their keys; .* jq -c '\.\[\]'"),
    ],
)
def test_a_document_that_is_broken_or_holds_no_rows_is_refused_with_what_to_write(content: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert str(caught.value).isprintable()


def test_one_object_is_one_row() -> None:
    assert read('\n{"text": ["One.", "Two."], "target": "a"}') == [Row("a.json:2", "One. Two.", "a")]
    assert read('{"message": "Not Found"}')[0].fault == "no field 'text'; it has ['message']"


def test_a_long_list_is_read_without_holding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 1000)
    text = io.StringIO(json.dumps([{"text": "x" * 100}] * 1000))
    stream = JsonStream(text)
    for number, (value, _) in enumerate(stream.values(), start=1):
        assert value == {"text": "x" * 100}
        assert text.tell() < number * 120 + 2500
    assert number == 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON), st.none() | st.integers(0, 2), st.sampled_from([1, 3, 50]))
def test_a_stream_gives_what_was_written(values: list[Any], indent: int | None, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        found = [value for value, _ in JsonStream(io.StringIO(json.dumps(values, indent=indent))).values()]
    assert found == values
