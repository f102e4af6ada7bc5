"""What is taken out of an archive, under which path, and what is never taken."""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import SourceError
from components.sources import archives
from components.sources.archives import extract, top_folder

FILES = {
    "pkg/data/train.jsonl": b"1",
    "pkg/data/test.jsonl": b"2",
    "pkg/data/deep/more.jsonl": b"3",
    "pkg/data/notes.txt": b"4",
    "pkg/database.txt": b"5",
}


def tarball(to: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(to, "w:gz") as tape:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tape.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tape.addfile(info)
    return to


def zipped(to: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(to, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            packed.writestr(info, target)
    return to


MAKERS = pytest.mark.parametrize(("make", "name"), [(tarball, "a.tar.gz"), (zipped, "a.whl")])


def taken(archive: Path, member: str, to: Path, only: tuple[str, ...] = ("*",)) -> dict[str, bytes]:
    to.mkdir()
    extract(archive, member, to, only)
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}


@MAKERS
@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("pkg/data/notes.txt", {"notes.txt": b"4"}),
        ("pkg/data", {"train.jsonl": b"1", "test.jsonl": b"2", "deep/more.jsonl": b"3", "notes.txt": b"4"}),
        ("pkg/data/", {"train.jsonl": b"1", "test.jsonl": b"2", "deep/more.jsonl": b"3", "notes.txt": b"4"}),
        ("pkg/data/*.jsonl", {"train.jsonl": b"1", "test.jsonl": b"2"}),
        ("pkg/*/deep/*.jsonl", {"data/deep/more.jsonl": b"3"}),
    ],
)
def test_a_member_is_a_file_a_folder_or_a_pattern(make, name, member, expected, tmp_path: Path) -> None:
    assert taken(make(tmp_path / name, FILES), member, tmp_path / "out") == expected


def test_other_files_are_left_out(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    assert taken(archive, "pkg/data", tmp_path / "out", only=("*.txt",)) == {"notes.txt": b"4"}


def test_a_member_walks_through_archives_inside(tmp_path: Path) -> None:
    inner = tarball(tmp_path / "inner.tar.gz", {"top/rows.txt": b"rows"})
    middle = zipped(tmp_path / "middle.zip", {"x/inner.tar.gz": inner.read_bytes()})
    outer = tarball(tmp_path / "outer.tgz", {"a/middle.zip": middle.read_bytes()})
    assert taken(outer, "a/middle.zip/x/inner.tar.gz/top/rows.txt", tmp_path / "out") == {"rows.txt": b"rows"}
    assert taken(outer, "a/middle.zip", tmp_path / "as-it-is") == {"middle.zip": middle.read_bytes()}


@MAKERS
def test_a_missing_member_is_named(make, name, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{name} holds no pkg/dat; list it"):
        taken(make(tmp_path / name, FILES), "pkg/dat", tmp_path / "out")


@MAKERS
@pytest.mark.parametrize("evil", ["../evil", "/etc/evil", "pkg/../../evil", "pkg\\evil"])
def test_a_path_that_leads_out_is_refused(make, name, evil, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="leads out of its folder"):
        taken(make(tmp_path / name, {evil: b"", **FILES}), "pkg", tmp_path / "out")
    assert not list(tmp_path.rglob("evil"))


@MAKERS
def test_a_link_is_refused(make, name, tmp_path: Path) -> None:
    archive = make(tmp_path / name, FILES, links={"pkg/data/link": "/etc/passwd"})
    with pytest.raises(SourceError, match="pkg/data/link as a link"):
        taken(archive, "pkg/data", tmp_path / "out")
    assert taken(archive, "pkg/data/notes.txt", tmp_path / "beside-it") == {"notes.txt": b"4"}


def test_a_member_that_stands_twice_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tape:
        for _ in range(2):
            tape.addfile(tarfile.TarInfo("a/b"))
    with pytest.raises(SourceError, match="a/b twice"):
        taken(archive, "a", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.whl"])
def test_a_broken_archive_is_refused(name: str, tmp_path: Path) -> None:
    make = tarball if name == "a.tar.gz" else zipped
    whole = make(tmp_path / name, FILES).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=f"{name} is not a whole archive"):
        taken(tmp_path / name, "pkg/database.txt", tmp_path / "out")


def test_a_flipped_byte_of_a_member_is_noticed(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"rows": b"one two three"})
    archive.write_bytes(archive.read_bytes().replace(b"two", b"tvo"))
    with pytest.raises(SourceError, match="CRC"):
        taken(archive, "rows", tmp_path / "out")


def test_the_top_folder_of_a_source_distribution(tmp_path: Path) -> None:
    assert top_folder(tarball(tmp_path / "a.tar.gz", {"a-1/x": b"", "a-1/y/z": b""})) == "a-1"
    with pytest.raises(SourceError, match="holds 2 top folders"):
        top_folder(tarball(tmp_path / "b.tar.gz", {"a-1/x": b"", "b-1/x": b""}))


segments = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=3)
trees = st.dictionaries(
    st.lists(segments, min_size=1, max_size=3).map(tuple), st.binary(max_size=5), min_size=1, max_size=5
)


@given(tree=trees)
def test_a_folder_comes_out_as_it_went_in(tree, tmp_path_factory: pytest.TempPathFactory) -> None:
    room = tmp_path_factory.mktemp("tree")
    files = {"/".join(("top", *parts)) + ".txt": content for parts, content in tree.items()}
    got = taken(tarball(room / "a.tar.gz", files), "top", room / "out")
    assert {f"top/{name}": content for name, content in got.items()} == files


# --- archives that make much out of little ----------------------------------------------------------------------------

ZEROS = bytes(1 << 20)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds of a hundred megabytes and a million members, as ones that a test reaches at once."""
    monkeypatch.setattr(archives, "SMALL", 100_000)
    monkeypatch.setattr(archives, "MEMBERS", 50)


def packed_tar(to: Path, kind: str, name: str, size: int) -> Path:
    with tarfile.open(to, f"w:{kind}") as tape:
        info = tarfile.TarInfo(name)
        info.size = size
        tape.addfile(info, io.BytesIO(bytes(size)))
    return to


def packed_zip(to: Path, name: str, size: int) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, bytes(size))
    return to


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz"])
@pytest.mark.parametrize("wanted", ["rows.csv", "other.csv"])
def test_an_archive_that_makes_much_out_of_little_is_refused(
    kind: str, wanted: str, small: None, tmp_path: Path
) -> None:
    size = 4 << 20
    archive = tmp_path / "a.packed"
    packed_zip(archive, "rows.csv", size) if kind == "zip" else packed_tar(archive, kind, "rows.csv", size)
    if kind == "zip" and wanted == "other.csv":
        says = "holds no other.csv"  # a zip file gives one member without unpacking the others
    else:
        says = r"a\.packed of [\d,]+ bytes unpacks to more than [\d,]+, .*unpack it yourself"
    with pytest.raises(SourceError, match=says):
        taken(archive, wanted, tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written < max(archives.SMALL, archives.RATIO * archive.stat().st_size)


def test_an_archive_inside_another_has_what_the_outermost_may_make(small: None, tmp_path: Path) -> None:
    inner = packed_zip(tmp_path / "inner.zip", "rows.csv", 4 << 20)
    outer = zipped(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    with pytest.raises(SourceError, match=r"outer\.zip of [\d,]+ bytes unpacks to more"):
        taken(outer, "inner.zip/rows.csv", tmp_path / "out")


def test_a_name_of_a_member_that_is_as_long_as_memory_is_refused(small: None, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.write(ZEROS)
    with pytest.raises(SourceError, match="unpacks to more than"):
        taken(tmp_path / "a.tar.gz", "rows.csv", tmp_path / "out")


@MAKERS
def test_an_archive_of_too_many_members_is_refused(make, name, small: None, tmp_path: Path) -> None:
    archive = make(tmp_path / name, {f"pkg/{n}": b"" for n in range(51)})
    with pytest.raises(SourceError, match="holds more than 50 members; if you trust it"):
        taken(archive, "pkg", tmp_path / "out")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", ""])
def test_rows_that_pack_well_are_taken(kind: str, tmp_path: Path) -> None:
    rows = b"text,label\n" + b"".join(b"text number %d,good\n" % n for n in range(50_000))
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as tape:
        info = tarfile.TarInfo("pkg/rows.csv")
        info.size = len(rows)
        tape.addfile(info, io.BytesIO(rows))
    assert taken(tmp_path / "a.tar", "pkg/rows.csv", tmp_path / "out") == {"rows.csv": rows}


def sparse(to: Path, size: int) -> Path:
    """A tarball of one file that is a hole."""
    info = tarfile.TarInfo("rows.csv")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (size, 0)  # one piece of no bytes, at the end
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    to.write_bytes(bytes(header) + bytes(1024))
    return to


def test_the_holes_of_a_sparse_file_are_counted(tmp_path: Path) -> None:
    assert len(taken(sparse(tmp_path / "small.tar", 5000), "rows.csv", tmp_path / "small")["rows.csv"]) == 5000
    bomb = sparse(tmp_path / "bomb.tar", archives.SMALL + 1)

    with pytest.raises(SourceError, match="of 1,536 bytes unpacks to more than"):
        taken(bomb, "rows.csv", tmp_path / "bomb")


@MAKERS
def test_a_full_disk_is_not_told_as_a_broken_archive(
    make: Callable[..., Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(tmp_path / name, FILES)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        taken(archive, "pkg/data", tmp_path / "to")
