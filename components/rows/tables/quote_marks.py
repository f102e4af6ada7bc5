"""How a text of table rows uses its quotes: as a program that quotes cells would, or as characters. Reads no rows."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class QuoteMarks:
    """Counts over a sample of a table.

    needed   cells in quotes that hold a separator, a line end or a doubled quote: only who quotes writes them
    whole    other cells in quotes
    comma    those of them that hold a comma: Excel quotes them in TSV too
    stray    lines with a quote elsewhere, which who quotes would have doubled inside of quotes
    bare     lines with a comma outside of quotes
    rows     lines that hold anything, those inside of a cell not counted
    """

    needed: int = 0
    whole: int = 0
    comma: int = 0
    stray: int = 0
    bare: int = 0
    rows: int = 0

    @classmethod
    def of(cls, sample: str, delimiter: str) -> QuoteMarks:
        char = re.escape(delimiter)
        cell = re.compile(rf'(?:^|(?<={char}))"((?:[^"]|"")*+)"(?={char}|[\r\n]|\Z)', re.MULTILINE)
        inside = [found[1] for found in cell.finditer(sample)]
        whole = [text for text in inside if not any(mark in text for mark in ('"', delimiter, "\r", "\n"))]
        rest = [line for line in cell.sub("x", sample).splitlines() if line.strip()]
        return cls(
            needed=len(inside) - len(whole),
            whole=len(whole),
            comma=sum("," in text for text in whole),
            stray=sum('"' in line for line in rest),
            bare=sum("," in line for line in rest),
            rows=len(rest),
        )

    def say_quoted(self, bad: int) -> bool:
        """Whether a program quoted the cells of a table whose lines are no evidence otherwise; ``bad`` lines break it.

        Cells are quoted that must be, more than there are strays; or, without one stray, all cells that hold a comma
        are, or a cell of each row.
        """
        if self.needed > max(self.stray, bad):
            return True
        every_row = self.needed + self.whole >= self.rows - 1 > 1
        return self.stray == 0 == bad and (every_row or (self.comma > 0 and self.bare == 0))

    def mostly_quoted(self) -> bool:
        """Whether as many cells stand in quotes as there are half of the rows."""
        return 2 * (self.needed + self.whole) >= self.rows
