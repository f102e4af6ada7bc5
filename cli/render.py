"""Rows as a table for people or as JSON for programs. Knows nothing of what the rows say.

People's tables hold printable text alone; programs get each value exactly as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.process.terminal import printable, say

Row = Mapping[str, object]
NOTHING = "-"
SHORT = 20


def show(rows: Sequence[Row], *, as_json: bool = False, empty: str = "nothing here") -> None:
    """Print the rows, whose keys are the columns; ``empty`` is said to people where there is no row.

    People are spared columns that say nothing in any row.
    """
    if as_json:
        _print_json(rows)
    elif not rows:
        say(empty)
    else:
        keys = [key for key in rows[0] if any(_cell(row.get(key)) != NOTHING for row in rows)]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for key in keys:
            # Where a terminal is narrow, long texts give way and names stay whole.
            short = max(len(_cell(row.get(key))) for row in rows) <= SHORT
            table.add_column(key.replace("_", " "), overflow="fold", no_wrap=short)
        for row in rows:
            table.add_row(*(escape(_cell(row.get(key))) for key in keys))
        _print(table)


def show_one(record: Row, *, as_json: bool = False) -> None:
    """Print one record, a line for each key."""
    if as_json:
        _print_json(record)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in record.items():
        table.add_row(key.replace("_", " "), escape(_cell(value)))
    _print(table)


def shortened(text: str, length: int) -> str:
    """A text on one line of at most so many characters, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 4].rstrip()} ..."


def _print_json(value: object) -> None:
    """Exactly what it is; in ASCII where the output's encoding lacks a character, or the text is half a pair."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    click.echo(text)


def _print(table: Table) -> None:
    """As wide as the terminal; into a pipe or a file no line is broken. No line ends in blanks."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=400)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _cell(value: object) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return "\n".join(f"{printable(str(key))} {_cell(entry)}" for key, entry in value.items()) or NOTHING
    return printable(str(value))
