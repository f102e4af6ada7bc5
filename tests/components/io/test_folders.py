"""A folder is there whole, or as it was before."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from components.io.folders import whole_folder


def test_a_filled_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    to = tmp_path / "deep" / "folder"
    for name in ("first", "second"):
        with whole_folder(to) as new:
            (new / "sub").mkdir()
            (new / "sub" / name).write_text(name)
            assert to.exists() == (name == "second")
    assert [path.name for path in to.rglob("*")] == ["sub", "second"]
    assert list(to.parent.iterdir()) == [to]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    to = tmp_path / "folder"
    with whole_folder(to) as new:
        (new / "kept").touch()
    with pytest.raises(OSError, match="disk full"):
        _fill_half(to)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "kept"]


def _fill_half(to: Path) -> None:
    with whole_folder(to) as new:
        (new / "half").touch()
        raise OSError("disk full")


def test_other_accounts_can_read_it(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "folder") as new:
        (new / "sub").mkdir()
        (new / "sub" / "file").touch(mode=0o600)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "folder", *tmp_path.rglob("*")]}
    assert modes == {"folder": 0o755, "sub": 0o755, "file": 0o644}


def test_what_a_killed_process_left_behind_goes_and_what_is_being_filled_or_is_anothers_stays(tmp_path: Path) -> None:
    for name in (".folder.abcd1234/new", ".folder.abcd1234/spill", ".folder.mine5678/notes", ".folders.abcd1234/new"):
        (tmp_path / name).mkdir(parents=True)
    with whole_folder(tmp_path / "folder") as first:
        (first / "kept").touch()
        with whole_folder(tmp_path / "folder"):
            assert (first / "kept").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder.mine5678", ".folders.abcd1234", "folder"]
