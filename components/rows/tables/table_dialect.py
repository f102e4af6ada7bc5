"""Which dialect a table is written in: what params.yaml says, or else what its beginning shows.

Each candidate reads the sample as the whole file is read afterwards. The one wins under which the wanted columns are
there and most lines are good rows; where two do as well, the plainer one.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TextIO

from components.config.data_params import Quoting
from components.config.params import DataParams
from components.rows.tables.dialect import Dialect
from components.rows.tables.quote_marks import QuoteMarks
from components.rows.tables.table_cells import NeverClosed, TableCells
from components.rows.tables.table_shape import columns_of, is_row_of

SAMPLE = 1 << 18  # characters
_SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=([^\w"\\\r\n])"?[;,\t]*(\r\n|\r|\n|\Z)', re.IGNORECASE)
_UNQUOTED = 3  # so many lines with a stray quote, and no cell that is quoted well: quotes are characters


@dataclass(frozen=True)
class TableDialect:
    """A table's dialect, how it came to be known, and whether a line ``sep=...`` stands before its rows."""

    dialect: Dialect
    how: str
    sep_line: bool

    def description(self) -> str:
        """All of it in words."""
        return f"{self.dialect.description()}; {self.how}"


@dataclass(frozen=True)
class _Sample:
    """Lines of a table, the first of all among them, and whether others follow."""

    text: str
    cut: bool


@dataclass(frozen=True)
class _Trial:
    """What a dialect makes of the sample: lines of good rows, lines lost, and whether the wanted columns are there."""

    dialect: Dialect
    found: bool
    good: int
    bad: int

    def merit(self) -> tuple[bool, int]:
        return self.found, self.good - self.bad


def find_dialect(text: TextIO, data: DataParams) -> TableDialect:
    """The dialect of a table. The text is at its beginning before and afterwards."""
    head = text.read(SAMPLE)
    sep = _SEP_LINE.match(head)
    sample = _whole_lines(head[sep.end() :] if sep else head, cut=bool(text.read(1)))
    if data.delimiter is not None:
        delimiter, how = data.delimiter, "separator set in params.yaml"
    elif sep is not None:
        delimiter, how = sep[1], "separator named by the first line"
    elif data.format == "tsv":
        delimiter, how = "\t", "separator of TSV"
    else:
        delimiter, how = _likely_delimiter(sample, data) or ",", "separator detected"
    if data.quoting is not None:
        quoting, how = data.quoting, f"{how}, quoting set in params.yaml"
    else:
        quoting, how = _quoting(_with_quotes(text, sample), delimiter, data), f"{how}, quoting detected"
    text.seek(0)
    return TableDialect(Dialect(delimiter, quoting), how, sep is not None)


def other_delimiter(text: TextIO, data: DataParams) -> str | None:
    """The separator under which the table has the wanted columns, whatever is set; None if there is none."""
    text.seek(0)
    sample = _whole_lines(text.read(SAMPLE), cut=bool(text.read(1)))
    found = _likely_delimiter(sample, data)
    return found if found and _trial(sample, Dialect(found, _plain(found)), data).found else None


def _whole_lines(text: str, *, cut: bool) -> _Sample:
    end = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
    return _Sample(text[:end] or text if cut else text, cut)


def _with_quotes(text: TextIO, sample: _Sample) -> _Sample:
    """The sample, or its first line and that part of the file where the first quote stands."""
    if not sample.cut or '"' in sample.text:
        return sample
    before = ""
    while block := text.read(SAMPLE):
        if '"' in block:
            lines = (before + block + text.read(SAMPLE)).splitlines(keepends=True)[1:]
            first = io.StringIO(sample.text, newline="").readline()
            return _whole_lines(first + "".join(lines), cut=bool(text.read(1)))
        before = block
    return sample


def _likely_delimiter(sample: _Sample, data: DataParams) -> str | None:
    trials = [_trial(sample, Dialect(char, _plain(char)), data) for char in _SEPARATORS if char in sample.text]
    tables = [trial for trial in trials if trial.found or trial.good > 0]
    return max(tables, key=_Trial.merit).dialect.delimiter if tables else None


def _plain(delimiter: str) -> Quoting:
    """What quoting is where nothing speaks for another."""
    return "none" if delimiter == "\t" else "doubled"


def _quoting(sample: _Sample, delimiter: str, data: DataParams) -> Quoting:
    if '"' not in sample.text and "\\" not in sample.text:
        return _plain(delimiter)
    trials: dict[Quoting, _Trial] = {
        each: _trial(sample, Dialect(delimiter, each), data) for each in ("doubled", "backslash", "none")
    }
    marks = QuoteMarks.of(sample.text, delimiter)
    if delimiter == "\t":
        quoted = marks.say_quoted(trials["doubled"].bad)
    else:
        quoted = marks.stray < _UNQUOTED or marks.needed + marks.whole > 0 or trials["none"].bad > 0
    chosen: Quoting = "doubled" if quoted else "none"
    if re.search(rf'\\["\r\n{re.escape(delimiter)}]', sample.text):
        against = "doubled" if marks.mostly_quoted() else chosen
        if trials["backslash"].bad < trials[against].bad:
            return "backslash"
    return chosen


def _trial(sample: _Sample, dialect: Dialect, data: DataParams) -> _Trial:
    cells = TableCells(io.StringIO(sample.text, newline=""), dialect)
    found, good, bad = False, 0, 0
    try:
        columns = columns_of(cells, data)
        found = all(columns.count(column) == 1 for column in (data.text, data.target))
        for _, lines, _, fault in cells.rows(len(columns), is_row_of(columns, data), doubt=True):
            good += lines if fault is None and len(columns) > 1 else 0
            bad += fault is not None
    except NeverClosed:
        # At the end of a sample that is cut, a cell may well be open.
        bad += 0 if sample.cut else max(sample.text.count("\n") + 1 - good - bad, 1)
    return _Trial(dialect, found, good, bad)
