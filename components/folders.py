"""A folder that appears whole or not at all: filled under another name, synced, then renamed into place.

Knows nothing of what is in it. Between taking the old folder away and renaming the new one a crash leaves no folder,
never half of one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes ``to``, replacing what was there, when the block ends without an error."""
    to.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps what a killed process leaves behind from being taken for a folder like its neighbours.
    room = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        new = room / "new"
        new.mkdir()
        yield new
        for path in [*new.rglob("*"), new]:
            # Some writers make files for their owner alone; other accounts and containers read these folders too.
            path.chmod(0o755 if path.is_dir() else 0o644)
            _sync(path)
        if to.is_dir():
            to.rename(room / "old")
        new.rename(to)
        _sync(to.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
