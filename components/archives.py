"""Files taken out of wheels, zip files and tarballs, those inside one another included. Nothing in them is run.

A member that would land outside the folder, a link or a device is refused. It does not know where archives come from.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, cast

from components.errors import SourceError

_SUFFIX = re.compile(r"\.(whl|zip|tar|tar\.(gz|bz2|xz)|tgz)$")
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, NotImplementedError, zlib.error)


@dataclass(frozen=True)
class _Entry:
    """A file or a link of an archive; folders are implied by their files."""

    name: str
    regular: bool
    open: Callable[[], IO[bytes]]


def extract(archive: Path, member: str, to: Path, only: Sequence[str] = ("*",)) -> None:
    """Write the files that ``member`` names into the folder ``to``, under their paths below it.

    Args:
        archive: A wheel, zip file or tarball.
        member: A file, a folder or a pattern; it may walk through archives inside: ``data/a.tar.gz/inner/rows.txt``.
            Of a pattern, paths are kept from its first part with a star on.
        to: An existing folder.
        only: Patterns of file names; other files are left out.

    Raises:
        SourceError: no such member, not an archive, or one that no sound archive holds.
    """
    parts = PurePosixPath(member).parts
    inner = next((n for n, part in enumerate(parts[:-1], 1) if _SUFFIX.search(part)), None)
    if inner is not None and not any("*" in part for part in parts[:inner]):
        with tempfile.TemporaryDirectory() as room:
            extract(archive, "/".join(parts[:inner]), Path(room))
            extract(Path(room) / parts[inner - 1], "/".join(parts[inner:]), to, only)
        return
    found = 0
    try:
        with _entries(archive) as entries:
            for entry in entries:
                if _escapes(entry.name):
                    raise SourceError(
                        f"{archive.name} holds {entry.name!r}, which leads out of its folder; do not trust it"
                    )
                below = _below(PurePosixPath(entry.name), parts)
                if below is None or not any(fnmatchcase(below.name, pattern) for pattern in only):
                    continue
                if not entry.regular:
                    raise SourceError(f"{archive.name} holds {entry.name} as a link or a device; only files are taken")
                _copy(entry, to / below, archive)
                found += 1
    except _BROKEN as error:
        raise SourceError(f"{archive.name} is not a whole archive: {error}") from error
    if not found:
        raise SourceError(f"{archive.name} holds no {member}; list it and correct the address")


def top_folder(archive: Path) -> str:
    """The one folder that everything in a source distribution lies in."""
    try:
        with _entries(archive) as entries:
            tops = {PurePosixPath(entry.name).parts[0] for entry in entries}
    except _BROKEN as error:
        raise SourceError(f"{archive.name} is not a whole archive: {error}") from error
    if len(tops) != 1:
        raise SourceError(f"{archive.name} holds {len(tops)} top folders; a source distribution holds one")
    return tops.pop()


def _below(name: PurePosixPath, member: Sequence[str]) -> PurePosixPath | None:
    """Where an entry goes if ``member`` names it: its path below the member, or below the pattern's fixed part."""
    if len(name.parts) < len(member) or not all(map(fnmatchcase, name.parts, member)):
        return None
    fixed = next((n for n, part in enumerate(member) if "*" in part), None)
    if fixed is None:
        fixed = len(member) if len(name.parts) > len(member) else len(member) - 1
    return PurePosixPath(*name.parts[fixed:])


def _escapes(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts


def _copy(entry: _Entry, to: Path, archive: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with to.open("xb") as target, entry.open() as source:
            shutil.copyfileobj(source, target)
    except FileExistsError as error:
        raise SourceError(f"{archive.name} holds {entry.name} twice; do not trust it") from error


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    """The files and links of an archive of any kind, in its own order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield (_zip_entry(packed, info) for info in packed.infolist() if not info.is_dir())
    else:
        with tarfile.open(archive) as tape:
            yield (_tar_entry(tape, info) for info in tape if not info.isdir())


def _zip_entry(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    mode = info.external_attr >> 16
    return _Entry(info.orig_filename, stat.S_IFMT(mode) in (0, stat.S_IFREG), lambda: packed.open(info))


def _tar_entry(tape: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
    return _Entry(info.name, info.isreg(), lambda: cast("IO[bytes]", tape.extractfile(info)))  # None for links alone
