"""Where a tracking store is: whether it can be opened, where its artifacts go, how to name it in a message.

Knows databases and, of MLflow, the name of one variable.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy

from components.errors import RegistryError, SetupError, sanitized
from components.redaction import public, redact
from registry.mlflow.tracking_uri import DATABASES

CONNECT_SECONDS = 10  # seconds for a database server's first word
MAKING = 0x70726566616365  # the number of the lock under which a database's tables are made: "preface"
# What ``mlflow server --default-artifact-root`` reads too. MLflow's own client, at a database, does not.
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
# PostgreSQL, on a connection that it will not grant however often one asks. The driver passes no code on.
_REFUSALS = ("password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")


def reach(uri: str) -> bool:
    """Fail at once where a database cannot be opened: MLflow would try ten times, for over a minute and a half.

    Returns:
        Whether MLflow's tables are there. Tracking servers are not asked: theirs are.

    Raises:
        SQLAlchemyError, OSError: what opening it raised.
        SetupError: the driver is not installed.
        RegistryError: the database refuses whoever asks.
    """
    if not _is_database(uri):
        return True
    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = sqlalchemy.create_engine(url, connect_args=_limits(url))
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        driver = getattr(error, "name", None) or url.drivername.partition("+")[2] or url.drivername
        raise SetupError(f"{public(uri)} needs the driver {sanitized(driver)}; install it with pip") from error
    try:
        with engine.begin() as connection:
            if url.get_backend_name() == "postgresql":  # wait for whoever is making them (schema.py)
                connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": MAKING})
            return sqlalchemy.inspect(connection).has_table("experiments")
    except sqlalchemy.exc.OperationalError as error:
        said = one_line(error.orig or error)
        if not any(refusal in said for refusal in _REFUSALS):
            raise
        raise RegistryError(
            f"the tracking store {public(uri)} refuses: {said};"
            " check user, password and database in MLFLOW_TRACKING_URI"
        ) from error
    finally:
        engine.dispose()


def beside(uri: str) -> str | None:
    """Where the artifacts of a new experiment go; None where a tracking server decides for itself.

    At a database: below MLFLOW_DEFAULT_ARTIFACT_ROOT if that is set, else beside an SQLite file. MLflow left to itself
    takes ./mlruns, wherever the command happens to run: what one machine registers, no other one finds.

    Raises:
        SetupError: nobody said where.
    """
    if not _is_database(uri):
        return None
    root, url = os.environ.get(ARTIFACT_ROOT, ""), sqlalchemy.make_url(uri)
    if root and not (urlsplit(root).scheme or Path(root).is_absolute()):
        raise SetupError(
            f"{ARTIFACT_ROOT}={root} depends on the folder a command runs in; give s3://... or a full path"
        )
    if root:
        return root if urlsplit(root).scheme else Path(root).as_uri()
    if url.get_backend_name() == "sqlite":
        return (Path(url.database or "").resolve().parent / "artifacts").as_uri()
    raise SetupError(
        f"nobody says where the artifacts of {public(uri)} go; set {ARTIFACT_ROOT} to s3://BUCKET/PATH or to a folder"
        " that all machines share, or go through an MLflow server"
    )


def is_away(uri: str, artifact: str) -> bool:
    """Whether an artifact should lie in a folder of this machine that is gone as a whole: an outage, and not a loss."""
    try:
        root = beside(uri) or ""
    except SetupError:
        return False
    return root.startswith("file:") and artifact.startswith(root) and not Path(unquote(urlsplit(root).path)).is_dir()


def moved(uri: str, artifact: str) -> str | None:
    """Where an artifact lies by now whose project was moved or renamed with its store in it; None if it was not.

    MLflow keeps full paths: that one is gone, and in the folder beside the database there is the same.
    """
    try:
        root = beside(uri) or ""
    except SetupError:
        return None
    if not root.startswith("file:") or not artifact.startswith(("file:", "/")):
        return None
    folder, was = (Path(unquote(urlsplit(place).path)) for place in (root, artifact))
    for place, part in enumerate(was.parts if not was.exists() else ()):
        there = folder.joinpath(*was.parts[place + 1 :])
        if part == folder.name and there.exists():
            return there.as_uri()
    return None


def down(uri: str, said: str) -> str:
    """The message for a store that does not answer."""
    return (
        f"the tracking store {public(uri)} does not answer ({said}); see `preface doctor`, then run the command again"
    )


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in DATABASES


def _limits(url: sqlalchemy.URL) -> dict[str, Any]:
    """A server that takes the connection and stays silent is waited for without end by libpq."""
    is_libpq = url.get_backend_name() == "postgresql" and url.get_driver_name() in ("psycopg2", "psycopg")
    return {"connect_timeout": CONNECT_SECONDS} if is_libpq and "connect_timeout" not in url.query else {}


def one_line(error: BaseException) -> str:
    """What a store's library says, without secrets: a driver may quote the whole address.

    Masked before it is cut, since a password that is cut is not known for one.
    """
    return " ".join(redact(str(error)).split())[:300] or type(error).__name__
