"""What is taken out of an archive, under which path, and what is never taken."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.archives import extract, top_folder
from components.errors import SourceError

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
