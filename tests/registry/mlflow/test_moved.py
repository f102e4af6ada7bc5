"""A project that was moved or renamed with its store in it: what is registered is found, and nothing is written where
it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import NotFound, RegistryError, StoreUnavailable
from registry.mlflow import address
from registry.mlflow.store import Store

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("same_store_afterwards")]


@pytest.fixture
def moved(mlflow_store: Store, tmp_path: Path) -> Callable[[], Store]:
    """``moved()``: the store of the project after it went from ``old`` to ``new folder``."""
    Store(f"sqlite:///{_made(tmp_path / 'old')}/mlflow.db").start_run("film", "a run", {}, {})

    def move() -> Store:
        (tmp_path / "old").rename(tmp_path / "new folder")
        return Store(f"sqlite:///{tmp_path}/new folder/mlflow.db")

    return move


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _run_with_a_file(store: Store, file: Path) -> str:
    file.write_text("{}")
    run = store.start_run("film", "a run", {}, {})
    store.log_files(run, [file], "gate/1")
    return run


def test_what_was_written_before_is_read_where_it_is_now(moved: Callable[[], Store], tmp_path: Path) -> None:
    run = _run_with_a_file(Store(f"sqlite:///{tmp_path}/old/mlflow.db"), tmp_path / "gate.json")
    store = moved()

    assert store.read_file(run, "gate/1/gate.json") == b"{}"
    with pytest.raises(NotFound, match="not in the artifact store"):
        store.read_file(run, "gate/1/other.json")


def test_a_run_that_would_write_to_the_old_place_is_refused(moved: Callable[[], Store], tmp_path: Path) -> None:
    _run_with_a_file(Store(f"sqlite:///{tmp_path}/old/mlflow.db"), tmp_path / "gate.json")
    store = moved()

    with pytest.raises(
        RegistryError, match=r"moved or renamed.*old/artifacts.*new%20folder/artifacts.*ln -s"
    ) as refusal:
        store.start_run("film", "a run", {}, {})
    assert not isinstance(refusal.value, StoreUnavailable), "no other try would help"
    assert not (tmp_path / "old").exists()
    (tmp_path / "old").symlink_to(tmp_path / "new folder")
    assert store.start_run("film", "a run", {}, {})


def test_what_is_lost_was_not_moved(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    for artifact in (f"file://{tmp_path}/artifacts/1/gate", "s3://bucket/artifacts", "mlflow-artifacts:/1/artifacts"):
        assert address.moved(uri, artifact) is None
