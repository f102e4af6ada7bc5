"""Where the project is, and the environment that a command runs in. Reads nothing else.

The root is the nearest folder upward that holds params.yaml. What a user has set in the environment always wins.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from components.errors import ParamsError, SetupError, sanitized
from flows.process import process_list, proxies

# No hub is asked, no usage figures are sent, no pickle is read. HF_HUB_OFFLINE=0 before a command lets hf:// through.
SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # of reading weights too, which takes a second
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "DVC_NO_ANALYTICS": "1",
}
# Seconds, Prefect's least: a run that is silent for long is taken for dead (recovery.py), whichever server it is on. A
# fleet brings its server after this was read, so it is set whether or not there is one yet.
HEARTBEAT = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
FOLDER = ".preface"  # everything of a project that is this machine's own
STATION = Path(FOLDER) / "station"


def find_root(start: Path) -> Path:
    """The nearest folder, from ``start`` upward, that holds params.yaml."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise ParamsError(f"no params.yaml in {start} or any folder above it; run preface inside a project")


def _require_writable(folder: Path) -> None:
    """Fail where the tracking store cannot be made, and say so; SQLite only says that it cannot open a file."""
    if (folder / "mlflow.db").exists():
        return
    place = folder if folder.exists() else folder.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise SetupError(
            f"{place} is no folder that this user can write, and the project keeps its stores in {folder}; make it one,"
            " or set MLFLOW_TRACKING_URI and PREFECT_HOME to other places"
        )


def keep_private(prefect_home: Path) -> None:
    """See that Prefect's folder is there; the project's own is for its owner alone, and so is the database in it.

    The database holds what notification blocks know, and the key that they are encrypted with.

    Raises:
        SetupError: it cannot be made or written.
    """
    try:
        prefect_home.mkdir(parents=True, exist_ok=True)
        if prefect_home.parent.name == FOLDER:
            prefect_home.chmod(0o700)
            # SQLite takes an empty file for a new database, and gives its journals the database's own mode.
            (prefect_home / "prefect.db").touch()
            for file in prefect_home.glob("*.db*"):
                file.chmod(0o600)
        if not os.access(prefect_home, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(prefect_home))
    except OSError as error:
        raise SetupError(
            f"Prefect's folder {prefect_home} cannot be written ({error.strerror}); let this user write it, or set"
            " PREFECT_HOME to another"
        ) from error


def station_url(root: Path) -> str:
    """The address of the Prefect server that `preface schedule` or `make up` keeps here; empty if none answers."""
    port = process_list.port_of(root / STATION, "Prefect")
    return f"http://{process_list.HOST}:{port}/api" if port else ""


def _whole(name: str) -> str:
    """A folder's path out of the environment, that of ``~`` written out.

    Raises:
        SetupError: it is relative: each folder in which a command is typed would have another.
    """
    path = Path(os.path.expanduser(os.environ[name]))  # Path's own raises where nobody has that name
    if not path.is_absolute():
        raise SetupError(
            f"{name}={sanitized(str(path))} is another folder from each folder where a command is typed; write it from"
            f" the top, as in {name}={sanitized(str(path.absolute()))}"
        )
    return str(path)


def enter(start: Path | None = None) -> Path:
    """The root, with defaults put into the environment for whatever the user left unset.

    Called by a command before it imports mlflow, prefect or transformers: they read the environment when imported.

    Raises:
        ParamsError: there is no project here.
        SetupError: the environment names a proxy that cannot be one or a relative folder, the project's path cannot
            stand in an address, or the project is to keep its stores and cannot.
    """
    root = find_root(start or Path.cwd())
    if "?" in str(root) or not str(root).isprintable():
        raise SetupError(
            f"the project lies in {str(root)!r}: no database's address can name a folder with '?' or a character that"
            " does not print; rename it"
        )
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        _require_writable(root / FOLDER)
    stores = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / FOLDER / 'mlflow.db'}",
        "PREFECT_HOME": str(root / FOLDER / "prefect"),
        "PREFACE_BASES": str(root / "bases"),
    }
    for name, value in (SWITCHES | dict([HEARTBEAT]) | stores).items():
        # MLflow and Prefect take an empty address for an address.
        if not os.environ.get(name):
            os.environ[name] = value
    os.environ |= {name: _whole(name) for name in ("PREFECT_HOME", "PREFACE_BASES")}
    os.environ |= proxies.settled(os.environ)
    # Two servers upon one database would be in each other's way.
    if not os.environ.get("PREFECT_API_URL"):
        os.environ.pop("PREFECT_API_URL", None)  # an empty one would have Prefect start a server of its own
        if url := station_url(root):
            os.environ["PREFECT_API_URL"] = url
    return root
