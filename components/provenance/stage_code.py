"""What the code of a data stage is, as one digest: that of every file of ours that running its module may import.

The identity files that the stages of dvc.yaml depend on hold it, so that a change of that code runs them again and an
upgrade that leaves it alone runs none. Libraries are requirements.lock's matter and do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import components
from components.stage import MODULES

_HOME = Path(components.__file__).parents[1]


@cache
def digest(stage: str) -> str:
    """32 hexadecimal digits for the code of a stage: ``base``, ``fetch`` or ``prepare``."""
    files = closure(_HOME, MODULES[stage])
    lines = [f"{hashlib.sha256(raw).hexdigest()}  {name}\n" for name, raw in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def closure(home: Path, module: str) -> dict[str, bytes]:
    """Path below ``home`` and bytes of each file that importing the module may run, also where a function imports it.

    Only files of ``components`` count, which imports no other package of ours.
    """
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = next((file for file in _places(home, name) if file.is_file()), None)
        if file is None or (path := file.relative_to(home).as_posix()) in found:
            continue
        found[path] = file.read_bytes()
        waiting += [name.rpartition(".")[0], *_imports(found[path])]
    return found


def _places(home: Path, module: str) -> tuple[Path, ...]:
    if module.partition(".")[0] != "components":
        return ()
    stem = home.joinpath(*module.split("."))
    return stem.with_suffix(".py"), stem / "__init__.py"


def _imports(source: bytes) -> Iterator[str]:
    """What a file may import; ``from a import b`` may mean a module ``a.b`` as well as a name in ``a``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
