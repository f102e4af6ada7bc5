"""A full or a locked disk of this machine is told with its folder, and never as a store that does not answer."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException

from components.errors import StoreUnavailable
from registry.mlflow import faults, local_disk


def _raised(error: Exception, uri: str) -> str:
    with pytest.raises(StoreUnavailable) as refusal, faults.answering(uri, "that"):
        raise error
    assert len(str(refusal.value).splitlines()) == 1
    return str(refusal.value)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store/mlflow.db"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_folder_is_named(uri: str, tmp_path: Path, code: int) -> None:
    said = _raised(OSError(code, os.strerror(code), str(tmp_path / "packed" / "model")), uri)

    assert f"no space left in {tmp_path}; make room there, or set TMPDIR" in said


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EFBIG, "File too large", "a"), MlflowException("## manifest.json ## [Errno 27] File too large")],
)
def test_a_limit_of_files_sizes_is_no_store_that_is_away(uri: str, error: Exception) -> None:
    assert "raise `ulimit -f`" in _raised(error, uri)


def test_where_the_error_names_none_those_that_are_written_to_are(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "store").mkdir()

    said = _raised(OSError(errno.ENOSPC, "No space left on device"), uri)

    assert f"{tmp_path / 'tmp'} or {tmp_path / 'store'}" in said


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_takes_no_writes_is_named(uri: str, tmp_path: Path, code: int) -> None:
    said = _raised(OSError(code, os.strerror(code), str(tmp_path)), uri)

    assert said.startswith(f"{tmp_path} cannot be written")


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("database or disk is full", "no space left in"),
        ("attempt to write a readonly database", "cannot be opened for writing"),
        ("unable to open database file", "cannot be opened for writing"),
    ],
)
def test_sqlite_s_words_are_told_through_sqlalchemy_and_mlflow(uri: str, words: str, told: str, wrap: bool) -> None:
    error: Exception = sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError(words))

    said = _raised(MlflowException(str(error)) if wrap else error, uri)

    assert told in said
    assert uri.removeprefix("sqlite:///").removesuffix("/store/mlflow.db") in said


def test_a_disk_s_fault_is_taken_for_a_full_one_only_where_no_room_is_left(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))

    assert "no space left" not in (said := _raised(error, uri))
    assert "disk I/O error" in said
    monkeypatch.setattr(local_disk, "_SPARE", 1 << 62)
    assert "no space left" in _raised(error, uri)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    from registry.mlflow import address

    with pytest.raises(StoreUnavailable, match="should be a folder"), faults.answering(f"sqlite:///{tmp_path}", "it"):
        address.reach(f"sqlite:///{tmp_path}/store/mlflow.db")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ECONNREFUSED, "Connection refused"), TimeoutError("slow"), sqlite3.Error("database is locked")],
)
def test_of_other_errors_nothing_is_said(uri: str, error: Exception) -> None:
    assert local_disk.fault(uri, error) == ""
