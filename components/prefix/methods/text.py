"""Prefixes that nobody trained: an instruction (hard prompt) and solved examples (in-context learning).

Their keys and values are computed once and serve every row, as a trained adapter's do. Also the token ids that the
trained methods start from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice, zip_longest

import torch

from components.base.base_model import Base
from components.config.params import TaskParams
from components.data.prepare import Example
from components.data.template import Template, following_ids, ids_of
from components.errors import ParamsError
from components.prefix.kv_prefix import KVPrefix

# Lester et al. sample from the 5,000 most common tokens; byte-pair merges stand in order of frequency.
COMMON_TOKENS = 5000


def text_ids(base: Base, text: str) -> list[int]:
    """Ids of a text that opens the sequence: behind the begin token where the base's tokenizer puts one."""
    return [*begin_ids(base), *ids_of(base.words, text)]


def begin_ids(base: Base) -> list[int]:
    """The token that the base's tokenizer puts in front of a text, if it puts one."""
    # Asked of a letter, since of nothing some tokenizers make an end token, which may be the begin token too.
    return [token for token in base.tokenizer("a").input_ids[:1] if token == base.tokenizer.bos_token_id]


def repeated_ids(base: Base, text: str, length: int) -> list[int]:
    """Exactly ``length`` ids of a text, repeated from its start or cut (as PEFT's text initialisation does)."""
    return list(islice(cycle(text_ids(base, text)), length))


def sampled_ids(base: Base, length: int, generator: torch.Generator) -> list[int]:
    """So many ids of the base's common tokens, drawn at random."""
    vocabulary = len(base.model.get_input_embeddings().get_parameter("weight"))
    drawn: list[int] = torch.randint(min(COMMON_TOKENS, vocabulary), (length,), generator=generator).tolist()
    return drawn


def label_ids(base: Base, task: TaskParams) -> list[list[int]]:
    """Ids of each label's word, as it stands behind a text; none where the task has no labels."""
    template = Template.of(task)
    return [template.target_ids(base.words, label) for label in task.data.labels or {}]


def start_ids(base: Base, task: TaskParams, init: str, length: int, solved: Iterable[tuple[str, str]]) -> list[int]:
    """Exactly ``length`` ids of what a method begins from: the task text, or solved examples of the task.

    Of examples there are as many as it takes; the first is cut where they are too long, so that the last stands whole
    right before the text, as in in-context learning.

    Raises:
        ParamsError: all examples together are shorter.
    """
    if init == "text":
        return repeated_ids(base, task.instruction, length)
    template = Template.of(task)
    chosen: list[tuple[str, str]] = []
    ids: list[int] = []
    for pair in solved:
        chosen.append(pair)
        ids = in_context_ids(base, template, task.instruction, chosen)
        if len(ids) >= length:
            begin = begin_ids(base)
            return [*begin, *ids[len(ids) - length + len(begin) :]]
    raise ParamsError(
        f"init is examples, and the {len(chosen)} training rows make {len(ids)} tokens; virtual_tokens is {length}: "
        "lower it"
    )


def hard_prompt(base: Base, text: str) -> KVPrefix:
    """The keys and values of a written instruction."""
    return KVPrefix.from_tokens(base, text_ids(base, text))


def in_turns(rows: Sequence[Example], labelled: bool) -> list[tuple[str, str]]:
    """Texts and targets as solved examples are taken from rows: where there are labels, of each in turn."""
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(row.target if labelled else "", []).append(row)
    turns = zip_longest(*(groups[label] for label in sorted(groups)))
    return [(row.text, row.target) for turn in turns for row in turn if row is not None]


def in_context_ids(base: Base, template: Template, instruction: str, solved: Iterable[tuple[str, str]]) -> list[int]:
    """Ids of an instruction and of (text, target) pairs, each filled into the task's template."""
    ids = text_ids(base, f"{instruction}\n")
    gap = following_ids(base.words, "a", "\n\n")
    for text, target in solved:
        answer = template.target_ids(base.words, target, eos=base.tokenizer.eos_token_id)
        ids += [*template.input_ids(base.words, text), *answer, *gap]
    return ids
