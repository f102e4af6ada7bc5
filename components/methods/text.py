"""Prefixes that nobody trained: an instruction (hard prompt) and solved examples (in-context learning).

Their keys and values are computed once and serve every row, as a trained adapter's do. Also the token ids of an
instruction, from which the trained methods start.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice

from components.base_model import Base
from components.kv_prefix import KVPrefix
from components.template import Template, ids_of


def text_ids(base: Base, text: str) -> list[int]:
    """Ids of a text that opens the sequence: behind the begin token where the base's tokenizer puts one."""
    # Asked of a letter, since of nothing some tokenizers make an end token, which may be the begin token too.
    begin = [token for token in base.tokenizer("a").input_ids[:1] if token == base.tokenizer.bos_token_id]
    return [*begin, *ids_of(base.words, text)]


def repeated_ids(base: Base, text: str, length: int) -> list[int]:
    """Exactly ``length`` ids of a text, repeated from its start or cut (as PEFT's text initialisation does)."""
    return list(islice(cycle(text_ids(base, text)), length))


def hard_prompt(base: Base, text: str) -> KVPrefix:
    """The keys and values of a written instruction."""
    return KVPrefix.from_tokens(base, text_ids(base, text))


def in_context_ids(base: Base, template: Template, instruction: str, solved: Iterable[tuple[str, str]]) -> list[int]:
    """Ids of an instruction and of (text, target) pairs, each filled into the task's template."""
    ids = text_ids(base, f"{instruction}\n")
    gap = ids_of(base.words, "\n\n")
    for text, target in solved:
        answer = template.target_ids(base.words, target, eos=base.tokenizer.eos_token_id)
        ids += [*template.input_ids(base.words, text), *answer, *gap]
    return ids
