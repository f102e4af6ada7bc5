"""MLflow's store on PostgreSQL, opened directly: the same life, many writers at once, and how its failures are told."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from components.errors import NotFound, RegistryError, SetupError, StoreUnavailable
from registry import queries
from registry.artifact.manifest import Draft
from registry.mlflow import address
from registry.protocol import Version
from registry.release_log import NO_ENTRY, Release
from registry.releases import lifecycle

Candidate = Callable[..., Version]
pytestmark = pytest.mark.flow
WRITERS, EACH = 8, 4


@pytest.fixture(autouse=True)
def same_store_afterwards() -> Iterator[None]:
    """A Store points the process at itself."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    yield
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def postgres_store(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from registry.mlflow.store import Store

    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", (tmp_path / "artifacts").as_uri())
    return Store(postgres)


@pytest.fixture
def base_hash(draft: Callable[..., Draft]) -> str:
    return draft().base.hash


def entry(who: str, version: int = 1) -> Release:
    return Release(
        action="promote",
        version=version,
        based_on=NO_ENTRY,
        head_hash="",
        who=who,
        host="here",
        when="2026-11-23T20:00:00+00:00",
        reason="",
        git_commit="",
    )


def test_the_same_life_on_postgresql(
    postgres_store: Any, task: str, candidate: Candidate, base_hash: str, tmp_path: Path
) -> None:
    for _ in range(2):
        candidate(postgres_store)
        lifecycle.promote(postgres_store, task, reason="better", base_hash=base_hash)
    lifecycle.rollback(postgres_store, task, reason="worse", base_hash=base_hash)
    status = queries.status(postgres_store, task)
    history = queries.history(postgres_store, task)

    assert status.production is not None
    assert (status.production.number, status.versions, not status.alarms) == (1, 2, True)
    assert [(line.release.action, line.release.version, line.void) for line in history] == [
        ("promote", 1, False),
        ("promote", 2, False),
        ("rollback", 1, False),
    ]
    assert postgres_store.tasks() == [task]
    assert len(list((tmp_path / "artifacts").rglob("adapter_model.safetensors"))) == 2
    with pytest.raises(NotFound):
        postgres_store.version(task, 3)


def test_threads_that_append_at_once_lose_no_entry(postgres_store: Any, task: str, candidate: Candidate) -> None:
    candidate(postgres_store)

    def append(who: int) -> list[int]:
        return [postgres_store.append_release(task, entry(f"writer {who}")) for _ in range(EACH)]

    with ThreadPoolExecutor(WRITERS) as pool:
        given = [number for numbers in pool.map(append, range(WRITERS)) for number in numbers]

    assert sorted(given) == list(range(1, WRITERS * EACH + 1))
    _all_are_there(postgres_store, task)


def test_processes_that_append_at_once_lose_no_entry(postgres_store: Any, task: str, candidate: Candidate) -> None:
    candidate(postgres_store)
    code = """
import sys
from registry.release_log import Release
from registry.mlflow.store import Store

store, task, who, each = Store(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
store.version(task, 1)  # connected
print("ready", flush=True)
sys.stdin.readline()
for _ in range(each):
    store.append_release(task, Release("promote", 1, 0, "", who, "here", "2026-11-23T20:00:00+00:00", "", ""))
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, postgres_store.uri, task, f"writer {who}", str(EACH)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who in range(2)  # each costs seconds to start
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n", writer.communicate()[1]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=60)[1] for writer in writers]

    assert [(writer.returncode, text) for writer, text in zip(writers, said, strict=True)] == [(0, "")] * len(writers)
    _all_are_there(postgres_store, task, len(writers))


def _all_are_there(store: Any, task: str, writers: int = WRITERS) -> None:
    """Consecutive numbers, every writer's entries, and one that took effect."""
    history = queries.history(store, task)
    assert [line.release.number for line in history] == list(range(1, writers * EACH + 1))
    assert sorted(line.release.who for line in history) == sorted(
        f"writer {w}" for w in range(writers) for _ in range(EACH)
    )
    assert [line.release.number for line in history if not line.void] == [1]


class TestRefused:
    """The server answers, and says no: another try would not help."""

    @pytest.mark.parametrize(
        ("part", "wrong", "says"),
        [
            ("password", "secret", "password authentication failed"),
            ("database", "nowhere", 'database "nowhere" does not exist'),
        ],
    )
    def test_wrong_credentials_and_names(self, part: str, wrong: str, says: str, postgres: str) -> None:
        from registry.mlflow.store import Store

        url = sqlalchemy.make_url(postgres)
        uri = url.set(**{part: wrong}).render_as_string(hide_password=False)  # type: ignore[arg-type]
        began = time.monotonic()

        with pytest.raises(RegistryError, match=rf"refuses: .*{says}.*check user, password and database in") as caught:
            Store(uri)

        assert caught.type is RegistryError
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert str(url.password) not in str(caught.value)
        assert time.monotonic() - began < 5


class TestDown:
    def test_a_server_that_is_not_there(self, postgres: str, free_port: Callable[[], int]) -> None:
        from registry.mlflow.store import Store

        url = sqlalchemy.make_url(postgres)
        uri, began = url.set(port=free_port()).render_as_string(hide_password=False), time.monotonic()

        with pytest.raises(StoreUnavailable, match=r"does not answer .*Connection refused") as caught:
            Store(uri)

        assert "\n" not in str(caught.value)
        assert str(url.password) not in str(caught.value)
        assert time.monotonic() - began < 5

    def test_a_server_that_takes_the_connection_and_stays_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(address, "CONNECT_SECONDS", 2)  # libpq takes no less
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            began = time.monotonic()
            with pytest.raises(sqlalchemy.exc.OperationalError, match="timeout expired"):
                address.reach(f"postgresql://ada:secret@127.0.0.1:{listener.getsockname()[1]}/mlflow")
        assert time.monotonic() - began < 5

    def test_a_server_that_ended_every_connection_is_connected_to_again(
        self, postgres_store: Any, task: str, candidate: Candidate, postgres: str
    ) -> None:
        """What a restart of the server does to whoever holds a connection."""
        candidate(postgres_store)
        engine = sqlalchemy.create_engine(postgres)
        with engine.connect() as connection:
            connection.execute(
                sqlalchemy.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        engine.dispose()

        assert postgres_store.version(task, 1).ready


class TestWhereArtifactsGo:
    """Of a database that is opened directly; MLflow left to itself would take ./mlruns wherever a command runs."""

    def test_nobody_said_where(self, postgres: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from registry.mlflow.store import Store

        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", raising=False)
        store = Store(postgres)

        with pytest.raises(SetupError, match="set MLFLOW_DEFAULT_ARTIFACT_ROOT to s3://BUCKET/PATH or to a folder"):
            store.start_run(task, "a run", {}, {})

        assert store.tasks() == []  # to look needs no such place
        assert not list(tmp_path.iterdir())

    def test_a_folder_relative_to_wherever_a_command_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "mlruns")
        for uri in ("postgresql://ada@db/mlflow", "sqlite:////tmp/mlflow.db"):
            with pytest.raises(SetupError, match="MLFLOW_DEFAULT_ARTIFACT_ROOT=mlruns depends on the folder"):
                address.beside(uri)

    @pytest.mark.parametrize(
        ("uri", "root", "place"),
        [
            ("postgresql+psycopg2://ada@db/mlflow", "s3://bucket/mlflow", "s3://bucket/mlflow"),
            ("postgresql://ada@db/mlflow", "/mnt/shared", "file:///mnt/shared"),
            ("sqlite:////srv/mlflow.db", "s3://bucket/mlflow", "s3://bucket/mlflow"),
            ("sqlite:////srv/mlflow.db", "", "file:///srv/artifacts"),
            ("https://mlflow.example", "s3://bucket/mlflow", None),
        ],
    )
    def test_the_variable_says_where_and_a_server_decides_for_itself(
        self, uri: str, root: str, place: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", root)
        assert address.beside(uri) == place
