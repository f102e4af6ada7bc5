"""Tables: each physical line is a row's or is blank, a dialect is found out and said, and what was written is read."""

from __future__ import annotations

import csv
import io
import re
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.config.params import DataParams
from components.errors import DataError
from components.rows.row import Row
from components.rows.tables.table_cells import TableCells
from components.rows.tables.table_dialect import find_dialect
from components.rows.tables.table_rows import table_rows

LABELS = ["bad", "good"]


def params(**given: Any) -> DataParams:
    return DataParams.model_validate({"source": "rows", "format": "csv", "target": "label", "labels": LABELS} | given)


def read(text: str, **given: Any) -> list[Row]:
    return list(table_rows(io.StringIO(text, newline=""), "a.csv", params(**given)))


def kept(rows: list[Row]) -> list[tuple[object, object]]:
    return [(row.text, row.target) for row in rows if row.fault is None]


def named(rows: list[Row]) -> list[int]:
    return [int(row.where.partition(":")[2]) for row in rows if row.fault is not None]


def dialect(text: str, **given: Any) -> tuple[str, str]:
    found = find_dialect(io.StringIO(text, newline=""), params(**given)).dialect
    return found.delimiter, found.quoting


def table(*lines: str, header: str = "text,label", rows: int = 20) -> str:
    """A table of ``rows`` good rows with the lines after the tenth."""
    char = header.removeprefix("text").removesuffix("label")
    plain = [f"text number {n}{char}{LABELS[n % 2]}" for n in range(rows)]
    return "\n".join([header, *plain[:10], *lines, *plain[10:]]) + "\n"


# --- lines that a fault takes along ----------------------------------------------------------------------------------


def test_a_quote_that_never_pairs_well_loses_each_line_up_to_its_fault_and_names_it() -> None:
    between = [f"between {n},good" for n in range(300)]
    rows = read(table('"Great little radio,good', *between, '"Nice, really, and cheap",good'))
    assert named(rows) == list(range(12, 314))
    assert len(kept(rows)) == 20
    assert rows[10].fault is not None
    assert rows[10].fault.startswith("lines 12 to 313 are lost: on line 313: ',' expected after '\"'")
    assert rows[11].fault == "lost to the quote that opens on line 12"


def test_rows_between_two_stray_quotes_that_pair_up_are_told_and_counted() -> None:
    between = [f"between {n},good" for n in range(300)]
    rows = read(table('"Great little radio,good', *between, 'only 9",bad'))
    assert named(rows) == list(range(12, 314))
    assert "each line up to there looks like a row by itself" in str(rows[10].fault)
    assert "set data.quoting: doubled" in str(rows[10].fault)


@pytest.mark.parametrize(
    ("labels", "written"),
    [
        (["false", "true"], ["False", "True"]),  # as pandas writes them
        (["0", "1"], ["0.0", "1.0"]),
        (["caf\u00e9", "th\u00e9"], ["cafe\u0301", "the\u0301"]),
    ],
)
def test_rows_between_two_stray_quotes_are_told_however_their_labels_are_written(
    labels: list[str], written: list[str]
) -> None:
    lines = [f"text number {n},{written[n % 2]}" for n in range(60)]
    lines[20], lines[40] = f'"Great little radio,{written[0]}', f'only 9",{written[1]}'
    rows = read("\n".join(["text,label", *lines]), labels=labels)
    assert named(rows) == list(range(22, 43))
    assert len(rows) == 60


def test_a_header_in_another_unicode_form_tells_the_separator() -> None:
    rows = "".join(f"text {n};good;1,2\n" for n in range(20))
    found = dialect(f"text;re\u0301sume\u0301;a,b\n{rows}", target="r\u00e9sum\u00e9")
    assert found == (";", "doubled")


@pytest.mark.parametrize(
    "cell",
    [
        "Customer pasted this:\n" + "pos 1,good\n" * 300 + "and wants a refund",
        "pos 1,good\n" * 300 + "pos 2,good",  # its last line has a cell more than a row
        "Hello, world\nbye, all",  # prose: no label after its comma
        "one\n\ntwo",
    ],
)
def test_an_honest_cell_of_many_lines_is_one_row(cell: str) -> None:
    rows = read(table(f'"{cell}",good'))
    assert named(rows) == []
    assert (cell, "good") in kept(rows)
    assert sum(row.lines for row in rows) == 20 + cell.count("\n") + 1


def test_after_a_fault_reading_goes_on_after_the_cell_and_not_inside_it() -> None:
    rows = read(table('"Dear "John", hello', "inside of the cell,good", 'the end",good'))
    assert named(rows) == [12, 13, 14]
    assert len(kept(rows)) == 20


def test_a_fault_on_a_later_line_of_a_cell_takes_the_rest_of_the_cell_along() -> None:
    rows = read(table('"first line', 'he said "x", and', "inside,good", 'last",good'))
    assert named(rows) == [12, 13, 14, 15]
    assert len(kept(rows)) == 20


def test_a_fault_in_a_line_that_is_a_row_but_for_its_quotes_spoils_that_line_alone() -> None:
    rows = read(table('"b" c,good', "fine,good", '"well, quoted",bad'))
    assert named(rows) == [12]


def test_a_quote_that_is_never_closed_is_told_with_what_to_set() -> None:
    with pytest.raises(DataError, match=r"a\.csv:12: a quote opens here and is never closed.*set data\.quoting: none"):
        read(table('"open,good'))


@pytest.mark.parametrize("size", [131_071, 131_073, 3_000_000])
def test_a_huge_cell_is_one_row_and_the_csv_module_keeps_its_limit(size: int) -> None:
    limit = csv.field_size_limit()
    cell = ("x,good\n" * (size // 7 + 1))[:size]
    rows = read(table(f'"Pasted:\n{cell}end",good', f"{'y' * size},bad"))
    assert named(rows) == []
    assert len(kept(rows)) == 22
    assert csv.field_size_limit() == limit


def test_the_row_after_a_fault_inside_a_huge_cell_is_read() -> None:
    rows = read(
        table(
            '"' + "line\n" * 40_000 + 'he "said',
        )
    )
    assert len(kept(rows)) == 20
    assert len(named(rows)) == 40_001


@pytest.mark.parametrize("text", ["text,label\rone,good\rtwo,bad\r", '"text","label"\r"one","good"\r"two","bad"'])
def test_lines_of_an_old_mac_end_at_a_carriage_return(text: str) -> None:
    assert [(row.where, row.text) for row in read(text)] == [("a.csv:2", "one"), ("a.csv:3", "two")]


def test_a_carriage_return_inside_a_line_makes_no_row_of_half_a_row() -> None:
    rows = read(table("first half\rsecond half,good", '"first\rsecond",good'))
    assert named(rows) == [12]
    assert rows[10].fault == "a carriage return stands in a cell without quotes"
    assert ("first\rsecond", "good") in kept(rows)


# --- dialects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", [",", ";", "\t", "|"])
def test_the_separator_is_that_under_which_the_wanted_columns_are_there(char: str) -> None:
    others = "".join({",", ";", "\t", "|"} - {char})
    text = f"text{char}label\n" + f"one{others}two{char}good\n" * 3
    assert dialect(text)[0] == char
    assert len(kept(read(text))) == 3


def test_a_first_line_that_names_the_separator_is_obeyed_and_is_no_row() -> None:
    rows = read("sep=;\r\ntext;label\r\none, two;good\r\n")
    assert rows == [Row("a.csv:3", "one, two", "good")]


def test_quotes_and_separators_that_are_set_are_obeyed() -> None:
    assert kept(read('text;label\n"one";good\n', delimiter=";", quoting="none")) == [('"one"', "good")]
    assert kept(read('text,label\n"one,good\ntwo 9",bad\n', quoting="doubled")) == [("one,good\ntwo 9", "bad")]
    assert kept(read("text^label\none^good\n", delimiter="^")) == [("one", "good")]


@pytest.mark.parametrize("given", [{"delimiter": ","}, {"format": "tsv"}])
def test_a_wrong_separator_is_told_with_the_line_to_write(given: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"into the columns \['text;label'\].*write `delimiter: \";\"` under data"):
        read("text;label\none;good\n", **given)


def test_a_header_where_a_row_should_be_is_no_row() -> None:
    joined = table() + "\ufeff" + table().replace("number", "digit")
    rows = read(joined, labels=None)
    assert (len(kept(rows)), named(rows)) == (40, [22])
    rows = read(table(), labels=None, columns=["text", "label"])
    assert (len(kept(rows)), named(rows)) == (20, [1])
    assert rows[0].fault == (
        "holds the names of the columns; take the line out, or data.columns if the table has a header"
    )


def test_a_file_of_one_column_is_told_as_such() -> None:
    with pytest.raises(DataError, match=r"no column 'label'; it has \['text'\].*it is one column; split at \",\""):
        read("text\none\ntwo\n")


@pytest.mark.parametrize("text", ["", "\n\n", "sep=;\n"])
def test_a_file_without_a_header_is_told_as_such(text: str) -> None:
    with pytest.raises(DataError, match=r"no column 'text'; it has \[\].*it holds no line but blank ones"):
        read(text)


def test_a_backslash_before_a_quote_is_read_as_mysql_means_it() -> None:
    text = '"text","label"\n' + '"plain","good"\n' * 10 + '"only 5\\"","bad"\n"C:\\\\dir, C:\\new","good"\n\\N,"good"\n'
    assert dialect(text) == (",", "backslash")
    rows = read(text)
    assert named(rows) == []
    assert kept(rows)[10:] == [('only 5"', "bad"), ("C:\\dir, C:\\new", "good"), (None, "good")]


def test_a_backslash_that_was_not_seen_in_time_is_mentioned_with_each_row_that_went() -> None:
    plain = '"text of a row",good\n' * 20_000
    rows = read(f'text,label\n{plain}"only 5\\"",bad\n"next",good\n{plain}')
    assert named(rows) == [20_002, 20_003]
    assert "set data.quoting: backslash" in str(rows[20_000].fault)


def test_a_cell_that_ends_in_a_backslash_is_no_escape() -> None:
    assert kept(read('text,label\n"C:\\dir\\",good\n"one, two",bad\n')) == [("C:\\dir\\", "good"), ("one, two", "bad")]


@pytest.mark.parametrize(
    ("lines", "quoting"),
    [
        (['"She said ""never"" again"\tgood'], "doubled"),
        (['"two\nlines"\tgood'], "doubled"),
        (['"Excel, it was"\tgood'], "doubled"),
        (['"a 9" black and white film\tgood'], "none"),
        (['"all of it"\tgood'], "none"),
        (['"a 9" film\tgood', '"all ""of it"""\tbad'], "none"),
        (['"Great radio\tgood', 'only 9"\tbad'], "none"),
    ],
)
def test_the_quotes_of_a_tsv_are_read_as_they_are_used(lines: list[str], quoting: str) -> None:
    assert dialect(table(*lines, header="text\tlabel"), format="tsv") == ("\t", quoting)


def test_quotes_far_down_a_tsv_are_seen() -> None:
    plain = "a text of some words\tgood\n" * 40_000
    rows = read(f'text\tlabel\n{plain}"two ""words"""\tbad\n{plain}', format="tsv")
    assert kept(rows)[40_000] == ('two "words"', "bad")


def test_the_dialect_is_told_in_words() -> None:
    found = find_dialect(io.StringIO("text;label\none;good\n"), params())
    assert found.description() == (
        'separator ";", quoting doubled (a cell may stand in quotes, a quote inside it is written "");'
        " separator detected, quoting detected"
    )


# --- what holds for every table --------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["a", "good", "bad", '"', '""', ",", ";", "\t", "|", "\n", "\r\n", "\r", "\0", "\\", "\\N", " ", "é", "\u2028",
     "\x85", "\udce9", "text", "label", "sep=;", "NaN", "", "x" * 131_080, '"a",good\n', "b,bad\n", '"c\nd",good\n']
)  # fmt: skip
HEADERS = [
    "text,label\n",
    "text;label\r\n",
    "text\tlabel\r",
    '"text","label"\n',
    "text,text,label\n",
    "sep=;\ntext;label\n",
    "",
]


def bare(text: str) -> str:
    """A text without the characters that are written otherwise inside of quotes."""
    return text.replace('"', "").replace("\\", "")


def check_accounts(text: str, **given: Any) -> None:
    """Each physical line is of one row, in order, or holds nothing, the header or ``sep=``; DataError or nothing."""
    first = re.search(r"\r\n|\n|\r", text)
    physical = list(io.StringIO(text, newline="" if first and first[0] == "\r" else "\n"))
    data = params(**given)
    found = find_dialect(io.StringIO(text, newline=""), data)
    try:
        rows = read(text, **given)
        cells = TableCells(io.StringIO(text, newline=""), found.dialect)
        if found.sep_line:
            cells.skip_line()
        header = cells.header()
    except DataError:
        return
    assert header is not None
    taken = list(range(1, header[0] + header[1]))  # whatever stands before the header is blank, or sep=
    for row in rows:
        first = int(row.where.partition(":")[2])
        assert first > taken[-1]
        assert not "".join(physical[taken[-1] : first - 1]).strip()
        taken = list(range(first, first + row.lines))
        lines = "".join(physical[first - 1 : first - 1 + row.lines])
        assert row.fault is not None or row.text is None or bare(str(row.text)) in bare(lines)
    assert not "".join(physical[taken[-1] :]).strip()


TABLES = st.builds(lambda head, parts: head + "".join(parts), st.sampled_from(HEADERS), st.lists(PIECES, max_size=25))
GIVEN = st.fixed_dictionaries(
    {"format": st.sampled_from(["csv", "tsv"])},
    optional={
        "quoting": st.sampled_from(["doubled", "backslash", "none"]),
        "delimiter": st.sampled_from([",", ";", "tab", "|"]),
        "labels": st.sampled_from([LABELS, None]),
    },
)


@settings(max_examples=200, deadline=None)
@given(TABLES, GIVEN)
def test_each_line_of_any_table_is_kept_or_named(text: str, given: dict[str, Any]) -> None:
    check_accounts(text, **given)


@pytest.mark.slow
@settings(max_examples=16_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(TABLES, GIVEN)
def test_each_line_of_any_table_is_kept_or_named_at_length(text: str, given: dict[str, Any]) -> None:
    check_accounts(text, **given)


CELLS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(list('",;\t\n\r\\ ')), min_size=1).filter(
    lambda text: bool(text.strip()) and text != "\\N"
)
WRITTEN = st.lists(st.tuples(CELLS, st.sampled_from(LABELS)), min_size=1, max_size=6)
Way = Literal["csv", "pandas"]


def check_round_trip(rows: list[Any], char: str, quoting: int, way: Way) -> None:
    """What a program wrote is read back where its quoting is declared; where it is not, lines are accounted for."""
    escape = "\\" if quoting == csv.QUOTE_NONE else None
    buffer = io.StringIO(newline="")
    if way == "csv":
        csv.writer(buffer, delimiter=char, quoting=quoting, escapechar=escape, lineterminator="\r\n").writerows(  # type: ignore[arg-type]
            [("text", "label"), *rows]
        )
    else:
        rows = [(text.replace("\r", "_"), label) for text, label in rows]  # which pandas leaves without quotes
        frame = pd.DataFrame(rows, columns=["text", "label"])
        frame.to_csv(buffer, sep=char, quoting=quoting, escapechar=escape, index=False)  # type: ignore[call-overload]
    text = buffer.getvalue()
    declared = "doubled" if escape is None else "backslash"
    assert kept(read(text, delimiter=char, quoting=declared)) == rows
    check_accounts(text, format="tsv" if char == "\t" else "csv")


SIGNS = st.sampled_from([",", ";", "\t", "|"])
QUOTINGS = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE])
WAYS = st.sampled_from(["csv", "pandas"])


@settings(max_examples=200, deadline=None)
@given(WRITTEN, SIGNS, QUOTINGS, WAYS)
def test_what_a_program_wrote_is_read_back(rows: list[Any], char: str, quoting: int, way: Way) -> None:
    check_round_trip(rows, char, quoting, way)


@pytest.mark.slow
@settings(max_examples=4_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(WRITTEN, SIGNS, QUOTINGS, WAYS)
def test_what_a_program_wrote_is_read_back_at_length(rows: list[Any], char: str, quoting: int, way: Way) -> None:
    check_round_trip(rows, char, quoting, way)
