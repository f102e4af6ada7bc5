"""What a full or a locked disk of this machine says, in whatever it is wrapped, told with the folder and what to do.

Without it a full TMPDIR would read as a tracking store that does not answer. Writes nothing and frees nothing.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import sqlalchemy

from components.errors import SetupError
from registry.mlflow import address

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Which file it was no error says for sure: of a copy it names the one that is read.
_TOO_LARGE = "a file could not grow to its size (File too large); raise `ulimit -f` in this shell, then run it again"
_LOCKED = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST}
# SQLite has these words, and MLflow passes nothing else on.
_SQLITE_FULL, _SQLITE_IO = "database or disk is full", "disk I/O error"  # the latter may have other causes
_SQLITE_LOCKED = ("attempt to write a readonly database", "unable to open database file")
_SPARE = 16 << 20  # bytes: with less than this free, a folder is the one that is full


def fault(uri: str, error: BaseException) -> str:
    """Which folder it is and what to do, in one line; empty where the disk is not at fault.

    Args:
        uri: the tracking store that was asked for something.
    """
    text = str(error)
    for cause in _causes(error):
        if isinstance(cause, OSError):
            place = cause.filename if isinstance(cause.filename, str) and cause.filename else ""
            if cause.errno == errno.EFBIG:
                return _TOO_LARGE
            if cause.errno in _FULL or "No usable temporary directory" in str(cause):
                return _full(uri, place)
            if cause.errno in _LOCKED and place:
                return f"{place} cannot be written ({cause.strerror}); make it writable for this user, or use another"
            if cause.errno in _NO_FOLDER and place:
                return f"{place} should be a folder ({cause.strerror}); move away what stands there"
    if f"[Errno {errno.EFBIG}]" in text:
        return _TOO_LARGE
    if f"[Errno {errno.ENOSPC}]" in text or _SQLITE_FULL in text:
        return _full(uri, "")
    if _SQLITE_IO in text and _without_room(_written_to(uri)):
        return _full(uri, "")
    file = _database(uri)
    if file and any(words in text for words in _SQLITE_LOCKED):
        return (
            f"the tracking store's file {file} cannot be opened for writing; make it and its folder {file.parent}"
            " writable for this user"
        )
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = getattr(found, "orig", None) or found.__cause__ or found.__context__


def _full(uri: str, place: str) -> str:
    """Which of the folders that are written to is the full one: an error seldom says it."""
    folders = [_nearest(Path(place))] if place else _written_to(uri)
    full = _without_room(folders) or folders
    names = " or ".join(dict.fromkeys(str(at) for at in full))
    return f"no space left in {names}; make room there, or set TMPDIR to a folder that has some, and run it again"


def _written_to(uri: str) -> list[Path]:
    """The folders that are there of those in which a store, its artifacts and temporary files lie."""
    return [_nearest(folder) for folder in (Path(tempfile.gettempdir()), *_folders_of(uri))]


def _nearest(folder: Path) -> Path:
    return next((at for at in (folder, *folder.parents) if at.is_dir()), Path("/"))


def _without_room(folders: Sequence[Path]) -> list[Path]:
    return [at for at in folders if shutil.disk_usage(at).free < _SPARE]


def _folders_of(uri: str) -> Iterator[Path]:
    if file := _database(uri):
        yield file.parent
    try:
        root = address.beside(uri) or ""
    except SetupError:
        return
    if root.startswith("file:"):
        yield Path(unquote(urlsplit(root).path))


def _database(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    name = sqlalchemy.make_url(uri).database
    return Path(name) if name else None
