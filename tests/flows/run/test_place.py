"""Which folder a run belongs to: two folders under one host's name are two."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.run import place


def test_a_folder_keeps_its_id(tmp_path: Path) -> None:
    assert place.of(tmp_path) == place.of(tmp_path)
    assert sorted(path.name for path in (tmp_path / ".preface").iterdir()) == ["id"]


def test_two_folders_have_two_and_so_has_a_copy(tmp_path: Path) -> None:
    first, second = place.of(tmp_path / "a"), place.of(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")

    assert len({first, second, place.of(tmp_path / "copy")}) == 3


def test_of_many_who_ask_at_once_all_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: place.of(tmp_path), range(32)))) == 1


def test_a_folder_moved_within_its_disk_goes_on_with_its_runs(tmp_path: Path) -> None:
    before = place.of(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")

    assert place.of(tmp_path / "b") == before


@pytest.mark.flow
def test_a_run_is_gone_on_with_from_its_own_folder_alone(tmp_path: Path) -> None:
    """Two containers of one host's name at one store: neither takes over, nor closes, what the other is at."""
    from registry.mlflow.store import Store

    store: Any = Store(f"sqlite:///{tmp_path}/mlflow.db")
    one, other = tmp_path / "one", tmp_path / "other"
    tags = {"preface.fingerprint": "f" * 64}
    run_id = store.start_run("film", "a run", tags | place.tags(one), {})

    assert place.tags(one)["preface.host"] == place.tags(other)["preface.host"]
    assert store.unfinished("film", "f" * 64, place.of(other)) is None
    assert store.unfinished("film", "f" * 64, place.of(one)) == run_id
