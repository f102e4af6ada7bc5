"""An experiment that was deleted in MLflow: what is registered goes on, and a new run is told how to bring it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import RegistryError, StoreUnavailable
from registry import queries
from registry.protocol import Version
from registry.releases import lifecycle

pytestmark = pytest.mark.flow


@pytest.fixture
def client(mlflow_store: Any) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(mlflow_store.uri, mlflow_store.uri)


def test_versions_move_without_it_and_runs_say_how_it_comes_back(
    mlflow_store: Any, task: str, candidate: Callable[..., Version], base_hash: str, client: Any
) -> None:
    for _ in range(2):
        candidate(mlflow_store)
        lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)
    number = client.get_experiment_by_name(task).experiment_id
    client.delete_experiment(number)

    with pytest.raises(RegistryError, match=f"`mlflow experiments restore --experiment-id {number}`") as refusal:
        mlflow_store.start_run(task, "a run", {}, {})

    assert not isinstance(refusal.value, StoreUnavailable), "no other try would help"
    assert mlflow_store.unfinished(task, "f" * 64, "a place") is None
    assert lifecycle.rollback(mlflow_store, task, reason="why", base_hash=base_hash).version.number == 1
    assert not queries.status(mlflow_store, task).alarms
    client.restore_experiment(number)
    assert mlflow_store.start_run(task, "a run", {}, {})


def test_a_path_with_signs_of_addresses_is_registered_and_read(
    mlflow_store: Any,
    task: str,
    candidate: Callable[..., Version],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from registry.releases import checks

    for name in ("tmp #2 50%25", "a?b;c+d", "\u00fc'\"& %20"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))

        version = candidate(mlflow_store)

        assert checks.verify(mlflow_store, version).manifest.digest == version.tag("manifest_digest")
