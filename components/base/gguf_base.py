"""A GGUF file made into a folder of the hub's form: config.json, model.safetensors in bfloat16, tokenizer files.

The same file gives the same bytes. It does not know where the file came from, nor what hash the result should have.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UnsupportedBase, line_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Written by transformers into the folder from which it was read; they say nothing about the model.
_TOKENIZER_STAMPS = ("is_local", "local_files_only", "name_or_path")


def convert(file: Path, to: Path) -> None:
    """Write the model of a GGUF ``file`` into the empty folder ``to``.

    Raises:
        UnsupportedBase: transformers cannot read this architecture or tokenizer out of a GGUF.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, LookupError, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        raise UnsupportedBase(f"transformers cannot read {file.name}: {line_of(error)}") from error
    # transformers refuses to save what it read from a GGUF: a fresh model of the same configuration takes the weights.
    config = read.config
    del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    fresh.load_state_dict(read.state_dict())
    fresh.save_pretrained(to)
    _split_as_trained(tokenizer.backend_tokenizer, file)
    tokenizer.save_pretrained(to)
    settings = json.loads((to / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in settings.items() if key not in _TOKENIZER_STAMPS}
    (to / "tokenizer_config.json").write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _split_as_trained(tokenizer: Tokenizer, file: Path) -> None:
    """SmolLM's tokenizer takes digits one by one; transformers 5.23 drops that rule when it reads a GGUF.

    Without it two spaces before a number become other tokens than those that the model was trained on.
    """
    from tokenizers import pre_tokenizers

    if _metadata(file, "tokenizer.ggml.pre") == "smollm":
        digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])


def _metadata(file: Path, key: str) -> Any:
    from gguf import GGUFReader

    field = GGUFReader(file).get_field(key)
    return None if field is None else field.contents()
