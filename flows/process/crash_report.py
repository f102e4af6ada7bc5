"""A fault that nobody foresaw, written to a file that can be handed on: traceback, versions, machine, command.

Nothing of it is secret: what looks like a password, a token or a signature is masked, and values of variables are not
part of it. It knows no command and asks nobody.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from components import distribution
from components.errors import ParamsError, sanitized
from components.redaction import redact
from flows.process import local_project

FOLDER = Path(local_project.FOLDER) / "crashes"
KEPT = 20  # reports of a project: a command that crashes every minute must not fill the disk
LIBRARIES = (distribution.NAME, "prefect", "mlflow", "dvc", "torch", "transformers", "peft", "pydantic", "click")
_TITLE = "Preface crashed. Passwords and tokens are masked; look it over, then attach it to your report.\n"


def told_with_report(command: Sequence[str], error: BaseException) -> str:
    """One line: what ended how, and where the report of it is."""
    kind = f"{type(error).__name__}: {first}" if (first := _first_line(error)) else type(error).__name__
    shown = sanitized(redact(" ".join(command[:2])))
    try:
        report = write(command, "".join(traceback.format_exception(error)))
    except OSError as why:
        return f"{shown} crashed ({kind}); no report of it could be written: {sanitized(redact(str(why)))}"
    return f"{shown} crashed ({kind}), which is a fault of Preface; report it with the file {report}"


def write(command: Sequence[str], happened: str, project: Path | None = None) -> Path:
    """The report, which its owner alone may read: in the project, or where that cannot be written, in TMPDIR.

    Args:
        project: its root; that of the current folder if not given.

    Raises:
        OSError: neither folder can be written.
    """
    text = redact(f"{_TITLE}\n{_circumstances(command)}\n{happened}")
    try:
        folder = local_project.find_root(project or Path.cwd()) / FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _drop_oldest(folder)
        return _written(folder, text)
    except (OSError, ParamsError):
        return _written(Path(tempfile.gettempdir()), text)


def _written(folder: Path, text: str) -> Path:
    # mkstemp's files are their owner's alone, and no two processes get the same.
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    descriptor, name = tempfile.mkstemp(prefix=f"preface-crash-{when}-", suffix=".txt", dir=folder)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)


def _drop_oldest(folder: Path) -> None:
    for old in sorted(folder.glob("preface-crash-*.txt"))[: -KEPT + 1]:
        old.unlink(missing_ok=True)


def _circumstances(command: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return (
        f"command:   {sanitized(' '.join(command))}\n"
        f"when:      {datetime.now(UTC).isoformat(timespec='seconds')}\n"
        f"python:    {platform.python_version()} on {platform.platform()}\n"
        f"libraries: {versions}\n"
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _first_line(error: BaseException) -> str:
    lines = redact(str(error)).strip().splitlines()
    return sanitized(lines[0]) if lines else ""
