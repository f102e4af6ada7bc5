"""Values of JSON out of a line or a stream, one after another, holding no more than the one that is being read.

Beside what Python's decoder does: a key that stands twice in an object is remembered, since JSON's readers differ in
which value they take. Knows no rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from components.config.values import composed

BLANK = " \t\r\n\x1e\ufeff"  # between two values: white space, the mark of JSON text sequences, that of UTF-8
_SPACE = re.compile(f"[{BLANK}]*")
_CHUNK = 1 << 20  # characters that are read at once
_NEAR = 16  # characters before the end of what is held: a fault there may be but a value that is cut


class Doubled(dict[str, Any]):
    """An object of JSON in which keys stand twice."""

    twice: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    doubled = Doubled(fields)
    names = [name for name, _ in pairs]
    doubled.twice = frozenset(name for name in fields if names.count(name) > 1)
    return doubled


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def twice_on(fields: Mapping[str, Any], path: str) -> str | None:
    """The key that stands twice where a dotted path goes; None if there is none."""
    here: Any = fields
    for part in [path] if path in fields else path.split("."):
        if not isinstance(here, Mapping):
            return None
        # In ASCII nothing is written in another Unicode form.
        keys = {part} & here.keys() if part.isascii() else {key for key in here if composed(key) == part}
        if len(keys) > 1 or (isinstance(here, Doubled) and keys & here.twice):
            return part
        here = here[keys.pop()] if keys else None
    return None


def values_of(line: str) -> list[Any]:
    """The values of a line; more than one where objects follow each other without a line's end.

    Raises:
        ValueError: the line is not JSON, or something else stands behind a value.
        RecursionError: lists or objects stand inside of one another too deep.
    """
    values: list[Any] = []
    at = _end_of_space(line, 0)
    while at < len(line):
        if line[at] == "," and values:
            raise ValueError("a comma stands behind the object: in JSON lines there is none")
        value, at = _DECODER.raw_decode(line, at)
        values.append(value)
        at = _end_of_space(line, at)
    return values


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


class JsonStream:
    """Values out of a text that is read as they are asked for."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._held, self._at, self._ended = "", 0, False
        self._lines = 0  # that end before what is held
        self.began = 0  # the line of the first value, if that is no list

    def line(self) -> int:
        """The number of the line that the next value begins on."""
        return self._lines + self._held.count("\n", 0, self._at) + 1

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            self._at = _end_of_space(self._held, self._at)
            if self._at < len(self._held):
                return self._held[self._at]
            if self._ended:
                return ""
            self._read()

    def take(self) -> Any:
        """The next value.

        Raises:
            ValueError: there is none, or it is not JSON.
            RecursionError: lists or objects stand inside of one another too deep.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise
            else:
                if end + _NEAR <= len(self._held) or self._ended:  # otherwise a number may go on: "1.", "1e+"
                    self._at = end
                    return value
            self._read()

    def values(self) -> Iterator[tuple[Any, bool]]:
        """Every value, lists opened, each with whether it is all that the text holds.

        Raises:
            ValueError, RecursionError: as in ``take``; or a list is not closed, or no comma parts its values.
        """
        first = True
        while char := self.peek():
            if char == "[":
                yield from ((value, False) for value in self._list())
            elif char == "," and not first:
                raise ValueError("a comma stands between the objects, and no [ ] around them")
            else:
                self.began = self.line() if first else 0
                value = self.take()
                yield value, first and not self.peek()
            first = False

    def _list(self) -> Iterator[Any]:
        self._at += 1
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.take()
            char = self.peek()
            if char not in ("]", ","):
                raise ValueError("a comma or ] is missing" if char else "the list is never closed: the file is cut off")
            self._at += 1
            if char == "]":
                return
            if self.peek() == "]":
                raise ValueError("a comma stands before the ] that ends the list")

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether what is held ends in the middle of the value, and is no fault of the text."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._held) - _NEAR

    def _read(self) -> None:
        self._lines += self._held.count("\n", 0, self._at)
        rest = self._held[self._at :]
        more = self._text.read(max(_CHUNK, len(rest)))  # twice as much each time, or a long value is read too often
        self._held, self._at, self._ended = rest + more, 0, not more
