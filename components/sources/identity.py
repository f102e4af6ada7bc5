"""What a source holds and which settings make data of it: a small file per task and per base, which DVC's stages read.

    data/sources/TASK.json          {"source": address, "identity": {...}, "data": settings, "code": {stage: digest}}
    data/sources/bases/NAME.json    {"source": address, "sha256": pin, "hash": pin, "code": {stage: digest}}

The address has lost its secrets, so that none reaches dvc.lock, DVC's run cache or a manifest, and a presigned address
that was signed anew is still the same. Who looks at sources, and what a stage does, is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config.params import BaseParams, DataParams
from components.errors import SourceError
from components.io import atomic
from components.redaction import redact

FOLDER = Path("data/sources")


def of_task(data: DataParams, resolved: Mapping[str, str], code: Mapping[str, str]) -> dict[str, Any]:
    """The content of a task's file.

    Args:
        resolved: what ``byte_source.resolve`` says of its source.
        code: digests of the code of its stages, by their names.
    """
    return {
        "source": redact(data.source),
        "identity": {key: value for key, value in resolved.items() if key != "source"},
        "data": settings(data),
        "code": dict(code),
    }


def of_base(base: BaseParams, code: Mapping[str, str]) -> dict[str, Any]:
    """The content of a base's file; ``code`` as in ``of_task``."""
    return pins(base) | {"code": dict(code)}


def pins(base: BaseParams) -> dict[str, Any]:
    """What params.yaml pins a base to."""
    return {"source": redact(base.source), "sha256": base.sha256, "hash": base.hash}


def settings(data: DataParams) -> dict[str, Any]:
    """What becomes of the rows, wherever they come from; what is not said stays out."""
    said = data.model_dump(mode="json", exclude={"source", "sha256"}, exclude_defaults=True)
    if data.labels is not None:
        said["labels"] = [list(pair) for pair in data.labels.items()]  # DVC compares mappings without their order
    return said


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole; one that says this already is left as it is."""
    said = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == said:
        return
    atomic.write_text(path, said)


def require(path: Path, expected: Mapping[str, Any], remedy: str) -> None:
    """See that a file says what params.yaml says; ``expected`` has some of its keys.

    Raises:
        SourceError: it says something else, or cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in expected if found[key] != expected[key]]
        address = str(found["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} cannot be read ({error}); write it with `{remedy}`") from error
    if "source" in other:
        raise SourceError(f"{path} is about {address}, params.yaml says {expected['source']}; run `{remedy}`")
    if other:
        raise SourceError(f"{path} says of {', '.join(other)} what params.yaml said before; run `{remedy}`")
