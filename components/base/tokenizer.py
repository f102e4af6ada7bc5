"""A base's tokenizer as everything here reads it: out of its tokenizer.json, by the tokenizers library alone.

Knows no template and no task: what is made of a text's ids is said elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from components.errors import BaseError


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a materialised base, set to encode every text whole and as nothing but text.

    A tokenizer.json may carry truncation and padding, and reads `<|im_end|>` inside a text as the control token; a
    review that quotes one must not end its own prompt.

    Raises:
        BaseError: the file is absent or is no tokenizer.
    """
    if not file.is_file():
        raise BaseError(f"{file} does not exist; run `preface prepare` to materialise the base model")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise BaseError(f"{file} is not a tokenizer: {error}; delete its folder and run `preface prepare`") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
