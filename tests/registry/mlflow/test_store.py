"""What MLflow is told and what it tells back, and how its failures are told."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import NotFound, RegistryError, SetupError, StoreUnavailable
from registry import queries
from registry.artifact import adapter_folder
from registry.artifact.manifest import Draft
from registry.protocol import Version
from registry.releases import lifecycle
from tests.conftest import Site

Candidate = Callable[..., Version]
pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("same_store_afterwards")]


@pytest.fixture
def base_hash(draft: Callable[..., Draft]) -> str:
    return draft().base.hash


@pytest.fixture
def client(mlflow_store: Any) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_store.uri, registry_uri=mlflow_store.uri)


def test_a_run_holds_what_it_was_given(mlflow_store: Any, task: str, client: Any, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    params = {f"p{i}": i for i in range(150)}  # more than MLflow takes in one call
    run_id = mlflow_store.start_run(task, "a run", {"preface.method": "prompt"}, params)
    mlflow_store.log_metrics(run_id, [("loss", 1 / step, step) for step in range(1, 1502)])
    mlflow_store.log_dataset(
        run_id, task, "0123456789abcdef0123456789abcdef.dir", "https://x/rows.csv?sig=planted", "training"
    )
    mlflow_store.log_files(run_id, [tmp_path / "report.json"], "gate")
    mlflow_store.end_run(run_id, "FINISHED")

    run = client.get_run(run_id)
    [dataset] = run.inputs.dataset_inputs

    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == task
    assert run.data.params["p149"] == "149"
    assert run.data.tags["preface.method"] == "prompt"
    assert len(client.get_metric_history(run_id, "loss")) == 1501
    assert dataset.dataset.digest == "0123456789abcdef0123456789abcdef.dir"
    assert dataset.dataset.source == '{"uri": "https://x/rows.csv?sig=***"}'
    assert [tag.value for tag in dataset.tags] == ["training"]
    assert mlflow_store.read_file(run_id, "gate/report.json") == b"{}"


def test_a_version_leads_back_to_its_run_and_has_a_card(
    mlflow_store: Any, task: str, candidate: Candidate, client: Any
) -> None:
    version = candidate(mlflow_store)
    registered = client.get_model_version(task, "1")
    logged = client.get_logged_model(registered.source.removeprefix("models:/"))

    assert registered.run_id == version.run_id == logged.source_run_id
    assert registered.status == logged.status == "READY"
    assert registered.description.startswith(f"# {task}")
    assert [output.model_id for output in client.get_run(version.run_id).outputs.model_outputs] == [logged.model_id]


def test_stage_and_alias_are_the_same_version(
    mlflow_store: Any, task: str, candidate: Candidate, client: Any, base_hash: str
) -> None:
    for _ in range(2):
        candidate(mlflow_store)
        lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)
    lifecycle.rollback(mlflow_store, task, reason="", base_hash=base_hash)

    staged = [v for v in client.search_model_versions(f"name = '{task}'") if v.current_stage == "Production"]

    assert [int(version.version) for version in staged] == [1]
    assert int(client.get_model_version_by_alias(task, "production").version) == 1
    assert client.get_registered_model(task).tags["preface.projected"].startswith("3 ")


def test_only_our_own_models_are_tasks(
    mlflow_store: Any, task: str, candidate: Candidate, client: Any, base_hash: str
) -> None:
    client.create_registered_model(f"{task}-of-somebody-else")
    candidate(mlflow_store)
    lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)

    assert [name for name in mlflow_store.tasks() if name.startswith(task)] == [task]


def test_an_entry_made_by_hand_is_no_entry(
    mlflow_store: Any, task: str, candidate: Candidate, client: Any, base_hash: str
) -> None:
    candidate(mlflow_store)
    lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)
    client.create_model_version(f"{task}.releases", source=f"models:/{task}/1", tags={"note": "by hand"})

    assert len(queries.history(mlflow_store, task)) == 1
    assert not queries.status(mlflow_store, task).alarms


def test_a_download_is_a_copy_that_goes_with_its_store(mlflow_store: Any, task: str, candidate: Candidate) -> None:
    from registry.mlflow.store import Store

    version = candidate(mlflow_store)
    other = Store(mlflow_store.uri)
    folder = other.download(version)
    shutil.rmtree(folder)
    again = other.download(version)
    assert adapter_folder.read(again).manifest.task == task

    del other

    assert not again.exists()
    assert adapter_folder.read(mlflow_store.download(version)).manifest.task == task


def test_bytes_gone_from_the_artifact_store_are_missed(
    mlflow_store: Any, task: str, candidate: Candidate, client: Any, base_hash: str
) -> None:
    version = candidate(mlflow_store)
    root = Path(client.get_model_version_download_uri(task, "1").removeprefix("file://"))
    shutil.rmtree(root)

    with pytest.raises(NotFound, match=f"the adapter of {task}@1 is not in the artifact store"):
        mlflow_store.download(version)
    with pytest.raises(NotFound):
        lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)


def test_a_whole_artifact_folder_that_is_gone_is_an_outage(
    task: str, candidate: Candidate, tmp_path: Path, base_hash: str
) -> None:
    from registry.mlflow.store import Store

    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    version = candidate(store)
    (tmp_path / "artifacts").rename(tmp_path / "unmounted")

    with pytest.raises(StoreUnavailable, match="is its disk mounted"):
        store.download(version)
    with pytest.raises(StoreUnavailable):
        store.read_file(version.run_id, version.gate.report)


def test_nothing_unknown_is_found(mlflow_store: Any, task: str) -> None:
    with pytest.raises(NotFound, match=f"{task}@1"):
        mlflow_store.version(task, 1)
    with pytest.raises(NotFound, match=task):
        mlflow_store.versions(task)
    assert mlflow_store.releases(task) == []
    assert mlflow_store.by_fingerprint(task, "f" * 64) == []


def test_what_mlflow_refuses_is_not_called_an_outage(mlflow_store: Any, task: str) -> None:
    with pytest.raises(RegistryError, match="refuses") as caught:
        mlflow_store.log_dataset(mlflow_store.start_run(task, "x", {}, {}), task, "d" * 64, "x", "training")
    assert not isinstance(caught.value, StoreUnavailable)


class TestDown:
    def test_a_server_that_is_not_there(self, free_port: Callable[[], int]) -> None:
        from registry.mlflow.store import Store

        uri, began = f"http://127.0.0.1:{free_port()}", time.monotonic()

        with pytest.raises(StoreUnavailable) as caught:
            Store(uri).version("movie-sentiment", 1)

        assert time.monotonic() - began < 15
        assert str(caught.value).startswith(f"the tracking store {uri} does not answer")
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        from registry.mlflow.store import Store

        (tmp_path / "mlflow.db").write_text("certainly not SQLite " * 100)
        began = time.monotonic()

        with pytest.raises(StoreUnavailable, match="file is not a database") as caught:
            Store(f"sqlite:///{tmp_path}/mlflow.db")

        assert time.monotonic() - began < 5
        assert "\n" not in str(caught.value)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        from registry.mlflow.store import Store

        (tmp_path / "file").touch()

        with pytest.raises(StoreUnavailable):
            Store(f"sqlite:///{tmp_path}/file/mlflow.db")

    def test_a_database_without_its_driver_keeps_its_password(self) -> None:
        from registry.mlflow.store import Store

        with pytest.raises(SetupError, match="needs the driver") as caught:
            Store("mssql+pymssql://ada:secret@db.example/mlflow")
        assert "secret" not in str(caught.value)

    def test_a_database_that_is_locked(self, mlflow_store: Any, tmp_path: Path) -> None:
        from registry.mlflow.store import Store

        copy = tmp_path / "mlflow.db"
        shutil.copyfile(mlflow_store.uri.removeprefix("sqlite:///"), copy)
        holder = sqlite3.connect(copy, isolation_level=None)
        try:
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreUnavailable, match="database is locked"):
                Store(f"sqlite:///{copy}")
        finally:
            holder.close()


def test_the_same_life_through_a_server_until_it_dies(
    mlflow_server: tuple[str, subprocess.Popen[bytes]], task: str, candidate: Candidate, base_hash: str
) -> None:
    from registry.mlflow.store import Store

    uri, process = mlflow_server
    store = Store(uri)
    for _ in range(2):
        candidate(store)
        lifecycle.promote(store, task, reason="better", base_hash=base_hash)
    lifecycle.rollback(store, task, reason="worse", base_hash=base_hash)
    status = queries.status(store, task)

    assert status.production is not None
    assert (status.production.number, not status.alarms, len(queries.history(store, task))) == (1, True, 3)
    with pytest.raises(NotFound):
        store.read_file(status.production.run_id, "gate/absent.json")

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(StoreUnavailable):
        queries.status(store, task)


def test_promotion_and_rollback_are_light(mlflow_store: Any, task: str, candidate: Candidate, base_hash: str) -> None:
    """In a process of their own: no torch, no prefect, and little time beside that of the store."""
    candidate(mlflow_store)
    lifecycle.promote(mlflow_store, task, reason="", base_hash=base_hash)
    candidate(mlflow_store)
    code = """
import sys, time
from registry.mlflow.store import Store
from registry.releases import lifecycle

uri, task, base_hash = sys.argv[1:]
store, spent = Store(uri), [0.0]

def timed(call):
    def inner(*args):
        began = time.process_time()
        try:
            return call(*args)
        finally:
            spent[0] += time.process_time() - began
    return inner

for name in dir(lifecycle.Store):
    if not name.startswith("_"):
        setattr(store, name, timed(getattr(store, name)))
began = time.process_time()
lifecycle.promote(store, task, reason="better", base_hash=base_hash)
lifecycle.rollback(store, task, reason="worse", base_hash=base_hash)
own = time.process_time() - began - spent[0]
heavy = {"torch", "transformers", "prefect", "datasets", "sklearn", "dvc", "peft", "mlflow.pyfunc"} & set(sys.modules)
print(own, *heavy)
"""
    found = subprocess.run(
        [sys.executable, "-c", code, mlflow_store.uri, task, base_hash], capture_output=True, text=True, check=True
    )
    own, *heavy = found.stdout.split()

    assert heavy == []
    assert float(own) < 0.5
    assert found.stderr == ""


def test_a_server_that_asks_for_a_login_is_not_one_that_is_away(site: Site) -> None:
    from registry.mlflow.store import Store

    site.put("/api/2.0/mlflow/registered-models/search", status=401)

    with pytest.raises(RegistryError, match=r"wants to know who asks: .*MLFLOW_TRACKING_USERNAME") as refusal:
        Store(site.url).tasks()

    assert not isinstance(refusal.value, StoreUnavailable)


def test_an_answer_that_no_tracking_server_gives_is_told(site: Site) -> None:
    from registry.mlflow.store import Store

    site.put("/api/2.0/mlflow/registered-models/search", b'{"registered_models": [{"name": 3}]}')

    with pytest.raises(StoreUnavailable, match="Failed to parse registered_models"):
        Store(site.url).tasks()
