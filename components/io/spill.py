"""Rows that are too many for memory: kept in files, and read back in the order of their keys' first digits.

Each file holds the rows of one range of keys, so that reading one file at a time needs the memory of one file. What
the rows and the keys mean is not known here, and the folder is removed by whoever made it.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

DIGITS = 4  # of a hexadecimal key, which say the file
BUFFERED = 8_000_000  # characters held before they are written: long runs, so that a file has few small blocks
ROW = 100  # what a row weighs beside its characters, in characters
PART = 16 * 2**20  # bytes of raw data a file is meant for: as Python objects it is several times that
SIZE = 8  # bytes that say how long the block behind them is
MOST = 256  # files open at once


def parts_for(size: int) -> int:
    """Into how many files so many bytes of raw data are sorted."""
    return min(MOST, size // PART + 1)


class Spill:
    """Rows sorted into files by their key, read back file by file; use it as a context, which closes the files.

    A row is of numbers and texts, kept in the form that Python is quickest with: who wrote the files reads them.
    """

    def __init__(self, folder: Path, parts: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._waiting: list[list[Sequence[Any]]] = [[] for _ in range(parts)]
        self._weight = 0
        self._writers: dict[int, BinaryIO] = {}

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, key: str, row: Sequence[Any], weight: int) -> None:
        """Keep a row. ``key`` is of hexadecimal digits, ``weight`` about how many characters the row holds."""
        self._waiting[int(key[:DIGITS], 16) * len(self._waiting) >> 4 * DIGITS].append(row)
        self._weight += weight + ROW
        if self._weight >= BUFFERED:
            self._write()

    def read(self) -> Iterator[Iterable[tuple[Any, ...]]]:
        """The rows of each file, in the order in which they were added; a file goes when the next is asked for."""
        self._write()
        self._close()
        for part in range(len(self._waiting)):
            if (file := self._file(part)).exists():
                yield _rows(file)
                file.unlink()

    def _write(self) -> None:
        for part, rows in enumerate(self._waiting):
            if rows:
                if part not in self._writers:
                    self._writers[part] = self._file(part).open("wb")
                block = marshal.dumps(rows, 2)  # later versions search for what stands twice
                self._writers[part].writelines((len(block).to_bytes(SIZE, "big"), block))
                rows.clear()
        self._weight = 0

    def _close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _file(self, part: int) -> Path:
        return self._folder / f"{part:03}.rows"


def _rows(file: Path) -> Iterator[tuple[Any, ...]]:
    with file.open("rb") as blocks:
        while size := blocks.read(SIZE):
            yield from marshal.loads(blocks.read(int.from_bytes(size, "big")))
