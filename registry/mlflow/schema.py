"""MLflow's tables in a database that has none: made by one process, wholly or not at all.

MLflow makes them itself where it finds none. But two processes that find none at the same moment, as the first runs of
two workers do, spoil each other's migrations, and one that is killed amid them leaves what no later one can open. An
SQLite file is therefore made beside its place and moved there; a PostgreSQL database is made under a lock.

Knows how MLflow makes them, and not what they are for. An older schema is left to `mlflow db upgrade`, as MLflow says.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy
from filelock import FileLock

from registry.mlflow import address, faults, tracking_uri


def ensure(uri: str) -> None:
    """Make the tables unless they are there. A tracking server, and another kind of database, does so itself.

    Raises:
        StoreUnavailable: the database does not answer.
        RegistryError: it refuses whoever asks.
        SetupError: its driver is not installed, or no store can be at such an address.
    """
    tracking_uri.check(uri)
    # Said once and better by the exception: MLflow would print a traceback first, and its schema's every step.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with faults.answering(uri, "that"):
        if address.reach(uri):
            return
        url = sqlalchemy.make_url(uri)
        if url.get_backend_name() == "sqlite" and url.database:
            _make_file(url, Path(url.database))
        elif url.get_backend_name() == "postgresql":
            _make_on_server(uri)


def _make_file(url: sqlalchemy.URL, place: Path) -> None:
    with FileLock(place.with_name(f".{place.name}.lock")):
        if address.reach(str(url)):
            return
        new = place.with_name(f".{place.name}.new")
        new.unlink(missing_ok=True)  # of one that was killed
        _make(str(url.set(database=str(new))))
        new.replace(place)


def _make_on_server(uri: str) -> None:
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.begin() as holding:
            holding.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": address.MAKING})
            if not sqlalchemy.inspect(holding).has_table("experiments"):
                _make(uri)
    finally:
        engine.dispose()


def _make(uri: str) -> None:
    """`mlflow db upgrade`, which on an empty database makes everything."""
    from mlflow.db import upgrade  # slow, and needed once in a store's life

    upgrade.main([uri], standalone_mode=False)
