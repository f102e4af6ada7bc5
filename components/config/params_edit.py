"""Changes one value in params.yaml where it stands: everything else, comments and layout too, stays as it is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import yaml
from filelock import FileLock

from components.config import params
from components.errors import ParamsError
from components.io import atomic


def declare_base(file: Path, task: str, base: str) -> None:
    """Name another base for a task; the file is whole at every moment, and of two who do it at once both are heard.

    Raises:
        ParamsError: as ``redeclared``, or the file cannot be written.
    """
    locks = file.parent / ".preface" / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / file.name):
            text = redeclared(file, task, base)
            if text != file.read_bytes():
                _replace(file.resolve(), text)  # a link stays one
    except OSError as error:
        raise ParamsError(f"{file} cannot be changed ({error}); write `base: {base}` for {task} there") from error


def redeclared(file: Path, task: str, base: str) -> bytes:
    """What the file would be with another base for a task; nothing is written.

    Raises:
        ParamsError: the file would not be valid, or the value does not stand in the task's own lines (an alias, a
            merge): then a person changes it.
    """
    text = file.read_bytes().decode("utf-8")
    before = params.load(file)
    before.base(base)
    if before.task(task).base == base:
        return text.encode()
    start, end = _place(text, task)
    old, quote = before.task(task).base, text[start] if text[start : start + 1] in ("'", '"') else ""
    if text[start:end] != f"{quote}{old}{quote}":
        raise ParamsError(f"{file}: the base of {task} does not stand in its own lines; write `base: {base}` there")
    if not quote and yaml.safe_load(base) != base:  # what is read as a number, or as nothing
        quote = '"'
    changed = f"{text[:start]}{quote}{base}{quote}{text[end:]}".encode()
    with tempfile.TemporaryDirectory() as room:
        part = Path(room) / file.name
        part.write_bytes(changed)
        after = params.load(part)
    if after.task(task).base != base or {**after.tasks, task: None} != {**before.tasks, task: None}:
        raise ParamsError(f"{file}: naming {base} for {task} would change other tasks too; do it by hand")
    return changed


def _replace(file: Path, text: bytes) -> None:
    with atomic.whole_file(file) as part:
        part.write_bytes(text)
        shutil.copymode(file, part)


def _place(text: str, task: str) -> tuple[int, int]:
    """Where in the text the task's base is written; (0, 0) where it has none of its own."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in ("tasks", task, "base"):
        entries = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in entries if key.value == name), None)
    return (node.start_mark.index, node.end_mark.index) if node else (0, 0)
