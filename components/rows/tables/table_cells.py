"""Cells of the rows of a table: every physical line belongs to one row, or is blank.

The csv module reads. After a fault it would go on in the middle of a cell, and two stray quotes that pair up would make
one cell of all the rows between them; here each line that is lost so is a row of its own, with its fault. What the
columns mean is not known here, only what a line looks like that is a row by itself.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

from components.rows.tables.dialect import Dialect, shown

LONGEST_ROW = 1 << 26  # characters: a quote that is not closed after so many never is
_BLOCK = 1 << 20  # characters that are read at once
_FAR = 2000  # lines after a fault in which the end of the broken cell is looked for
_CSV_LIMIT = threading.Lock()

IsRow = Callable[[list[str]], bool]  # whether cells look like those of a row


# One row: the line it starts on, how many lines it spans, its cells, and its fault.
Cells = tuple[int, int, list[str], str | None]


class NeverClosed(Exception):
    """A quote opens on line ``line`` and is not closed."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Lines:
    """The lines of a text; those from line ``start`` on, and what was read with them, can be looked at again."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._kept: list[str] = []
        self._first = 1  # the number of the first line that is kept
        self._pending: deque[list[str]] = deque()
        self._old_mac: bool | None = None  # whether \r alone ends a line, as on a Mac of before 2001
        self.start = 1
        self.stream = itertools.chain.from_iterable(self._blocks())

    def between(self, first: int, last: int) -> list[str]:
        """Lines ``first`` to ``last``, or to the end; ``first`` is not below ``start``."""
        while self._first + len(self._kept) <= last and self._fetch():
            pass
        return self._kept[first - self._first : last + 1 - self._first]

    def _blocks(self) -> Iterator[list[str]]:
        while self._pending or self._fetch():
            yield self._pending.popleft()

    def _read(self) -> list[str]:
        """Some more lines. They end at \\n alone, if the first one does: then \\r is a character inside of a cell."""
        if self._old_mac:
            return self._text.readlines(_BLOCK)
        block = self._text.read(_BLOCK)
        if self._old_mac is None and (end := re.search(r"\r\n|\n|\r(?!\Z)", block)):
            self._old_mac = end[0] == "\r"
            if self._old_mac:
                self._text.seek(0)
                return self._text.readlines(_BLOCK)
        rest: list[str] = []
        while block and not (rest[-1] if rest else block).endswith("\n") and (more := self._text.readline()):
            rest.append(more)
        return list(io.StringIO("".join([block, *rest]), newline="\n"))

    def _fetch(self) -> bool:
        block = self._read()
        del self._kept[: self.start - self._first]
        self._first = self.start
        if sum(map(len, self._kept)) > LONGEST_ROW:
            raise NeverClosed(self.start)
        self._kept += block
        self._pending += [block] if block else []
        return bool(block)


class TableCells:
    """The rows of one table, read once from its first line to its last."""

    def __init__(self, text: TextIO, dialect: Dialect) -> None:
        self._lines = _Lines(text)
        self._dialect = dialect
        self._reader = dialect.reader(self._lines.stream)
        self._before = 0  # lines that this reader has not counted
        self.other_lines = 0  # lines of nothing but blanks, and those passed over, which are no rows

    @property
    def line(self) -> int:
        """The number of the last line that was read."""
        return self._before + int(self._reader.line_num)

    def skip_line(self) -> None:
        """Pass over the next line, which is no row: ``sep=;``."""
        self._skip(1)
        self.other_lines += 1

    def header(self) -> Cells | None:
        """The first row; None where the table has none.

        Raises:
            NeverClosed: a quote opens and is not closed.
        """
        return next(self._rows(None, lambda cells: False, doubt=False), None)

    def rows(self, width: int, is_row: IsRow, *, doubt: bool) -> Iterator[Cells]:
        """The rows that are left. One that has not ``width`` cells has a fault.

        With ``doubt``, a cell of several lines that each look like a row is taken for rows that a quote swallowed.

        Raises:
            NeverClosed: a quote opens and is not closed.
        """
        return self._rows(width, is_row, doubt=doubt)

    def _rows(self, width: int | None, is_row: IsRow, *, doubt: bool) -> Iterator[Cells]:
        self._lines.start = start = self.line + 1
        while True:
            try:
                reader, before, lines = self._reader, self._before, self._lines  # looked up once, not at each row
                for cells in reader:
                    end = before + reader.line_num
                    if end == start and len(cells) == width:
                        yield start, 1, cells, None
                    elif not cells or (end == start and self._is_blank(start)):
                        self.other_lines += 1
                    else:
                        yield from self._unusual(start, end, cells, width, is_row if doubt else None)
                    lines.start = start = end + 1
                return
            except csv.Error as error:
                read = self._huge(start) if "field larger" in str(error) else str(error)
            if isinstance(read, list):
                yield from self._unusual(start, self.line, read, width, is_row if doubt else None)
            elif "unexpected end" in read:
                raise NeverClosed(start)
            else:
                fault = self.line
                self._skip(self._lost_after(fault, is_row))
                yield from self._lost(start, self.line, self._told(read, start, fault))
            self._lines.start = start = self.line + 1

    def _skip(self, lines: int) -> None:
        self._before += sum(1 for _ in itertools.islice(self._lines.stream, lines))

    def _is_blank(self, number: int) -> bool:
        line = self._lines.between(number, number)[0]
        return line.isspace() and self._dialect.delimiter not in line

    def _unusual(
        self, start: int, end: int, cells: list[str], width: int | None, is_row: IsRow | None
    ) -> Iterator[Cells]:
        """A row of several lines, or of too many or too few cells."""
        if is_row is not None and end > start and self._swallowed(start, end, is_row):
            why = f"a quote that opens here ends on line {end}, and each line up to there looks like a row by itself"
            yield from self._lost(start, end, f"{why}; if it is one cell, set data.quoting: {self._dialect.quoting}")
            return
        fault = None
        if width is not None and len(cells) != width:
            char = shown(self._dialect.delimiter)
            said = f"1 cell (split at {char})" if len(cells) == 1 else f"{len(cells)} cells"
            fault = f"{said} where there are {width} columns"
            fault += f"; a quote makes one row of lines {start} to {end}" if end > start else ""
        yield start, end + 1 - start, [] if fault else cells, fault

    def _swallowed(self, start: int, end: int, is_row: IsRow) -> bool:
        """Whether a cell of several lines is rows between two stray quotes: then its first and last line, which hold
        the quotes, are whole rows too. In a cell into which somebody put a table they are not."""
        lines = self._lines.between(start, end)
        if not (is_row(self._split(lines[0])) and is_row(self._split(lines[-1]))):
            return False
        inner = [line for line in lines[1:-1] if line.strip()]
        return 2 * sum(is_row(self._split(line)) for line in inner) >= len(inner)

    def _split(self, line: str) -> list[str]:
        """The cells of a line whose quotes are taken for characters."""
        return line.rstrip("\r\n").split(self._dialect.delimiter)

    def _lost(self, start: int, end: int, why: str) -> Iterator[Cells]:
        """Each line as a row with a fault."""
        if end > start:
            why = f"lines {start} to {end} are lost: {why}"
        yield start, 1, [], why
        for line in range(start + 1, end + 1):
            yield line, 1, [], f"lost to the quote that opens on line {start}"

    def _told(self, fault: str, start: int, line: int) -> str:
        if fault.startswith("new-line character"):
            fault = "a carriage return stands in a cell without quotes"
        where, hint = (f"on line {line}: ", '; write a quote inside a cell as ""') if line > start else ("", "")
        lines = self._lines.between(start, line)
        if self._dialect.quoting == "doubled" and any('\\"' in each for each in (lines[0], lines[-1])):
            hint = "; a backslash stands before a quote: if the two mean a quote, set data.quoting: backslash"
        return f"{where}{fault}{hint}"

    def _lost_after(self, fault: int, is_row: IsRow) -> int:
        """How many lines after that of a fault are lost to it too.

        None, if that line looks like a whole row. Otherwise its cell may go on, up to a line where a quote ends a cell
        before any has opened one.
        """
        line = self._lines.between(fault, fault)[0]
        if is_row(self._split(line)) or is_row(self._alone(line)):
            return 0
        char = re.escape(self._dialect.delimiter)
        edge = re.compile(rf'(?P<opens>(?:^|(?<={char}))")|"(?={char}|$)')
        for count, ahead in enumerate(self._lines.between(fault + 1, fault + _FAR), start=1):
            if '"' in ahead and (found := edge.search(ahead.rstrip("\r\n").replace('""', ""))):
                return 0 if found["opens"] is not None else count
        return 0

    def _alone(self, line: str) -> list[str]:
        """The cells of a line by itself, whatever its quotes."""
        try:
            return next(csv.reader([line], delimiter=self._dialect.delimiter), [])
        except csv.Error:
            return []

    def _huge(self, start: int) -> list[str] | str:
        """The cells, or the fault, of the row that starts on line ``start``: one is above the csv module's limit.

        The limit is one for the whole process, so it is lifted for this row alone, by one thread at a time.
        """
        again = self._lines.between(start, self.line)
        self._before = start - 1
        self._reader = self._dialect.reader(itertools.chain(again, self._lines.stream))
        with _CSV_LIMIT:
            limit = csv.field_size_limit(4 * LONGEST_ROW)
            try:
                return list(next(self._reader))
            except csv.Error as error:
                return str(error)
            finally:
                csv.field_size_limit(limit)
