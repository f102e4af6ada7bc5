"""The base hash: what a base model is, by content. Three digests, so that a mismatch can say WHAT differs.

    weights     every tensor's name, dtype, shape and bytes, whatever files they are spread over
    config      the keys of config.json that change the function; stamps of version, place and precision left out
    tokenizer   vocabulary, merges, normalisation, special tokens and chat template; not padding and truncation

It reads the hub's folder form and imports neither torch nor transformers. It knows nothing of where a base comes from.
generation_config.json does not count: Preface decodes by its own rules.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import mmap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import BaseError, BaseMismatch
from components.io import atomic

# Keys of config.json that say who wrote it or in which precision it was held (each tensor says its own dtype).
_STAMPS = {"_name_or_path", "_model_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
# Keys of tokenizer_config.json that decide which ids a text gets; the rest is in tokenizer.json or is about padding.
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens", "extra_special_tokens")
_SPECIAL_SWITCHES = ("add_bos_token", "add_eos_token")
# A file changed within this many seconds could change again without a visible change of its time.
_CLOCK_GRAIN = 2.0
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class BaseHash:
    """The three digests of a base; ``value`` is the one that params.yaml pins and every adapter carries."""

    weights: str
    config: str
    tokenizer: str

    @property
    def value(self) -> str:
        return hashlib.sha256(f"{self.weights}\n{self.config}\n{self.tokenizer}\n".encode()).hexdigest()


def hash_base(folder: Path) -> BaseHash:
    """The hash of the base in ``folder``; its weights are read once and remembered until their files change.

    Raises:
        BaseError: a file is missing or is not what its name says.
    """
    config = _json(folder / "config.json")
    return BaseHash(
        weights=_weights_digest(folder),
        config=_digest_of({key: value for key, value in config.items() if key not in _STAMPS}),
        tokenizer=_tokenizer_digest(folder),
    )


def require(folder: Path, expected_hash: str) -> BaseHash:
    """The hash of the base in ``folder``, which must be ``expected_hash``.

    Raises:
        BaseMismatch: the base is another one.
        BaseError: there is none, or it cannot be read.
    """
    if not folder.is_dir():
        raise BaseError(
            f"no base model at {folder}; make it with `preface prepare`, or set PREFACE_BASES to where it is"
        )
    found = hash_base(folder)
    if found.value != expected_hash:
        raise BaseMismatch(
            f"the base model at {folder} has the hash {found.value}, expected {expected_hash} (its digests: weights "
            f"{found.weights}, config {found.config}, tokenizer {found.tokenizer}); make it anew with `preface prepare`"
        )
    return found


# --- weights ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes lie, and what they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


def _weights_digest(folder: Path) -> str:
    files = _weight_files(folder)
    states = {file.name: _state(file) for file in files}
    memory = folder.parent / f".{folder.name}.weights.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memory.read_text())
        if known["folder"] == str(folder.resolve()) and known["files"] == states:
            return str(known["sha256"])
    stored = sorted((tensor for file in files for tensor in tensors(file)), key=lambda tensor: tensor.name)
    for one, next_one in itertools.pairwise(stored):
        if one.name == next_one.name:
            raise BaseError(f"tensor {one.name} stands in {one.file} and in {next_one.file}; fetch the base anew")
    # hashlib lets other threads run, so this goes at the speed of all cores or of the disk.
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_bytes_digest, stored))
    value = _digest_of([[t.name, t.dtype, t.shape, d] for t, d in zip(stored, digests, strict=True)])
    if all(time.time() - file.stat().st_mtime > _CLOCK_GRAIN for file in files):
        with contextlib.suppress(OSError):  # a folder that may only be read is hashed each time
            known = {"folder": str(folder.resolve()), "files": states, "sha256": value}
            atomic.write_text(memory, json.dumps(known))
    return value


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: one safetensors file, or the shards that an index names."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise BaseError(f"{folder} holds no model.safetensors, alone or with an index; other formats are not read")
    names = _json(index).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise BaseError(f"{index} does not map tensors to files of its own folder; fetch the base anew")
    files = [folder / name for name in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BaseError(f"{folder} lacks {', '.join(missing)}, which its index names; fetch the base anew")
    return files


def _state(file: Path) -> list[int]:
    """What changes when the file does. The time of the last status change also catches a restored mtime."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def tensors(file: Path) -> Iterator[Tensor]:
    """The tensors of a safetensors file, from its header: 8 bytes of length, JSON, then raw bytes."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(size - 8, _MAX_HEADER):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            if not 8 + length <= begin <= end <= size:
                raise ValueError(f"tensor {name} lies at {begin} to {end} in a file of {size}")
            yield Tensor(name, str(entry["dtype"]), tuple(entry["shape"]), file, begin, end)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseError(f"{file} is not a whole safetensors file ({error}); fetch the base anew") from error


def _bytes_digest(tensor: Tensor) -> str:
    if tensor.begin == tensor.end:
        return hashlib.sha256().hexdigest()
    with (
        tensor.file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        memoryview(whole) as view,
        view[tensor.begin : tensor.end] as part,
    ):
        return hashlib.sha256(part).hexdigest()


# --- configuration and tokenizer --------------------------------------------------------------------------------------


def _tokenizer_digest(folder: Path) -> str:
    tokenizer = _json(folder / "tokenizer.json")
    tokenizer = {key: value for key, value in tokenizer.items() if key not in ("version", "padding", "truncation")}
    model = tokenizer.get("model")
    if isinstance(model, dict) and isinstance(model.get("merges"), list):
        # Two spellings of one merge: "a b" in files of older releases, ["a", "b"] in those of newer ones.
        merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        tokenizer = tokenizer | {"model": model | {"merges": merges}}
    settings = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    return _digest_of(
        {
            "tokenizer": tokenizer,
            "special": {key: _content(settings[key]) for key in _SPECIAL if settings.get(key)},
            "switches": {key: True for key in _SPECIAL_SWITCHES if settings.get(key)},
            "chat_template": _chat_template(folder, settings),
        }
    )


def _content(token: Any) -> Any:
    """A special token as text: it is written as itself or as a record of its content and flags."""
    if isinstance(token, list):
        return [_content(one) for one in token]
    return token["content"] if isinstance(token, dict) and "content" in token else token


def _chat_template(folder: Path, settings: dict[str, Any]) -> Any:
    beside = folder / "chat_template.jinja"
    return beside.read_text(encoding="utf-8") if beside.is_file() else settings.get("chat_template")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"{path} cannot be read ({error}); make the base anew with `preface prepare`") from error
    if not isinstance(value, dict):
        raise BaseError(
            f"{path} holds {type(value).__name__}, not an object; make the base anew with `preface prepare`"
        )
    return value


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
