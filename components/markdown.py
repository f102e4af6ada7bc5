"""Texts from outside as part of a Markdown page: what they say stays, what they would do does not. Pure.

A label, a prompt or a reason may hold a table's bar, a link, a picture or a script. Pages are shown by Prefect, MLflow
and whatever opens a file of them; some render HTML inside Markdown, so both are taken from the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

# The characters that mean something within a line; an underscore inside a word does not.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Entities, since not every reader of Markdown takes a backslash before these. A ">" closes only what a "<" opened.
_HTML = {"&": "&amp;", "<": "&lt;"}
_FIRST = re.compile(r"^(\d*)([#>+=.)-])")  # of a heading, a quote, a list
# Characters that a page's reader does not see, or that turn its text around.
_UNSEEN = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
# Some readers make a link of a bare address.
_ADDRESS = re.compile(r"(?<=[A-Za-z0-9]):(?=//)|(?<=www)\.|(?<=mailto):", re.IGNORECASE)


def escaped(text: str) -> str:
    """The text on one line, to be read as it is wherever a sentence or a table's cell may stand."""
    line = _visible(" ".join(text.split()))
    line = _MARKS.sub(lambda match: f"\\{match[0]}", re.sub("[&<]", lambda match: _HTML[match[0]], line))
    return _ADDRESS.sub(lambda match: f"&#{ord(match[0])};", line)


def code(text: str) -> str:
    """The text on one line as code; it cannot end the code, whatever backticks it holds. Not for a table's cell."""
    line = _visible(" ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    # A blank inside keeps the fence apart from a backtick, and is not shown.
    blank = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def table(rows: Sequence[Mapping[str, object]], ours: Collection[str] = ()) -> str:
    """A row for each record under the keys of the first; every value is escaped, but for ``ours``: columns that hold
    Markdown which no text from outside is part of.
    """
    head = list(rows[0]) if rows else []
    lines = [[escaped(key) for key in head], ["---"] * len(head)]
    lines += [[str(row[key]) if key in ours else escaped(str(row[key])) for key in head] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The rows of a table whose reader takes every text in it for Markdown, as Prefect's page does."""
    return [{escaped(key): _cell(value) for key, value in row.items()} for row in rows]


def _cell(value: object) -> object:
    # Here the text is a page of its own, whose first characters may make a heading or a list.
    return _FIRST.sub(r"\1\\\2", escaped(value)) if isinstance(value, str) else value


def _visible(line: str) -> str:
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape", "backslashreplace").decode("ascii"), line)
