"""Changes one value in params.yaml where it stands: everything else, comments and layout too, stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

from ruamel.yaml import YAML

from components import params
from components.errors import ParamsError


def declare_base(file: Path, task: str, base: str) -> None:
    """Name another base for a task; the file is whole at every moment.

    Raises:
        ParamsError: the file would not be valid, or the value does not stand in the task's own lines (an alias, a
            merge): then a person changes it.
    """
    text = file.read_text(encoding="utf-8")
    before = params.load(file)
    before.base(base)
    if before.task(task).base == base:
        return
    section = YAML(typ="rt").load(text)["tasks"][task]
    lines = text.splitlines(keepends=True)
    try:
        row, column = section.lc.value("base")
        old = before.task(task).base
        rest = lines[row][column:]
        quote = rest[0] if rest[0] in "'\"" else ""
        if not rest.startswith(f"{quote}{old}{quote}"):
            raise KeyError("base")
    except (KeyError, IndexError, AttributeError) as error:
        raise ParamsError(
            f"{file}: the base of {task} does not stand in its own lines; write `base: {base}` there"
        ) from error
    lines[row] = f"{lines[row][:column]}{quote}{base}{quote}{rest[len(old) + 2 * len(quote) :]}"
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text("".join(lines), encoding="utf-8")
        after = params.load(part)
        if after.task(task).base != base or {**after.tasks, task: None} != {**before.tasks, task: None}:
            raise ParamsError(f"{file}: naming {base} for {task} would change other tasks too; do it by hand")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
