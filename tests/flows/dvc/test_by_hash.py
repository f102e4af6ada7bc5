"""Prepared rows by their hash: from wherever DVC has them, the workspace unseen, and into the remote whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.data.prepare import read_examples
from components.errors import DataError
from flows.dvc import by_hash, repro

pytestmark = pytest.mark.flow
CACHE, REMOTE = ".dvc/cache", ".preface/dvc-remote"


@pytest.fixture
def root(prepared_folder: Path) -> Path:
    return prepared_folder


@pytest.fixture
def lock(root: Path) -> dict[str, Any]:
    """As a manifest keeps it; the workspace's own is gone."""
    entry = repro.lock_entry(root, "film")
    (root / "dvc.lock").unlink()
    return entry


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=root, check=True)


def restored(root: Path, lock: dict[str, Any], task: str = "film") -> str:
    """The content hash of what came back."""
    to = root / ".preface" / "restored" / task
    by_hash.restore(root, task, lock, to)
    return read_examples(to).content_hash


def objects(root: Path, lock: dict[str, Any]) -> list[str]:
    """Places of the prepared rows' files, and last of their list, in a cache or a remote."""
    md5 = lock["prepare@film"]["outs"][0]["md5"]
    listed = json.loads((root / CACHE / "files/md5" / md5[:2] / md5[2:]).read_text(encoding="utf-8"))
    return [f"files/md5/{one[:2]}/{one[2:]}" for one in (*(entry["md5"] for entry in listed), md5)]


def state(root: Path) -> dict[str, int]:
    """Every file of the workspace; not what belongs to DVC and to us."""
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != ".git"]
    own = {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}
    return {name: time for name, time in own.items() if not name.startswith((".preface", ".dvc/tmp", ".dvc/cache"))}


def test_the_cache_is_enough_though_the_remote_is_down_and_the_workspace_stays_as_it_is(
    root: Path, lock: dict[str, Any]
) -> None:
    expected = read_examples(root / "data/prepared/film").content_hash
    dvc(root, "remote", "add", "--default", "away", "s3://nobody/dvc")
    dvc(root, "remote", "modify", "away", "endpointurl", "http://127.0.0.1:9")
    (root / "params.yaml").write_text("tasks: {}\n", encoding="utf-8")
    before = state(root)

    assert restored(root, lock) == expected

    assert state(root) == before
    assert [path.name for path in (root / ".preface/restored").iterdir()] == ["film"]


def test_the_remote_is_enough_and_each_remote_is_asked(root: Path, lock: dict[str, Any]) -> None:
    expected = read_examples(root / "data/prepared/film").content_hash
    by_hash.push(root, "film", lock)
    (root / "empty").mkdir()
    dvc(root, "remote", "add", "--default", "empty", "empty")  # a relative path is relative to where it is written
    shutil.rmtree(root / CACHE)
    shutil.rmtree(root / "data/prepared")

    assert restored(root, lock) == expected


def test_what_is_nowhere_is_named_with_every_place(root: Path, lock: dict[str, Any]) -> None:
    dvc(root, "remote", "add", "second", "ssh://somebody:secret@127.0.0.1:9/dvc")
    dvc(root, "remote", "modify", "second", "url", str(root / "second"))
    shutil.rmtree(root / CACHE)

    with pytest.raises(DataError) as caught:
        restored(root, lock)

    said = str(caught.value)
    for part in (lock["prepare@film"]["outs"][0]["md5"], f"the cache {root}/{CACHE}: not there",
                 f"the remote local ({root}/{REMOTE}): not there", f"the remote second ({root}/second): not there",
                 "dvc push", "preface prepare film"):  # fmt: skip
        assert part in said
    assert not (root / ".preface/restored/film").exists()


@pytest.mark.parametrize("entry", [{}, {"prepare@film": {}}, {"prepare@film": {"outs": []}}, {"prepare@film": None}])
def test_a_lock_entry_without_rows_is_said_to_be_one(root: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="the lock entry of film names no prepared rows"):
        by_hash.restore(root, "film", entry, root / ".preface" / "film")


@pytest.mark.parametrize("which", [0, -1])
def test_a_push_of_rows_that_the_cache_has_not_whole_is_a_failure(root: Path, lock: dict[str, Any], which: int) -> None:
    """DVC itself warns, pushes the rest, and exits with 0."""
    (root / CACHE / objects(root, lock)[which]).unlink()

    with pytest.raises(DataError, match=r"lacks files of the prepared rows of film \([0-9a-f]{32}\.dir\)"):
        by_hash.push(root, "film", lock)


def test_a_push_puts_all_of_it_into_the_default_remote_and_a_second_one_changes_nothing(
    root: Path, lock: dict[str, Any]
) -> None:
    by_hash.push(root, "film", lock)
    pushed = {path: path.stat().st_mtime_ns for path in (root / REMOTE).rglob("*") if path.is_file()}
    assert {str(path.relative_to(root / REMOTE)) for path in pushed} == set(objects(root, lock))

    by_hash.push(root, "film", lock)
    assert {path: path.stat().st_mtime_ns for path in (root / REMOTE).rglob("*") if path.is_file()} == pushed


@pytest.mark.parametrize("left", [[], ["second"]])
def test_where_no_remote_is_the_default_a_push_says_how_to_add_one(
    root: Path, lock: dict[str, Any], left: list[str]
) -> None:
    dvc(root, "remote", "remove", "local")
    for name in left:
        dvc(root, "remote", "add", name, str(root / name))

    with pytest.raises(DataError, match="no default remote here; add one with `dvc remote add --default"):
        by_hash.push(root, "film", lock)


def test_a_remote_may_have_any_name_and_settings_with_quotes_and_commas(root: Path, lock: dict[str, Any]) -> None:
    dvc(root, "remote", "add", "--default", "a.b", str(root / 'it"s, a # place'))
    dvc(root, "config", "cache.type", "hardlink,copy")
    by_hash.push(root, "film", lock)
    assert all((root / 'it"s, a # place' / name).is_file() for name in objects(root, lock))
    shutil.rmtree(root / CACHE)
    assert restored(root, lock)


def test_a_password_in_an_address_is_not_shown(
    root: Path, lock: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_hash.dvc

    def planted(folder: Path, arguments: list[str]) -> list[str]:
        found = whole(folder, arguments)
        return [*found, "remote.far.url=ssh://me:secret@127.0.0.1:9/dvc"] if "--list" in arguments else found

    monkeypatch.setattr(by_hash, "dvc", planted)
    shutil.rmtree(root / CACHE)
    with pytest.raises(DataError, match="ssh://127") as caught:
        restored(root, lock)
    assert "secret" not in str(caught.value)


def test_a_run_s_rows_are_its_own_and_those_of_another_day_are_replaced(root: Path) -> None:
    then = repro.prepare(root, ["film"])["film"]
    to = root / ".preface" / "runs" / "mine" / "rows"
    by_hash.place(root, "film", then, to)
    with (root / "film.csv").open("a", encoding="utf-8") as file:
        file.write("text 900 dull,neg\n")
    today = repro.prepare(root, ["film"])["film"]
    assert read_examples(to).content_hash == then.content_hash != today.content_hash

    by_hash.place(root, "film", today, to)
    assert read_examples(to).content_hash == today.content_hash
    by_hash.place(root, "film", then, to)  # the workspace has moved on: out of the cache
    assert read_examples(to).content_hash == then.content_hash
