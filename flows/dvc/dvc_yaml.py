"""params.yaml as DVC reads it, compared with what Preface reads before DVC is called.

DVC has a YAML reader of its own, of YAML 1.2, which takes less than ours and takes some words for other things. From
params.yaml it needs the names of bases and tasks, and each task's base, no more.
"""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from components.config.params import Params
from components.errors import ParamsError, line_of, sanitized

# What ends a plain word in { } for DVC's reader, and stands in every address.
_ADDRESS = re.compile(r"""(?<![\w'"])[A-Za-z][\w.+-]*://[^\s,'"{}\[\]]*""")


def require_same(path: Path, declared: Params) -> None:
    """See that DVC reads the same names out of a file.

    Raises:
        ParamsError: it does not read it at all, or otherwise; the message names the line and what to write.
    """
    try:
        with path.open(encoding="utf-8") as file:
            raw = YAML(typ="safe").load(file)  # as dvc.utils.serialize does
    except (YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none, 2026-13-01
        raise ParamsError(_not_read(path, error)) from None
    for section in ("bases", "tasks"):
        ours, theirs = set(getattr(declared, section)), set(raw[section])
        for name in sorted(theirs - ours, key=str):
            raise ParamsError(f"{path}: DVC reads the name {name!r} under {section} otherwise; write it in quotes")
    for name, task in declared.tasks.items():
        if raw["tasks"][name].get("base") != task.base:
            raise ParamsError(f"{path}: DVC reads tasks.{name}.base otherwise; write it in quotes: {task.base!r}")


def _not_read(path: Path, error: YAMLError | ValueError) -> str:
    if not isinstance(error, MarkedYAMLError) or (mark := error.problem_mark) is None:
        return f"{path} cannot be read by DVC: {line_of(error)}; put words of digits in quotes"
    line = path.read_text(encoding="utf-8").splitlines()[mark.line]
    address = next((found for found in _ADDRESS.finditer(line) if found.start() <= mark.column <= found.end()), None)
    if address:
        remedy = f'an address inside of {{ }} stands in quotes: write "{address[0]}"'
    else:
        remedy = "put the word there in quotes"
    return f"{path} cannot be read by DVC, line {mark.line + 1}: {sanitized(str(error.problem))}; {remedy}"
