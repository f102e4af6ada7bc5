"""The adapter folder on disk: write it whole or not at all, and believe nothing of it until every digest agrees.

    adapter_model.safetensors   one tensor `prompt_embeddings`, float32
                                prompt: [P, H]      prefix: [P, L*2*Hkv*D], columns layer0.K, layer0.V, layer1.K, ...
    adapter_config.json         PEFT's own keys: `PeftModel.from_pretrained` loads the folder as it is
    card.md                     for people
    manifest.json               written last: what the adapter is, and the size and digest of each other file

Only safetensors and JSON are read, never a pickle. A folder without a manifest is not an adapter. This module knows
neither torch nor MLflow nor where adapters are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import ValidationError
from safetensors import SafetensorError

from components.errors import ArtifactError, BaseMismatch, sanitized
from components.io import plain_file
from components.io.folders import whole_folder
from registry.artifact.manifest import MAX_FILE, Draft, FileDigest, Manifest, card, peft_config

TENSOR = "prompt_embeddings"
WEIGHTS, CONFIG, CARD, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "card.md", "manifest.json"
FILES = (WEIGHTS, CONFIG, CARD)
MAX_TEXT = 1 << 20  # of each file but the weights
MAX_HEADER = 1 << 12  # of the weights, which hold one tensor: a header that names thousands is not parsed
_REMEDY = "restore the folder from the registry, or train the task again"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adapter:
    """A folder that passed every check. ``tensor`` is [P, H] or [P, L*2*Hkv*D], float32."""

    manifest: Manifest
    tensor: Floats


def write(folder: Path, tensor: npt.NDArray[Any], draft: Draft) -> Manifest:
    """Make ``folder`` an adapter, in place of one that stood there.

    It is built beside its place and renamed, so that no crash and no full disk leaves half an adapter.

    Raises:
        ArtifactError: the tensor is not what the draft says, or the disk would not take it.
    """
    fault = _tensor_fault(tensor, draft)
    if fault:
        raise ArtifactError(f"{folder}: {fault}; nothing was written")
    try:
        contents = {
            WEIGHTS: safetensors.numpy.save({TENSOR: np.ascontiguousarray(tensor)}),
            CONFIG: _render(peft_config(draft)),
            CARD: card(draft).encode(),
        }
        files = {
            name: FileDigest(size=len(raw), sha256=hashlib.sha256(raw).hexdigest()) for name, raw in contents.items()
        }
        sealed = {**draft.model_dump(), "format": 1, "files": {k: v.model_dump() for k, v in files.items()}}
        manifest = Manifest.model_validate({**sealed, "digest": _digest(sealed)})
    except ValueError as error:
        raise ArtifactError(
            f"{folder}: no manifest can say this: {sanitized(str(error))}; nothing was written"
        ) from error
    contents[MANIFEST] = _render(manifest.model_dump())
    for name, raw in contents.items():
        if len(raw) > (MAX_FILE if name == WEIGHTS else MAX_TEXT):
            raise ArtifactError(
                f"{folder}: its {name} of {len(raw)} bytes would be too long to read; nothing was written"
            )
    try:
        with whole_folder(folder) as new:
            for name, raw in contents.items():
                (new / name).write_bytes(raw)
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(f"{folder} could not be written ({reason}); nothing half was left") from error
    return manifest


def read(folder: Path, base_hash: str | None = None) -> Adapter:
    """Check everything that can be checked, and only then hand the adapter out.

    Args:
        folder: The adapter folder; anything in it but its four files is a refusal.
        base_hash: The hash of the base that it is to run on; None leaves that comparison to the caller.

    Raises:
        ArtifactError: the folder is not exactly what its manifest says, or the manifest not what was written.
        BaseMismatch: it was trained on another base.
    """
    try:
        manifest = _read_manifest(folder)
        contents = {name: _read_file(folder / name, manifest.files[name]) for name in FILES}
        tensor = _read_tensor(folder / WEIGHTS, contents[WEIGHTS], manifest)
    except (OSError, MemoryError) as error:
        raise ArtifactError(f"{folder} cannot be read as an adapter: {str(error) or 'out of memory'}") from error
    if base_hash is not None and manifest.base.hash != base_hash:
        raise BaseMismatch(
            f"{folder} was trained on base {manifest.base.name} {manifest.base.hash} and would run on {base_hash};"
            " use its own base, or train the task again"
        )
    return Adapter(manifest, tensor)


def _read_manifest(folder: Path) -> Manifest:
    """The manifest, once the folder holds the four files and nothing else and the manifest its own digest."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder, so not an adapter")
    path, present = folder / MANIFEST, {entry.name for entry in os.scandir(folder)}
    if MANIFEST not in present:
        raise ArtifactError(f"{folder} has no {MANIFEST}, so it is not an adapter; {_REMEDY}")
    if present != {*FILES, MANIFEST}:
        missing, extra = sorted({*FILES} - present), sorted(present - {*FILES, MANIFEST})
        raise ArtifactError(
            f"{folder} lacks {missing} and holds {sanitized(str(extra))} beside its own files; {_REMEDY}"
        )
    raw = plain_file.read(path, MAX_TEXT, _REMEDY)
    try:
        manifest = Manifest.model_validate(json.loads(raw))
        sealed = manifest.model_dump(exclude={"digest"})
        # One form only: a manifest that says the same in other bytes was not written here.
        if _digest(sealed) != manifest.digest or _render(manifest.model_dump()) != raw:
            raise ArtifactError(f"{path} was changed after it was written: its digest does not agree; {_REMEDY}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "(top)"
        fault = sanitized(f"{where}: {first['msg']}")
        raise ArtifactError(f"{path}: {fault} (of {error.error_count()} faults); {_REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not the JSON that was written: {error}; {_REMEDY}") from error
    if set(manifest.files) != set(FILES):
        raise ArtifactError(
            f"{path} lists {sanitized(str(sorted(manifest.files)))}; an adapter has {sorted(FILES)}; {_REMEDY}"
        )
    return manifest


def _read_file(path: Path, expected: FileDigest) -> bytes:
    """The bytes, once their size and digest are those of the manifest. What was hashed is what is used."""
    limit = expected.size if path.name == WEIGHTS else min(expected.size, MAX_TEXT)
    raw = plain_file.read(path, limit, _REMEDY)
    if len(raw) != expected.size:
        raise ArtifactError(f"{path} has {len(raw)} bytes, its manifest says {expected.size}; {_REMEDY}")
    found = hashlib.sha256(raw).hexdigest()
    if found != expected.sha256:
        raise ArtifactError(f"{path} has sha256 {found}, its manifest says {expected.sha256}; {_REMEDY}")
    return raw


def _read_tensor(path: Path, raw: bytes, manifest: Manifest) -> Floats:
    """The one tensor, of the one shape and type, finite throughout."""
    header = int.from_bytes(raw[:8], "little")
    if header > MAX_HEADER:
        raise ArtifactError(
            f"{path} announces a header of {header} bytes, at most {MAX_HEADER} can be right; {_REMEDY}"
        )
    try:
        tensors = safetensors.numpy.load(raw)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a safetensors file: {sanitized(str(error))}; {_REMEDY}") from error
    if set(tensors) != {TENSOR}:
        raise ArtifactError(
            f"{path} holds {sanitized(str(sorted(tensors)))}, an adapter has {TENSOR!r} alone; {_REMEDY}"
        )
    tensor: Floats = tensors[TENSOR]
    fault = _tensor_fault(tensor, manifest)
    if fault:
        raise ArtifactError(f"{path}: {fault}; {_REMEDY}")
    return tensor


def _tensor_fault(tensor: npt.NDArray[Any], draft: Draft) -> str | None:
    """What is wrong with the tensor, both values named."""
    if tensor.dtype != np.float32:
        return f"{TENSOR} is {tensor.dtype}, it must be float32"
    if tensor.shape != draft.tensor_shape:
        return f"{TENSOR} has shape {tensor.shape}, {draft.method} of this base has {draft.tensor_shape}"
    wrong = int(tensor.size - np.count_nonzero(np.isfinite(tensor)))
    return f"{wrong} of {tensor.size} values of {TENSOR} are not finite" if wrong else None


def _render(content: Mapping[str, Any]) -> bytes:
    """The one way this module writes JSON."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _digest(sealed: Mapping[str, Any]) -> str:
    """What the manifest says of itself."""
    return hashlib.sha256(_render(sealed)).hexdigest()
