"""A folder that appears whole or not at all: filled under another name, synced, then renamed into place.

Knows nothing of what is in it. Between taking the old folder away and renaming the new one a crash leaves no folder,
never half of one. What a killed process left of its filling goes when the next one fills the same folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.io.atomic import sync


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes ``to``, replacing what was there, when the block ends without an error."""
    to.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_behind(to)
    # The leading dot keeps what a killed process leaves behind from being taken for a folder like its neighbours.
    room = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    held = os.open(room, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        new = room / "new"
        new.mkdir()
        yield new
        for path in [*new.rglob("*"), new]:
            # Some writers make files for their owner alone; other accounts and containers read these folders too.
            path.chmod(0o755 if path.is_dir() else 0o644)
            sync(path)
        if to.is_dir():
            to.rename(room / "old")
        new.rename(to)
        sync(to.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(held)


def _remove_left_behind(to: Path) -> None:
    """Remove rooms that no process holds any more, but never the only copy of what was there."""
    ours = re.compile(re.escape(f".{to.name}.") + "[a-z0-9_]{8}")
    for room in [path for path in to.parent.iterdir() if ours.fullmatch(path.name)]:
        with suppress(OSError):  # it is being filled, or just went
            # An empty one was made a moment ago and is about to be held; another folder holds more than ours do.
            found = set(os.listdir(room))
            if "new" in found and not found - {"new", "spill"}:
                held = os.open(room, os.O_RDONLY)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(room, ignore_errors=True)
                finally:
                    os.close(held)
