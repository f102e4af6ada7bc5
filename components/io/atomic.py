"""A file that appears whole or not at all: written under another name, synced, then renamed into place.

A reader sees what was there before or what is there now, also after a power cut. Knows nothing of what is in it; for a
whole folder see folders.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(to: Path) -> Iterator[Path]:
    """A path to write to; it becomes ``to``, replacing what was there, when the block ends without an error.

    Raises:
        OSError: the disk would not take it; what was there before stands, and nothing is left beside it.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps what a killed process leaves behind from being taken for a file like its neighbours.
    part = to.with_name(f".{to.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield part
        sync(part)
        part.replace(to)
        sync(to.parent)
    finally:
        with suppress(OSError):  # where nothing could be written nothing can be taken away
            part.unlink()


def write_text(to: Path, text: str) -> Path:
    """Write a text file whole, in UTF-8, and return its path.

    Raises:
        OSError: see ``whole_file``.
    """
    with whole_file(to) as part:
        part.write_text(text, encoding="utf-8")
    return to


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
