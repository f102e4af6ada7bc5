"""Where a tracking store is: whether it can be opened, where its artifacts go, how to name it in a message.

Knows databases and nothing of MLflow.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy

from components.errors import SetupError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def reach(uri: str) -> None:
    """Fail at once where a database cannot be opened: MLflow would try ten times, for over a minute and a half.

    Raises:
        SQLAlchemyError, OSError: what opening it raised. Servers are not asked.
        SetupError: the driver is not installed.
    """
    if uri.partition(":")[0].partition("+")[0] not in DATABASES:
        return
    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = sqlalchemy.create_engine(url)
    except ImportError as error:
        raise SetupError(f"{public(uri)} needs the driver {error.name}; install it with pip") from error
    try:
        sqlalchemy.inspect(engine).has_table("experiments")
    finally:
        engine.dispose()


def beside(uri: str) -> str | None:
    """Where the artifacts of an embedded store go: beside its database. A server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(sqlalchemy.make_url(uri).database or "").resolve().parent / "artifacts").as_uri()


def down(uri: str, said: str) -> str:
    return (
        f"the tracking store {public(uri)} does not answer ({said}); see `preface doctor`, then run the command again"
    )


def public(uri: str) -> str:
    """The address without its password."""
    return sqlalchemy.make_url(uri).render_as_string() if "@" in uri else uri


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
