"""An adapter folder that somebody else wrote: PEFT's own form, read as warily as one of ours, and fitted to a base.

    adapter_config.json         what PEFT's `save_pretrained` says of it; keys that do not matter here are passed over
    adapter_model.safetensors   one tensor `prompt_embeddings`: [P, H], or [P, L*2*Hkv*D] with any projection folded in
    manifest.json               in a folder of Preface's own alone, which is then read as adapter_folder.py reads one

Nothing else in the folder is opened, and no pickle ever. This module knows neither torch nor what is registered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from components.base.base_hash import hash_base
from components.base.base_support import KVShape
from components.config.params import MethodName
from components.errors import ArtifactError, BaseError, sanitized
from components.io import plain_file
from components.redaction import redact
from registry.artifact import adapter_folder, peft_kind
from registry.artifact.adapter_folder import CONFIG, MANIFEST, TENSOR, WEIGHTS, Floats
from registry.artifact.manifest import MAX_FILE, peft_config
from registry.artifact.peft_kind import ITS_OWN, METHODS, PREFIXES_ALONE, REMEDY, SIZES, altered

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_HEADER = 1 << 16  # one tensor and whatever notes somebody left beside it
_EMBEDDINGS = (
    "embed_tokens",
    "wte",
    "embed_in",
    "word_embeddings",
    "lm_head",
    "embed_out",
    "token_adapter",
    "trainable_tokens",
)
_HEADS = ("score", "classifier", "qa_outputs", "pooler")


@dataclass(frozen=True)
class Foreign:
    """What a folder holds, every value checked but against no base.

    ``tensor``: [P, H] or [P, L*2*Hkv*D]; ``sha256`` of the file that it lay in. ``sizes``: what it says of its base's.
    ``base`` is the name or path that it gives its base. ``base_hash`` is that base's hash, empty where it is unknown.
    ``proven``: the adapter's own manifest carries that hash; a base found here at the path that PEFT wrote is a claim.
    """

    folder: Path
    method: MethodName
    tensor: Floats
    sha256: str
    sizes: Mapping[str, int]
    base: str
    base_hash: str
    proven: bool = False


def read(folder: Path) -> Foreign:
    """Read an adapter folder of PEFT's, or of Preface's own.

    Raises:
        ArtifactError: with what is wrong in it, and what to do.
    """
    try:
        if (folder / MANIFEST).exists():
            return _of_ours(folder)
        _refuse_pickles(folder)
        config = peft_kind.read_config(folder / CONFIG)
        raw = plain_file.read(folder / WEIGHTS, MAX_FILE, REMEDY)
        tensor = _tensor(folder / WEIGHTS, raw)
    except (OSError, MemoryError, ValueError) as error:
        raise ArtifactError(
            f"{sanitized(str(folder))} cannot be read as an adapter of PEFT's:"
            f" {sanitized(str(error)) or 'out of memory'}; it"
            f" must hold {CONFIG} and {WEIGHTS} themselves, not links to them (`cp -rL` copies what links point to)"
        ) from error
    method, sizes = METHODS[config["peft_type"]], {key: config[key] for key in SIZES if config.get(key) is not None}
    rows, columns = tensor.shape
    if rows != config["num_virtual_tokens"]:
        raise ArtifactError(
            f"{folder}: {TENSOR} has {rows} rows, num_virtual_tokens says {config['num_virtual_tokens']}; {REMEDY}"
        )
    if method == "prompt" and sizes.get("token_dim", columns) != columns:
        raise ArtifactError(f"{folder}: {TENSOR} has {columns} columns, token_dim says {sizes['token_dim']}; {REMEDY}")
    base = config.get("base_model_name_or_path") or ""
    # What it calls its base is kept in the history, and may be an address.
    return Foreign(folder, method, tensor, hashlib.sha256(raw).hexdigest(), sizes, redact(base), _hash_of(base))


def base_fault(found: Foreign, name: str, base_hash: str) -> str:
    """Why the adapter is not known to be of the declared base; empty if it is.

    Args:
        name: of the base that params.yaml declares for the task, and ``base_hash`` its hash.
    """
    if found.base_hash == base_hash and found.proven:
        return ""
    said, declared = sanitized(found.base) or "(no name)", f"params.yaml declares {name} {base_hash}"
    if found.base_hash == base_hash:
        return (
            f"{found.folder} names the base {said}, and a folder here of that name has the declared hash; a name or a"
            f" path is a claim and proves nothing; {declared}"
        )
    if found.base_hash:
        return f"{found.folder} was trained on the base {said} {found.base_hash}, {declared}"
    return (
        f"{found.folder} was trained on the base {said}, of unknown hash: a name or a path proves nothing; {declared}"
    )


def fit(found: Foreign, shape: KVShape, name: str) -> None:
    """See that the tensor is one of the base's shape.

    Raises:
        ArtifactError: it was made for another.
    """
    width = shape.kv_heads * shape.head_size
    prompt = found.method == "prompt"
    own = {
        "num_layers": shape.layers,
        "token_dim": shape.hidden if prompt else width,
        "num_attention_heads": shape.heads if prompt else shape.kv_heads,
    }
    columns = shape.hidden if prompt else shape.layers * 2 * width
    if found.tensor.shape[1] != columns:
        raise ArtifactError(
            f"{found.folder}: {TENSOR} is {list(found.tensor.shape)}, {found.method} tuning of the base {name} has"
            f" [P, {columns}]: it was trained on another; {ITS_OWN}"
        )
    if len(found.tensor) >= shape.context:
        raise ArtifactError(
            f"{found.folder} has {len(found.tensor)} virtual tokens, the base {name} has room for {shape.context}, text"
            f" and answer included; {ITS_OWN}"
        )
    for key, value in found.sizes.items():
        if value != own[key]:
            raise ArtifactError(
                f"{found.folder}: {CONFIG} says {key} {value}, {found.method} tuning of the base {name} has {own[key]}:"
                f" it was trained on another; {ITS_OWN}"
            )


def _of_ours(folder: Path) -> Foreign:
    try:
        stored = adapter_folder.read(folder)
    except ArtifactError as error:
        raise ArtifactError(
            f"{error}; without its {MANIFEST} it would be an adapter of PEFT's, of an unknown base"
        ) from error
    said = stored.manifest
    sizes = {key: value for key, value in peft_config(said).items() if key in SIZES and isinstance(value, int)}
    digest = said.files[WEIGHTS].sha256
    return Foreign(folder, said.method, stored.tensor, digest, sizes, said.base.name, said.base.hash, proven=True)


def _refuse_pickles(folder: Path) -> None:
    if not folder.is_dir():
        raise ArtifactError(f"{sanitized(str(folder))} is not a folder, so not an adapter")
    names = {path.name for path in folder.iterdir()}
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if CONFIG not in names and inside:
        raise ArtifactError(
            f"{folder} holds {len(inside)} adapter{'s' * (len(inside) > 1)} in folders of their own"
            f" ({sanitized(', '.join(inside[:8]))}); name one, such as {folder / sanitized(inside[0])}"
        )
    pickles = sorted(name for name in names if Path(name).suffix.lower() in PICKLES)
    if WEIGHTS not in names and pickles:
        raise ArtifactError(
            f"{folder} has its weights in {sanitized(pickles[0])} and not in {WEIGHTS}. A pickle can run code when it"
            " is read, so it is never opened: where you trust it, load it with peft's PeftModel.from_pretrained"
            " and write it with save_pretrained(NEW_FOLDER, safe_serialization=True), then import that"
        )


def _refuse_others(path: Path, others: list[str]) -> None:
    """Refuse tensors beside the prompt, each kind by what it is."""
    held = f"{path} holds {sanitized(', '.join(others[:4]))}{f' and {len(others) - 4} more' * (len(others) > 4)}"
    parts = {part for name in others for part in name.split(".")}
    if any("lora_" in part or "ia3_" in part for part in parts):
        raise ArtifactError(f"{held}: these change the base's own layers; {PREFIXES_ALONE}")
    if parts & set(_HEADS):
        raise ArtifactError(
            f"{held}: a classification head is no prefix; train it as CAUSAL_LM, where the answer is a word of the text"
        )
    if parts & set(_EMBEDDINGS):
        raise ArtifactError(f"{held}, {altered('an embedding of its own')}")
    if any("encoder" in part or "mlp_head" in part or "prompt_task" in part for part in parts):
        raise ArtifactError(f"{held}: the prompt is made by an encoder that is no part of the base; {PREFIXES_ALONE}")
    if any(name.startswith("base_model.") for name in others):
        raise ArtifactError(f"{held}, {altered('weights of its own')}")


def _tensor(path: Path, raw: bytes) -> Floats:
    """The one tensor as float32, which holds every value of the shorter types exactly."""
    header = int.from_bytes(raw[:8], "little")
    if header > MAX_HEADER:
        raise ArtifactError(f"{path} announces a header of {header} bytes, at most {MAX_HEADER} can be right; {REMEDY}")
    try:
        tensors = dict(deserialize(raw))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ArtifactError(f"{path} is not a safetensors file: {sanitized(str(error))}; {REMEDY}") from error
    if set(tensors) - {TENSOR}:
        _refuse_others(path, sorted(set(tensors) - {TENSOR}))
    if set(tensors) != {TENSOR}:
        raise ArtifactError(
            f"{path} holds {sanitized(str(sorted(tensors)))}, an adapter has {TENSOR!r} alone; {REMEDY}"
        )
    entry = tensors[TENSOR]
    dtype, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if len(shape) != 2:
        raise ArtifactError(f"{path}: {TENSOR} is {sanitized(str(shape))}, it must have two dimensions; {REMEDY}")
    if dtype == "BF16":  # numpy has no such type: it is the upper half of a float32
        found = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F16", "F32"):
        found = np.frombuffer(data, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)
    else:
        raise ArtifactError(f"{path}: {TENSOR} is {dtype}, it must be F32, F16 or BF16; {REMEDY}")
    wrong = int(found.size - np.count_nonzero(np.isfinite(found)))
    if wrong:
        raise ArtifactError(f"{path}: {wrong} of {found.size} values of {TENSOR} are not finite; train it again")
    return found.reshape(shape)


def _hash_of(base: str) -> str:
    """The hash of the base that a folder on this machine holds; empty for a name of some hub."""
    if not base:
        return ""
    try:
        folder = Path(base)
        if not all((folder / name).is_file() for name in ("config.json", "tokenizer.json")):
            return ""
        return hash_base(folder).value
    except (BaseError, OSError, ValueError, RecursionError):  # no base, or no path at all
        return ""
