"""Whether what MLFLOW_TRACKING_URI says can be a tracking store of ours. Reads the text alone: nobody is asked.

An address means the same from every folder and to every program: whoever loads a version through MLflow alone sets the
variable too, and a path that depends on the folder would give them another, empty store.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy

from components.errors import SetupError, sanitized
from components.redaction import MASK, public

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
NAME = "MLFLOW_TRACKING_URI"
_KINDS = "an address begins with http://, https://, postgresql://, mysql+pymysql://, mssql+pyodbc:// or sqlite:////"
# What stands in a user or a password as it is; "%" begins an escape.
_PLAIN = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST_AND_PORT = re.compile(r"[A-Za-z0-9.-]+:[0-9]+(/.*)?")


def check(uri: str) -> str:
    """The address itself.

    Raises:
        SetupError: no tracking store can be there; the message says what to write. It holds no password.
    """
    said = fault(uri)
    if said:
        raise SetupError(said)
    return uri


def fault(uri: str) -> str:
    """What is wrong with an address and what to write, in one line, not yet redacted; empty if nothing is."""
    if not uri:
        return f"{NAME} is empty; unset it, or write http://HOST:PORT"
    shown = f"{NAME}={_shown(uri)}"
    if uri != uri.strip() or any(not char.isprintable() for char in uri):
        return f"{shown} holds spaces around it, or characters that do not print; write the address alone"
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else ""
    kind = scheme.partition("+")[0]
    if kind == "postgres":
        return f"{shown} names no kind of database; write {uri.replace(uri[:8], 'postgresql', 1)}"
    if scheme in ("http", "https"):
        return _web(uri, shown)
    if kind in DATABASES and match and match[1] != scheme:
        return f"{shown} names its kind of database in capitals; write {scheme}{uri[len(scheme) :]}"
    if kind == "sqlite":
        return _file(uri, shown)
    if kind in DATABASES:
        return _server(uri, shown, kind)
    if scheme == "uc" or uri.lower().startswith("databricks"):
        return f"{shown} is Databricks' registry, which keeps no stages and no release log; {_KINDS}"
    if _HOST_AND_PORT.fullmatch(uri):
        return f"{shown} does not say how to speak to it; write http://{uri}"
    if "@" in uri and (scheme in ("", "file") or "://" not in uri):
        return f"{shown} does not say how to speak to it; {_KINDS}"
    if scheme in ("", "file") or len(scheme) == 1:  # C:\mlruns
        return _folder(uri, shown)
    return f"{shown} is no tracking store that Preface knows; {_KINDS}"


def _web(uri: str, shown: str) -> str:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"{shown} has no port between 0 and 65535, or no host; write http://HOST:PORT"
    if "@" in uri:
        return (
            f"{NAME}={parts.scheme}://{MASK}@{sanitized(uri.rpartition('@')[2])} holds a user or a password, which"
            " MLflow would print; write the address without them, and set"
            " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if not host or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
        return f"{shown} names no host; write http://HOST:PORT"
    if parts.query or parts.fragment:
        return f"{shown} is a page's address; write {parts.scheme}://{parts.netloc}"
    return ""


def _server(uri: str, shown: str, kind: str) -> str:
    """A database behind a network: its parts are read as SQLAlchemy will read them."""
    authority, _, _ = uri.partition("://")[2].partition("?")
    user, at, _ = authority.rpartition("@")
    if at and not all(_PLAIN.fullmatch(part) for part in user.split(":", 1)):
        return (
            f"{shown}: its user or password holds a character that must be escaped; write % as %25, @ as %40, : as %3A,"
            " / as %2F, # as %23 and ? as %3F"
        )
    try:
        url = sqlalchemy.make_url(uri)
        if url.get_dialect().is_async:
            return f"{shown} names a driver that MLflow cannot use; write {uri.replace(url.drivername, kind, 1)}"
    except (ValueError, sqlalchemy.exc.ArgumentError):
        return f"{shown} cannot be read as a database's address; write postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    except ImportError:  # the kind is right, its driver is not installed: told where it is opened
        return ""
    if url.port is not None and url.port > 65535:
        return f"{shown} names the port {url.port}; a port is at most 65535"
    if not url.database and url.get_backend_name() == "postgresql" and not url.query:
        return f"{shown} names no database; write {uri.rstrip('/')}/DATABASE"
    return ""


def _file(uri: str, shown: str) -> str:
    try:
        url = sqlalchemy.make_url(uri)
        url.get_dialect()().create_connect_args(url)  # ?timeout=soon
    except sqlalchemy.exc.NoSuchModuleError:  # told where it is opened
        pass
    except (ValueError, sqlalchemy.exc.ArgumentError):
        instead = uri.partition("?")[0] if "?" in uri else _at(Path.cwd() / "mlflow.db")
        return f"{shown} cannot be read as a file's address; write {instead}"
    if "?" in uri and not url.query:
        return f"{shown} would keep its file under another name: no address can name a file with '?'; rename it"
    path = url.database or ""
    if (path in ("", ":memory:") and not url.host) or "mode=memory" in uri:
        return f"{shown} keeps nothing; write {_at(Path.cwd() / 'mlflow.db')}"
    if url.host or not uri.lower().partition(":")[2].startswith("///"):
        return f"{shown} names a host; a file is written with its full path: {_at(Path.cwd() / 'mlflow.db')}"
    if not Path(path).is_absolute():
        name = path.removeprefix("file:") if path.startswith("file:") else path
        return (
            f"{shown} depends on the folder that a command runs in, and means another store from each; write"
            f" {_at(Path.cwd() / name)}"
        )
    if Path(path).is_dir():
        return f"{shown} is a folder; write {_at(Path(path) / 'mlflow.db')}"
    return ""


def _folder(uri: str, shown: str) -> str:
    """A path without a scheme: of MLflow's old file store, or of a database."""
    path = Path(uri[5:].lstrip("/") and "/" + uri[5:].lstrip("/") if uri.startswith("file:") else uri or "mlflow.db")
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        return f"{shown} is a path and no address; write {_at(Path.cwd() / path)}"
    return (
        f"{shown} is a file store, which has no registry; write {_at(Path.cwd() / path / 'mlflow.db')}"
        " (`mlflow migrate-filestore` takes the old runs along)"
    )


def _shown(uri: str) -> str:
    """The address without its password; masked first, since of one that is cut nobody knows that it is one."""
    return sanitized(public(uri))


def _at(path: Path) -> str:
    """The address of an SQLite file."""
    return f"sqlite:///{path.absolute()}"
