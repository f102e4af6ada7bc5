"""Files taken out of wheels, zip files and tarballs, those inside one another included. Nothing in them is run.

A member that would land outside the folder, a link or a device is refused, and so is an archive that makes much out of
little: what comes out is counted while it comes, so that neither disk nor memory fills. It does not know where archives
come from.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from components.errors import SourceError

_SUFFIX = re.compile(r"\.(whl|zip|tar|tar\.(gz|bz2|xz)|tgz)$")
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error),
    *(EOFError, OSError, RuntimeError, NotImplementedError, UnicodeError, ValueError, OverflowError),
)
# What the disk says of what is written to it, and not of the archive.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}
# Text packs to a tenth, a table of few words to a fiftieth. What makes more is no data set but an attack, or a mistake.
RATIO = 200  # bytes out of one byte of the outermost archive
SMALL = 100 << 20  # bytes that any archive may make, however small
MOST = 1 << 40  # bytes that none may exceed
MEMBERS = 1_000_000
_BLOCK = 1 << 20
_PACKED: Mapping[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": lambda path: cast("IO[bytes]", gzip.GzipFile(path)),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


@dataclass(frozen=True)
class _Entry:
    """A file or a link of an archive; folders are implied by their files."""

    name: str
    regular: bool
    open: Callable[[], IO[bytes]]
    counted: bool  # whether its bytes are, where they are read


class _Allowance:
    """How many bytes may still come out of an archive and those inside it, and how many members."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.members = archive.name, 0
        self.size = archive.stat().st_size
        self.most = min(max(SMALL, RATIO * self.size), MOST)
        self.left = self.most

    def spend(self, size: int) -> None:
        """Count bytes that come out, or are about to."""
        self.left -= size
        if self.left < 0:
            raise SourceError(
                f"{self.archive} of {self.size:,} bytes unpacks to more than {self.most:,}, which no sound data set"
                " does; if you trust it, unpack it yourself and name the file or folder as the source"
            )

    def count(self) -> None:
        """Count a member."""
        self.members += 1
        if self.members > MEMBERS:
            raise SourceError(
                f"{self.archive} holds more than {MEMBERS:,} members; if you trust it, unpack it yourself and name the"
                " file or folder as the source"
            )


class _Counted(io.RawIOBase):
    """A stream whose bytes are counted where they are read or passed over; no more is read at once than is allowed."""

    def __init__(self, stream: IO[bytes], allowance: _Allowance) -> None:
        super().__init__()
        self._stream, self._allowance, self._furthest = stream, allowance, 0

    def read(self, size: int = -1) -> bytes:
        size = size if size >= 0 else self._allowance.left + 1
        before = self._stream.tell()
        self._reach(before + size if size > _BLOCK else before)
        got = self._stream.read(size)
        self._reach(before + len(got))
        return got

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._reach(offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _reach(self, position: int) -> None:
        if position > self._furthest:
            self._allowance.spend(position - self._furthest)
            self._furthest = position


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
    _extract(archive, member, to, only, _Allowance(archive))


def _extract(archive: Path, member: str, to: Path, only: Sequence[str], allowance: _Allowance) -> None:
    parts = PurePosixPath(member).parts
    inner = next((n for n, part in enumerate(parts[:-1], 1) if _SUFFIX.search(part)), None)
    if inner is not None and not any("*" in part for part in parts[:inner]):
        with tempfile.TemporaryDirectory() as room:
            _extract(archive, "/".join(parts[:inner]), Path(room), ("*",), allowance)
            _extract(Path(room) / parts[inner - 1], "/".join(parts[inner:]), to, only, allowance)
        return
    found = 0
    try:
        with _entries(archive, allowance) as entries:
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
                _copy(entry, to / below, archive, allowance)
                found += 1
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        raise SourceError(f"{archive.name} is not a whole archive: {error}") from error
    if not found:
        raise SourceError(f"{archive.name} holds no {member}; list it and correct the address")


def top_folder(archive: Path) -> str:
    """The one folder that everything in a source distribution lies in."""
    try:
        with _entries(archive, _Allowance(archive)) as entries:
            tops = {(PurePosixPath(entry.name).parts or ("",))[0] for entry in entries}
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


def _copy(entry: _Entry, to: Path, archive: Path, allowance: _Allowance) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with to.open("xb") as target, entry.open() as source:
            while block := source.read(_BLOCK):
                if not entry.counted:
                    allowance.spend(len(block))
                target.write(block)
    except FileExistsError as error:
        raise SourceError(f"{archive.name} holds {entry.name} twice; do not trust it") from error


@contextmanager
def _entries(archive: Path, allowance: _Allowance) -> Iterator[Iterator[_Entry]]:
    """The files and links of an archive of any kind, in its own order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield (_zip_entry(packed, info) for info in _each(packed.infolist(), allowance) if not info.is_dir())
    else:
        # Opened here and not by tarfile, which reads the name of a member at once, whatever length it claims.
        with _unpacked(archive) as stream:
            counted = cast("IO[bytes]", _Counted(stream, allowance))
            with tarfile.open(fileobj=counted, mode="r:") as tape:
                yield (_tar_entry(tape, info) for info in _each(tape, allowance) if not info.isdir())


def _each(found: Iterable[Any], allowance: _Allowance) -> Iterator[Any]:
    for info in found:
        allowance.count()
        yield info


def _unpacked(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        start = file.read(6)
    openers = (opener for mark, opener in _PACKED.items() if start.startswith(mark))
    return next(openers, lambda path: path.open("rb"))(archive)


def _zip_entry(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    mode = info.external_attr >> 16
    return _Entry(info.orig_filename, stat.S_IFMT(mode) in (0, stat.S_IFREG), lambda: packed.open(info), False)


def _tar_entry(tape: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
    # None for links. The holes of a sparse file are in no stream: they are counted where they come out.
    return _Entry(info.name, info.isreg(), lambda: cast("IO[bytes]", tape.extractfile(info)), not info.issparse())
