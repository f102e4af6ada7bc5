"""Reads a YAML file that people write, and tells its faults so that they can mend them. Knows no key of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from components.errors import ParamsError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, but a key that stands twice in a mapping is a fault; YAML says so, PyYAML takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return node


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ParamsError: there is no such file, it is not YAML, or it holds something else.
    """
    try:
        raw = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError as error:
        raise ParamsError(f"{path} does not exist; run preface in a folder that has a params.yaml") from error
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from error
    except (Exception, RecursionError) as error:  # odd scalars raise ValueError, KeyError and others in PyYAML
        raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        held = "nothing" if raw is None else type(raw).__name__
        raise ParamsError(f"{path} holds {held}; it must hold a mapping with the keys bases and tasks")
    return raw


def say(fault: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One pydantic error of a ``root`` record as a line: key path, what is wrong, the near miss of a misspelt key."""
    path = ".".join(str(part) for part in fault["loc"] if not str(part).endswith("]")) or "(top)"
    if fault["type"] == "extra_forbidden":
        record = _record_at(root, fault["loc"][:-1])
        return f"  {path}: unknown key{nearest(str(fault['loc'][-1]), record.model_fields if record else ())}"
    if fault["type"] == "missing":
        return f"  {path}: missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"  {path}: {message}" + ("" if fault["type"] == "value_error" else f" (it is {fault['input']!r})")


def nearest(word: str, known: Iterable[object]) -> str:
    """The near miss of a misspelt word, as the end of a sentence; empty if nothing is near."""
    near = difflib.get_close_matches(word, [str(k) for k in known], n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _record_at(root: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The record class that a key path leads to, walking field annotations; None where it leads elsewhere."""
    here: Any = root
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:  # dict[str, Record] or list[Record]: the key names an entry, its class is the last argument
            here = getattr(here, "__args__", (None,))[-1]
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None
