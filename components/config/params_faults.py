"""Reads a YAML file that people write, and tells its faults so that they can mend them. Knows no key of the file."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any

import yaml
from pydantic import BaseModel

from components.errors import ParamsError, line_of, sanitized

MAX_SIZE = 4 << 20  # bytes, and characters with every alias written out: well over a thousand tasks
NODE = 16  # what a node costs beside its characters: "[0,0,0" takes far more memory than its bytes
# Longer integers are quadratic to read and to hash apart; no float that anybody means is longer.
MAX_DIGITS = {"tag:yaml.org,2002:int": 20, "tag:yaml.org,2002:float": 40}
MAX_NEAR, MAX_NAME = 1000, 100  # a near miss is looked for among so many words, of this length at most
_OTHER_BASE = re.compile(r"[-+]?0[0-7_]+|.*:.*")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_NO_TEXT = ("yes", "no", "y", "n", "on", "off", "true", "false", "null")  # unless they stand in quotes
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, without what it takes and nobody means.

    A key that stands twice in a mapping is a fault (YAML says so, PyYAML takes the last), and so are aliases that make
    much out of little, an alias inside of what it names, endless numbers and text that no file can hold.

    A key is text as it is typed, never a number, date or boolean, and so is what stands under a key of ``texts``. A
    number may have an exponent without a dot (`5e-3`), as in YAML 1.2, which DVC reads. `0256`, to the base of eight in
    YAML 1.1, and `4:16`, to that of sixty, are faults.
    """

    def __init__(self, text: str, texts: Collection[str] = ()) -> None:
        super().__init__(text)
        self.texts = texts
        self.size = 0
        self.sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        alias, before = self.check_event(yaml.AliasEvent), self.size
        node = super().compose_node(parent, index)
        assert node is not None  # a type of PyYAML's stubs alone
        if not alias:
            self.size += NODE + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            self.sizes[node] = self.size - before
        elif node in self.sizes:
            self.size += self.sizes[node]
        else:
            raise yaml.MarkedYAMLError(None, None, "an alias stands inside of what it names", node.start_mark)
        if self.size > MAX_SIZE:
            raise yaml.MarkedYAMLError(
                None, None, f"its aliases written out, it is larger than {MAX_SIZE}", node.start_mark
            )
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if len(node.value) > MAX_DIGITS.get(node.tag, MAX_SIZE):
            raise yaml.MarkedYAMLError(None, None, f"a number of {len(node.value)} characters", node.start_mark)
        if _HALF_CHARACTER.search(node.value):
            raise yaml.MarkedYAMLError(None, None, "a text with half a character (\\ud800-\\udfff)", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
                _as_typed(key)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in self.texts:
                held = value.value if isinstance(value, yaml.CollectionNode) else [value]
                for entry in held:
                    _as_typed(entry[1] if isinstance(entry, tuple) else entry)
        return node

    def construct_number(self, node: yaml.ScalarNode) -> object:
        if _OTHER_BASE.fullmatch(node.value):
            raise yaml.MarkedYAMLError(
                None,
                None,
                f"{node.value} is {self.construct_yaml_int(node)} in YAML 1.1 and something else in 1.2; write a number"
                " without a 0 in front and without a colon, or a text in quotes",
                node.start_mark,
            )
        return self.construct_yaml_int(node)


def _as_typed(node: yaml.Node) -> None:
    """Make a plain scalar the text that stands in the file; nothing (null) stays nothing."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
        node.tag = "tag:yaml.org,2002:str"


_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "value")}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?|\.[0-9])[0-9_]*[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def read_mapping(path: Path, texts: Collection[str] = ()) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        texts: keys under which every scalar is text, as it is typed.

    Raises:
        ParamsError: there is no such file, it is too large, it is not YAML, or it holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
        raw = _Loader(content.decode(), texts).get_single_data() if len(content) <= MAX_SIZE else None
    except FileNotFoundError as error:
        raise ParamsError(f"{path} does not exist; run preface in a folder that has a params.yaml") from error
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not YAML: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except (Exception, RecursionError) as error:  # odd scalars raise ValueError, KeyError and others in PyYAML
        raise ParamsError(f"{path} is not YAML: {line_of(error)}") from error
    if len(content) > MAX_SIZE:
        raise ParamsError(f"{path} has more than {MAX_SIZE} bytes; name files of data instead of writing them into it")
    if not isinstance(raw, dict):
        held = "nothing" if raw is None else type(raw).__name__
        raise ParamsError(f"{path} holds {held}; it must hold a mapping with the keys bases and tasks")
    return raw


def say(fault: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One pydantic error of a ``root`` record as a line: key path, what is wrong, the near miss of a misspelt key."""
    path = ".".join(str(part) for part in fault["loc"] if not str(part).endswith("]")) or "(top)"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        record = _record_at(root, fault["loc"][:-1])
        message = f"unknown key{nearest(str(fault['loc'][-1]), record.model_fields if record else ())}"
    elif fault["type"] == "missing":
        message = "missing"
    elif fault["type"] != "value_error":
        message += f" (it is {_repr.repr(fault['input'])})"
    if fault["type"] == "string_type" and isinstance(fault["input"], bool | int | float | date):
        message += "; put it in quotes"  # no, 007, 2026-01-01
    return f"  {sanitized(path)}: {sanitized(message)}"


def yaml_word(text: str) -> str:
    """A text as YAML's flow style takes it, in a line for people to write: plain where it can be read as nothing else.

    Half a character, as a file's name may hold, becomes ``?``, which in a pattern stands for any.
    """
    if re.fullmatch(r"[^\W\d_](?:[\w ./-]*\w)?", text) and text.lower() not in _NO_TEXT:
        return text
    quoted = json.dumps(_HALF_CHARACTER.sub("?", text), ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


def nearest(word: str, known: Iterable[object]) -> str:
    """The near miss of a misspelt word, as the end of a sentence; empty if nothing is near."""
    if len(word) > MAX_NAME:
        return ""
    words = (text for text in map(str, islice(known, MAX_NEAR)) if len(text) <= MAX_NAME)
    near = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _present(annotation: Any) -> Any:
    """Of a value that may be null, what it is if it is not."""
    given = [one for one in getattr(annotation, "__args__", ()) if one is not type(None)]
    return given[0] if isinstance(annotation, UnionType) and len(given) == 1 else annotation


def _record_at(root: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The record class that a key path leads to, walking field annotations; None where it leads elsewhere."""
    here: Any = root
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = _present(field.annotation) if field else None
        else:  # dict[str, Record] or list[Record]: the key names an entry, its class is the last argument
            here = getattr(here, "__args__", (None,))[-1]
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None
