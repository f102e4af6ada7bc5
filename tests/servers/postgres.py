"""A real PostgreSQL server, started where PostgreSQL is installed, and a fresh database in it for each test.

Knows nothing of Preface. A test that asks for a database is skipped, with the reason, where there is no PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

USER = "preface"
# Nothing here must outlive the machine's power: waiting for its disk would only cost time.
OPTIONS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "max_connections": "300"}


def _account() -> dict[str, Any]:
    """Whom to run PostgreSQL as: it refuses to be run by root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no account postgres or nobody to run it as")


@pytest.fixture(scope="session")
def _postgres_server(free_port: Callable[[], int]) -> Iterator[str]:
    """The address of a server, up to the database's name; it asks for a password as a real one does."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("PostgreSQL is not installed: no initdb and postgres on the PATH")
    account, password = _account(), secrets.token_hex(8)
    # Not in pytest's own folder, into which no other account can look.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if account:
            os.chown(folder, account["user"], account["group"])
        given = folder / "password"
        given.write_text(password)
        given.chmod(0o644)
        command = ["initdb", f"--pgdata={folder}/data", f"--username={USER}", f"--pwfile={given}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **account)
        assert done.returncode == 0, done.stderr
        with _running(folder, free_port(), account) as port:
            yield f"postgresql://{USER}:{password}@127.0.0.1:{port}/"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(folder: Path, port: int, account: dict[str, Any]) -> Iterator[int]:
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["postgres", "-D", f"{folder}/data", "-p", str(port), *options],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **account,
        )
    try:
        deadline = time.monotonic() + 60
        while b"ready to accept connections" not in (folder / "log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGQUIT)  # at once, whoever is still connected
        process.wait()


def _execute(server: str, statement: str) -> None:
    import psycopg2

    connection = psycopg2.connect(server + "postgres")
    try:
        connection.autocommit = True
        connection.cursor().execute(statement)
    finally:
        connection.close()


@pytest.fixture(scope="session")
def _postgres_template(_postgres_server: str) -> str:
    """A database with MLflow's tables and no rows: to copy it is quick, to make the tables is not."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _execute(_postgres_server, "CREATE DATABASE tables")
    made = SqlAlchemyStore(_postgres_server + "tables", "s3://nowhere")
    made.engine.dispose()
    return "tables"


@pytest.fixture
def postgres(_postgres_server: str, _postgres_template: str) -> Iterator[str]:
    """The address of a database of this test alone, as MLFLOW_TRACKING_URI takes it."""
    name = f"test_{uuid.uuid4().hex}"
    _execute(_postgres_server, f"CREATE DATABASE {name} TEMPLATE {_postgres_template}")
    yield _postgres_server + name
    _execute(_postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres(_postgres_server: str) -> Iterator[str]:
    """The address of a database in which nobody has made MLflow's tables."""
    name = f"empty_{uuid.uuid4().hex}"
    _execute(_postgres_server, f"CREATE DATABASE {name}")
    yield _postgres_server + name
    _execute(_postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
