"""MLflow's artifacts on S3: the whole life there, and what becomes of it when the object store fails in the middle.

moto's server stands for S3, behind a proxy that fails as it is told. What is promised: nothing half is ever registered,
a fault that passes is outlived, one that does not is told within seconds in one line, and a refusal is no outage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.errors import ArtifactError, NotFound, RegistryError, StoreUnavailable
from registry import queries
from registry.artifact import adapter_folder
from registry.artifact.manifest import Draft
from registry.protocol import Version
from registry.releases import lifecycle, registration

Candidate = Callable[..., Version]
pytestmark = pytest.mark.flow

ROOT = "s3://reviews/mlflow"
BOUND = 20.0  # seconds that a command may take to say that S3 does not answer


@pytest.fixture(autouse=True)
def fresh_clients() -> Iterator[None]:
    """MLflow keeps its S3 clients for minutes, under a key in which neither endpoint nor credentials occur."""
    import mlflow
    from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    _cached_get_s3_client.cache_clear()
    yield
    _cached_get_s3_client.cache_clear()
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def s3_store(mlflow_store: Any, faulty_store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The session's database, opened directly; artifacts of new tasks go to S3, through the proxy."""
    import mlflow

    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", ROOT)
    mlflow.set_tracking_uri(mlflow_store.uri)
    mlflow.set_registry_uri(mlflow_store.uri)
    return mlflow_store


@pytest.fixture
def base_hash(draft: Callable[..., Draft]) -> str:
    return draft().base.hash


@pytest.fixture
def attempt(s3_store: Any, task: str, tmp_path: Path, write_adapter: Callable[..., Path]) -> Callable[[], Version]:
    """Register one and the same candidate of one run, as a retried step of the flow does."""
    folder = write_adapter(tmp_path / "adapter", "prefix", task=task)
    report = tmp_path / "gate.json"
    report.write_text(json.dumps({"passed": True, "champion": None}))
    run = s3_store.start_run(task, "a run", {}, {})
    return lambda: registration.register(s3_store, folder, run, report, "0123456789abcdef0123456789abcdef.dir")


@contextmanager
def told(kind: type[Exception], match: str) -> Iterator[None]:
    """An error of exactly this class, in one line, in time."""
    began = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        yield
    assert caught.type is kind
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < BOUND


def keys(bucket: Any, ending: str) -> list[str]:
    return [found.key for found in bucket.objects.all() if found.key.endswith(ending)]


# --- the whole life ---------------------------------------------------------------------------------------------------


def test_the_whole_life_with_artifacts_on_s3(
    s3_store: Any, task: str, candidate: Candidate, base_hash: str, bucket: Any
) -> None:
    for _ in range(2):
        candidate(s3_store)
        lifecycle.promote(s3_store, task, reason="better", base_hash=base_hash)
    lifecycle.rollback(s3_store, task, reason="worse", base_hash=base_hash)
    live = queries.current(s3_store, task, "Production")

    assert live is not None
    assert (live.number, len(queries.history(s3_store, task))) == (1, 3)
    assert adapter_folder.read(s3_store.download(live), base_hash).manifest.digest == live.tag("manifest_digest")
    assert len(keys(bucket, "adapter_model.safetensors")) == 2
    assert all(found.key.startswith("mlflow/") for found in bucket.objects.all())


def test_the_same_life_through_a_tracking_server_and_past_it(
    faulty_store: Any, bucket: Any, tmp_path: Path, server: Any, free_port: Any, task: str, candidate: Candidate,
    base_hash: str,
) -> None:  # fmt: skip
    """An experiment's root says which way its artifacts go: to the server, or to S3 under the client's own keys."""
    from mlflow import MlflowClient

    from registry.mlflow.store import Store

    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "workers": 1, "backend-store-uri": f"sqlite:///{tmp_path}/server.db"}
    options |= {"default-artifact-root": f"{ROOT}/past", "artifacts-destination": f"{ROOT}/through"}
    command = ("-m", "mlflow", "server", *(f"--{key}={value}" for key, value in options.items()))
    url, quick = f"http://127.0.0.1:{port}", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with server(*command, url=f"{url}/health", environment=quick):
        store, client = Store(url), MlflowClient(url, url)
        # What a server without --default-artifact-root gives to every experiment.
        through = client.create_experiment(task, "mlflow-artifacts:/")
        first = candidate(store)
        lifecycle.promote(store, task, reason="better", base_hash=base_hash)
        client.rename_experiment(through, f"{task}-before")
        second = candidate(store)
        lifecycle.promote(store, task, reason="better", base_hash=base_hash)
        lifecycle.rollback(store, task, reason="worse", base_hash=base_hash)

        for version in (first, second):
            read = adapter_folder.read(store.download(version), base_hash)
            assert read.manifest.digest == version.tag("manifest_digest")
        ways = sorted(key.split("/")[1] for key in keys(bucket, "adapter_model.safetensors"))
        assert ways == ["past", "through"]

        faulty_store.plant(403)
        with told(RegistryError, "the artifact store refuses: .*check AWS_ACCESS_KEY_ID"):
            store.read_file(second.run_id, second.gate.report)
        # What the server's own keys may not do looks like an outage of the server to whoever is behind it.
        with told(StoreUnavailable, "does not answer"):
            store.read_file(first.run_id, first.gate.report)


# --- faults that pass -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("fault", [503, 500, "cut"])
def test_an_upload_outlives_a_fault_that_passes(
    fault: int | str, attempt: Callable[[], Version], faulty_store: Any, s3_store: Any
) -> None:
    faulty_store.plant(fault, "PUT", "adapter_model.safetensors", times=2)

    version = attempt()

    assert (version.number, version.stage, version.ready) == (1, "Staging", True)
    assert adapter_folder.read(s3_store.download(version)).manifest.digest == version.tag("manifest_digest")
    assert sum(asked.startswith("PUT") and "model.safetensors" in asked for asked in faulty_store.asked) == 3


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("fault", [503, "cut"])
def test_a_download_outlives_a_fault_that_passes(
    fault: int | str, attempt: Callable[[], Version], faulty_store: Any, s3_store: Any
) -> None:
    version = attempt()
    faulty_store.plant(fault, "GET", "adapter_model.safetensors", times=2)

    assert adapter_folder.read(s3_store.download(version)).manifest.digest == version.tag("manifest_digest")


# --- faults that stay -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("fault", [503, "cut"])
@pytest.mark.parametrize("key", ["gate.json", "adapter_model.safetensors"])
def test_a_lasting_fault_registers_nothing_and_a_second_try_does(
    fault: int | str, key: str, attempt: Callable[[], Version], faulty_store: Any, s3_store: Any, task: str
) -> None:
    faulty_store.plant(fault, "PUT", key)

    with told(StoreUnavailable, r"the artifact store does not answer \(.*check AWS_ENDPOINT_URL, then run"):
        attempt()

    assert s3_store.by_fingerprint(task, "f" * 64) == []
    with pytest.raises(NotFound):
        s3_store.versions(task)
    faulty_store.heal()
    assert attempt().number == 1
    assert [version.number for version in s3_store.versions(task)] == [1]


def test_an_object_store_that_is_gone_is_told_in_time(
    attempt: Callable[[], Version], s3_store: Any, task: str, monkeypatch: pytest.MonkeyPatch, base_hash: str
) -> None:
    from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client

    version = attempt()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    _cached_get_s3_client.cache_clear()

    with told(StoreUnavailable, "the artifact store does not answer .*Could not connect to the endpoint URL"):
        s3_store.download(version)
    with told(StoreUnavailable, "the artifact store does not answer"):
        lifecycle.promote(s3_store, task, reason="", base_hash=base_hash)
    assert queries.history(s3_store, task) == []


@pytest.mark.usefixtures("quick_retries")
def test_a_download_that_keeps_breaking_off_is_an_outage(
    attempt: Callable[[], Version], faulty_store: Any, s3_store: Any
) -> None:
    version = attempt()
    faulty_store.plant("cut", "GET", "adapter_model.safetensors")

    with told(StoreUnavailable, "the artifact store does not answer .*Max Retries Exceeded"):
        s3_store.download(version)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_wrong_credentials_are_no_outage(
    attempt: Callable[[], Version], faulty_store: Any, s3_store: Any, task: str, base_hash: str
) -> None:
    """Every kind of request: to put, to list, to look whether it is there."""
    says = "the artifact store refuses: .*check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    faulty_store.plant(403)
    with told(RegistryError, says):
        attempt()
    assert s3_store.by_fingerprint(task, "f" * 64) == []
    faulty_store.heal()
    version = attempt()
    faulty_store.plant(403)
    with told(RegistryError, says):
        s3_store.read_file(version.run_id, version.gate.report)
    with told(RegistryError, says):
        lifecycle.promote(s3_store, task, reason="", base_hash=base_hash)
    faulty_store.heal()
    faulty_store.plant(403, "HEAD")
    with told(RegistryError, says):
        s3_store.download(version)
    assert queries.history(s3_store, task) == []


def test_no_credentials_at_all_are_no_outage(
    attempt: Callable[[], Version], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps what it found before
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with told(RegistryError, "the artifact store refuses: Unable to locate credentials; check AWS_ACCESS_KEY_ID"):
        attempt()


def test_a_bucket_that_does_not_exist_is_no_outage(
    faulty_store: Any, mlflow_store: Any, task: str, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://no-such-bucket/mlflow")
    with told(RegistryError, "the artifact store refuses: .*NoSuchBucket.*check the bucket's name"):
        candidate(mlflow_store)


# --- objects that are not what they were ------------------------------------------------------------------------------


def test_missing_objects_are_missed(
    attempt: Callable[[], Version], s3_store: Any, task: str, base_hash: str, bucket: Any
) -> None:
    version = attempt()
    [weights] = keys(bucket, "adapter_model.safetensors")
    bucket.Object(weights).delete()
    with told(ArtifactError, "adapter_model.safetensors"):
        lifecycle.promote(s3_store, task, reason="", base_hash=base_hash)

    bucket.objects.all().delete()
    with told(NotFound, f"the adapter of {task}@1 is not in the artifact store"):
        s3_store.download(version)
    with told(NotFound, "artifact gate/.*/gate.json of run .* is not in the artifact store"):
        s3_store.read_file(version.run_id, version.gate.report)
    assert queries.history(s3_store, task) == []


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_an_object_of_other_bytes_is_refused(
    damage: str, attempt: Callable[[], Version], s3_store: Any, task: str, base_hash: str, bucket: Any
) -> None:
    attempt()
    [weights] = keys(bucket, "adapter_model.safetensors")
    content = bucket.Object(weights).get()["Body"].read()
    other = content[:-4] if damage == "truncated" else content[:-4] + b"\0\0\0\0"
    bucket.put_object(Key=weights, Body=other)

    with told(ArtifactError, "adapter_model.safetensors"):
        lifecycle.promote(s3_store, task, reason="", base_hash=base_hash)
    assert queries.history(s3_store, task) == []
