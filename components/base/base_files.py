"""What a source of a base gave, looked at before it is hashed or loaded: is everything there, and is it what it says?

Every fault is told with what is missing in the SOURCE and how it is made, since making the folder again from the same
source would bring the same. It reads names, first bytes, JSON and the headers of safetensors; it loads no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.base.base_hash import tensors
from components.errors import BaseError, PrefaceError, UnsupportedBase, sanitized

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
LISTED = 8  # names in one message
_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_JSON = 200_000_000
# The embedding's tensor in the architectures that fit; where none is found, config.json's vocab_size is believed.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
# Tensors that only packed weights have, for checkpoints whose config.json does not say so.
_PACKED = (".qweight", ".absmax", ".quant_map", ".SCB", ".weight_packed", ".weight_scale", ".weight_scale_inv")
_PACKED_DTYPES = ("F8", "F4", "F6")
# How names of packed checkpoints end; without it they often name the model that they were made from.
_PACKED_NAMES = ("-bnb-4bit", "-bnb-8bit", "-4bit", "-8bit", "-GPTQ", "-AWQ", "-FP8", "-fp8", "-HQQ", "-int4", "-int8")


def gguf_of(folder: Path, source: str) -> Path | None:
    """The GGUF that a base is to be made from; None where the folder holds safetensors, which are the model itself.

    Raises:
        BaseError: several could be meant.
    """
    found = sorted(folder.glob("*.gguf"))
    if not found or (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        return None
    if len(found) == 1:
        return found[0]
    where = source.rstrip("/")
    if all("-of-" in file.stem for file in found):
        raise BaseError(
            f"{where} holds one GGUF in {len(found)} parts ({_listed(file.name for file in found)}), and only whole"
            " ones are read: merge them by `llama-gguf-split --merge FIRST-PART WHOLE.gguf` and name WHOLE.gguf"
        )
    raise BaseError(
        f"{where} holds {len(found)} GGUF files ({_listed(file.name for file in found)}); name one of them, such as"
        f" source: {where}/{found[0].name}"
    )


def check(folder: Path, source: str) -> None:
    """See that the folder holds a whole base that is not packed, and whose tokenizer gives no id without a row.

    Args:
        source: where its files came from, for the messages.

    Raises:
        BaseError: something is missing or is not what its name says.
        UnsupportedBase: its weights are quantised, or its tokenizer goes beyond the embedding.
    """
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        refuse_stand_in(file, source)
    if not (folder / CONFIG).is_file():
        raise BaseError(
            f"{source} holds no {CONFIG}, it holds {_names(folder)}; name a base of the hub's form ({CONFIG},"
            f" {WEIGHTS}, {TOKENIZER}), as AutoModelForCausalLM and AutoTokenizer write with save_pretrained(FOLDER)"
        )
    config = _json(folder / CONFIG, source)
    refuse_quantised(config, source)
    rows = _check_weights(folder, source, config)
    _check_tokenizer(folder, source)
    if rows is not None:
        refuse_ids_beyond(_ids(_json(folder / TOKENIZER, source)), rows, source)


def refuse_quantised(config: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration that says its weights are packed, whatever the method.

    Raises:
        UnsupportedBase: with the method, and the unpacked model to name.
    """
    said = config.get("quantization_config") or config.get("compression_config")
    text = config.get("text_config")
    if not said and isinstance(text, dict):
        said = text.get("quantization_config")
    if said:
        details = said if isinstance(said, dict) else {}
        bits = details.get("bits") or (4 if details.get("load_in_4bit") else 8 if details.get("load_in_8bit") else None)
        method = details.get("quant_method") or ("bitsandbytes" if bits else "a method that it does not name")
        _refuse_packed(source, f"quantised by {sanitized(str(method))}" + f" to {bits} bits" * bool(bits), config)


def refuse_ids_beyond(ids: Iterable[tuple[str, int]], rows: int, source: str) -> None:
    """Refuse a tokenizer that can give an id which the embedding of ``rows`` rows has none for.

    Args:
        ids: each token with its id.

    Raises:
        UnsupportedBase: with the token, its id and the number of rows.
    """
    beyond = sorted((number, token) for token, number in ids if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise UnsupportedBase(
            f"the tokenizer of {source} gives the id {number} for {sanitized(repr(token))} and its embedding has"
            f" {rows} rows (ids 0 to {rows - 1}); {len(set(beyond))} such token{'s' * (len(set(beyond)) > 1)}. Save"
            " the base after model.resize_token_embeddings(len(tokenizer)), or take them out of tokenizer.json,"
            " and name that"
        )


def _check_weights(folder: Path, source: str, config: Mapping[str, Any]) -> int | None:
    """The rows of the embedding; None where neither weights nor configuration say."""
    names = _weight_names(folder, source)
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking:
        raise BaseError(
            f"{source} lacks {len(lacking)} of the {len(names)} files that its {INDEX} names: {_listed(lacking)};"
            " download them too (`hf download MODEL`), or save the model again with save_pretrained(FOLDER)"
        )
    text = config.get("text_config")
    said = text.get("vocab_size") if isinstance(text, dict) and "vocab_size" in text else config.get("vocab_size")
    found = [said] if type(said) is int and said > 0 else []
    for name in names:
        try:
            for tensor in tensors(folder / name):
                if tensor.name.endswith(_PACKED) or tensor.dtype.startswith(_PACKED_DTYPES):
                    _refuse_packed(source, f"packed: {tensor.name} is {tensor.dtype}", config)
                if tensor.name.endswith(_EMBEDDINGS) and len(tensor.shape) == 2:
                    found.append(tensor.shape[0])
        except UnsupportedBase:
            raise
        except PrefaceError as error:
            raise BaseError(
                f"{source}: {name} is not a whole safetensors file ({_reason(error)}); download it again, or save the"
                " model again with save_pretrained(FOLDER)"
            ) from error
    return min(found, default=None)


def _weight_names(folder: Path, source: str) -> list[str]:
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / INDEX).is_file():
        raise BaseError(
            f"{source} holds no {WEIGHTS}, alone or with {INDEX}; it holds {_names(folder)}. Pickles"
            " (pytorch_model.bin) are never opened: where you trust them, write safetensors with"
            " AutoModelForCausalLM.from_pretrained(MODEL).save_pretrained(FOLDER), and the tokenizer likewise, and name"
            " FOLDER"
        )
    names = _json(folder / INDEX, source).get("weight_map")
    if not isinstance(names, dict) or not names or not all(map(_is_name, names.values())):
        raise BaseError(
            f"{source}: {INDEX} does not map tensors to files beside it; download it again, or save the model again"
            " with save_pretrained(FOLDER)"
        )
    return sorted(set(names.values()))


def _is_name(name: object) -> bool:
    """Whether it can be the name of a file that lies here."""
    return isinstance(name, str) and Path(name).name == name != "" and len(name.encode(errors="replace")) <= 255


def _check_tokenizer(folder: Path, source: str) -> None:
    if (folder / TOKENIZER).is_file():
        return
    others = [name for name in ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt") if (folder / name).exists()]
    said = f"only {_listed(others)}" if others else f"it holds {_names(folder)}"
    raise BaseError(
        f"{source} holds no {TOKENIZER}, {said}; make it once, with the libraries that its tokenizer needs, beside the"
        f' other files in a FOLDER of your own: python -c "from transformers import AutoTokenizer;'
        f" AutoTokenizer.from_pretrained('{_model(source)}').save_pretrained('FOLDER')\", then set source: FOLDER"
    )


def refuse_stand_in(file: Path, source: str) -> None:
    """A file that is none: what Git LFS leaves in a clone without it, a page of a web site, nothing at all."""
    with file.open("rb") as stream:
        start = stream.read(512)
    if start.startswith(_POINTER):
        size = next((line[5:] for line in start.decode("utf-8", "replace").splitlines() if line[:5] == "size "), "?")
        raise BaseError(
            f"{source}: {file.name} is a Git LFS pointer to {sanitized(size)} bytes, not the file itself; run `git lfs"
            " pull` there (or `hf download MODEL --local-dir FOLDER`), and the same command again"
        )
    needed = file.name in (CONFIG, WEIGHTS, INDEX, TOKENIZER) or file.suffix in (".safetensors", ".gguf")
    if needed and start.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise BaseError(f"{source}: {file.name} is a page of a web site, not the file itself; download it again")
    if needed and not start:
        raise BaseError(f"{source}: {file.name} is empty; download it again")


def _refuse_packed(source: str, how: str, config: Mapping[str, Any]) -> None:
    name = next((source.removesuffix(end) for end in _PACKED_NAMES if source.endswith(end)), "")
    before = config.get("_name_or_path")
    guess = name or (before if isinstance(before, str) and before and before != source else "")
    perhaps = f" (perhaps {sanitized(guess)})" if guess else ""
    raise UnsupportedBase(
        f"{source} is {how}; quantised bases are not supported: name the model in full precision that it was made"
        f" from{perhaps}"
    )


def _ids(tokenizer: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every token that a tokenizer.json names, with its id."""
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        yield from ((token, number) for token, number in vocab.items() if type(number) is int)
    elif isinstance(vocab, list):  # Unigram: [token, score] in the order of the ids
        yield from ((str(entry[0]), number) for number, entry in enumerate(vocab) if isinstance(entry, list) and entry)
    added = tokenizer.get("added_tokens")
    for entry in added if isinstance(added, list) else ():
        if isinstance(entry, dict) and type(entry.get("id")) is int:
            yield str(entry.get("content")), entry["id"]


def _json(file: Path, source: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_JSON:
            raise ValueError(f"it has {file.stat().st_size} bytes")
        value = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise BaseError(
            f"{source}: {file.name} is not JSON as a base has it ({sanitized(str(error))}); download it again, or"
            " save it again with save_pretrained(FOLDER)"
        ) from error
    return value


def _reason(error: PrefaceError) -> str:
    """What is in brackets in a message of base_hash, which says the rest in words of its own."""
    return str(error).partition("(")[2].rpartition(")")[0] or str(error)


def _model(source: str) -> str:
    """The model's name where a source says it, a folder else."""
    return source.removeprefix("hf://").partition("@")[0]


def _names(folder: Path) -> str:
    return _listed(sorted(path.name for path in folder.iterdir())) or "nothing"


def _listed(names: Iterable[str]) -> str:
    told_of = [sanitized(name) for name in names]
    more = f" and {len(told_of) - LISTED} more" if len(told_of) > LISTED else ""
    return ", ".join(told_of[:LISTED]) + more
