"""A pinned base model: made into a folder, verified, loaded frozen.

    python -m components.stage base NAME      makes bases/NAME out of params.yaml (the DVC stage base@NAME)

What is not the pinned model is never loaded, and code that comes with a model is never run. This module does not know
what is done with the model, nor which adapters go with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base import base_files
from components.base.base_hash import BaseHash, hash_base, require
from components.base.base_support import KVShape, refuse_by_config, try_cache
from components.base.tokenizer import read_tokenizer
from components.config import params
from components.config.addresses import scheme_of
from components.config.params import BaseParams
from components.errors import BaseError, BaseMismatch, SourceError, UnsupportedBase, line_of
from components.io.folders import whole_folder
from components.sources import identity
from components.sources.byte_source import fetch
from components.sources.own_folders import local_path, overlap, refuse_sources

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a base is made of; weights in pickles and other runtimes' formats stay where they are.
WANTED = (
    "*.gguf",
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "LICENSE*",
)


@dataclass(frozen=True)
class Base:
    """A loaded base. The model is in evaluation mode and none of its parameters takes a gradient.

    ``words`` is the tokenizer alone, as the wording takes it; ``tokenizer`` is transformers' own around it.
    """

    name: str
    folder: Path
    hash: BaseHash
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    words: Tokenizer
    device: torch.device
    dtype: torch.dtype
    shape: KVShape


def bases_folder(root: Path) -> Path:
    """Where materialised bases are: PREFACE_BASES, or ``bases`` in the project's root."""
    return Path(os.environ.get("PREFACE_BASES") or root / "bases")


def find(bases: Path, wanted: str, name: str = "") -> Path | None:
    """The materialised base that has the hash ``wanted``, None if none has; that of the ``name`` is asked first."""
    for folder in sorted((path.parent for path in bases.glob("[!.]*/config.json")), key=lambda path: path.name != name):
        with contextlib.suppress(BaseError):
            if hash_base(folder).value == wanted:
                return folder
    return None


def materialise(name: str, base: BaseParams, to: Path, others: Path | None = None) -> BaseHash:
    """Make the base ``name`` into the folder ``to``, which is replaced; the same bytes every time.

    Args:
        others: a folder of bases; one in it that has the pinned hash is copied, and nothing is fetched.

    Raises:
        SourceError: its bytes cannot be had, or are not the pinned ones.
        BaseError: they are not a whole base.
        UnsupportedBase: Preface cannot use it.
        BaseMismatch: the model in them is not the pinned one.
    """
    if not scheme_of(base.source) and overlap(local_path(base.source, Path()), to):
        raise SourceError(
            f"bases.{name}.source {base.source} and {to}, which is replaced by the base made of it, lie in one another;"
            " move your own files into another folder and name that as the source"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as room, whole_folder(to) as new:
        fetched = Path(room) / "fetched"
        if others and (there := find(others, base.hash, name)):
            shutil.copytree(there, fetched)
        else:
            fetch(base.source, fetched, base.sha256, only=WANTED)
        packed = base_files.gguf_of(fetched, base.source)
        if packed:
            from components.base.gguf_base import convert

            base_files.refuse_stand_in(packed, base.source)
            convert(packed, new)
        else:
            for file in sorted(fetched.iterdir()):
                if file.suffix != ".gguf":
                    shutil.move(file, new / file.name)
        base_files.check(new, base.source)
        refuse_by_config(_config(new))
        found = hash_base(new)
        if found.value != base.hash:
            raise BaseMismatch(
                f"{base.source} holds a base of hash {found.value}, bases.{name}.hash in params.yaml says {base.hash} "
                f"(its digests: weights {found.weights}, config {found.config}, tokenizer {found.tokenizer}); "
                "if it is the model that you mean, write its hash there"
            )
    return found


def load(
    folder: Path, expected_hash: str, name: str = "", device: str | None = None, dtype: torch.dtype | None = None
) -> Base:
    """Load the base in ``folder`` after its content was compared with ``expected_hash``.

    Args:
        folder: A materialised base.
        expected_hash: The pin, or what an adapter carries.
        name: Its name in params.yaml; the folder's name if not given.
        device: cuda if there is one and nothing is said, otherwise cpu.
        dtype: What the device is fast at if nothing is said.

    Raises:
        BaseMismatch: the folder holds another base.
        UnsupportedBase: its architecture does not fit.
        BaseError: there is no base, or it cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = require(folder, expected_hash)
    config = _config(folder)
    base_files.refuse_quantised(config.to_dict(), str(folder))
    refuse_by_config(config)
    place = torch.device(device) if device else pick_device()
    precision = dtype or pick_dtype(place)[0]
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=precision,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseError(f"{folder} cannot be loaded: {line_of(error)}") from error
    model, report = loaded
    # transformers fills a gap with random numbers and goes on.
    gaps = sorted(report["missing_keys"])
    if gaps:
        raise BaseError(
            f"{folder} lacks {len(gaps)} tensors of its architecture, the first is {gaps[0]}; fetch it anew"
        )
    words = read_tokenizer(folder / "tokenizer.json")
    rows = len(model.get_input_embeddings().get_parameter("weight"))
    base_files.refuse_ids_beyond(words.get_vocab(with_added_tokens=True).items(), rows, str(folder))
    model = model.to(place).eval().requires_grad_(False)
    return Base(
        name=name or folder.name,
        folder=folder,
        hash=found,
        model=model,
        tokenizer=tokenizer,
        words=words,
        device=place,
        dtype=precision,
        shape=try_cache(model),
    )


def pick_device() -> torch.device:
    """cuda where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype that ``device`` multiplies matrices fastest in, of those that train well, and why."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        fast, why = major >= 8, f"compute capability {major}.{minor}"
    else:
        able = torch.cpu.get_capabilities()
        units = [unit for unit in ("amx_bf16", "avx512_bf16") if able.get(unit)]
        fast, why = bool(units), f"the CPU has {' and '.join(units)}" if units else "the CPU has no bfloat16 units"
    return (torch.bfloat16 if fast else torch.float32), why


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedBase(f"transformers cannot read {folder / 'config.json'}: {line_of(error)}") from error


def run_stage(name: str) -> None:
    """The DVC stage base@NAME, run in the project's root."""
    declared = params.load(Path("params.yaml"))
    base = declared.bases[declared.base(name)]
    refuse_sources(declared, Path(), bases=[name])
    identity.require(identity.FOLDER / "bases" / f"{name}.json", identity.pins(base), "preface prepare")
    materialise(name, base, Path("bases") / name, others=bases_folder(Path()))
