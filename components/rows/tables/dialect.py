"""How a table of text is written: what parts its cells, and how a cell holds that character, a quote or a line end.

Knows how Python's csv module is told so, and nothing of files. What a file's dialect is, table_dialect.py finds out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from components.config.data_params import Quoting

QUOTING = {
    "doubled": 'a cell may stand in quotes, a quote inside it is written ""',
    "backslash": 'a cell may stand in quotes, a quote inside it is written \\"',
    "none": "a quote is a character like any other",
}
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)


@dataclass(frozen=True)
class Dialect:
    """The character between two cells, and what a quote means.

    doubled     "one ""two"", three"    as Excel, pandas and RFC 4180 write it
    backslash   "one \\"two\\", three"    as MySQL and Spark write it; doubled quotes are read too
    none        one "two", three        a quote is a character, a line is a row
    """

    delimiter: str
    quoting: Quoting

    def reader(self, lines: Iterable[str]) -> Any:
        """A reader of the csv module. It is strict: otherwise a stray quote would swallow rows without a word."""
        match self.quoting:
            case "doubled":
                return csv.reader(lines, delimiter=self.delimiter, strict=True)
            case "backslash":
                return csv.reader(self._escaped(lines), delimiter=self.delimiter, escapechar="\\", strict=True)
            case "none":
                return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)

    def _escaped(self, lines: Iterable[str]) -> Iterator[str]:
        r"""Lines in which a backslash that escapes nothing is doubled, as the csv module would drop it.

        MySQL and Spark put it before a quote, a separator, a line end or a backslash; ``C:\new`` keeps its own.
        """
        special = {'"', "\\", "\r", "\n", self.delimiter}

        def keep(found: re.Match[str]) -> str:
            return found[0] if found[1] in special else "\\" + found[0]

        for line in lines:
            yield _ESCAPE.sub(keep, line) if "\\" in line else line

    def description(self) -> str:
        """The dialect in words."""
        return f"separator {shown(self.delimiter)}, quoting {self.quoting} ({QUOTING[self.quoting]})"


def shown(delimiter: str) -> str:
    """A separator as it is told, and as it can be written in params.yaml."""
    return "tab" if delimiter == "\t" else f'"{delimiter}"'
