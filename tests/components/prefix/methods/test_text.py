"""Prefixes of written text: the ids that open a sequence, with a begin token where the base has one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.data.template import Template, ids_of
from components.errors import ParamsError
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import build
from components.prefix.methods.text import hard_prompt, in_context_ids, repeated_ids, text_ids

MakeBase = Callable[[str], Base]
TEMPLATE = Template("Review: {text}\nSentiment:", {"good": "positive", "bad": "negative"}, max_tokens=16)
FREE = Template("Abstract: {text}\nOutcome:", None, max_tokens=16)
SOLVED = [("a funny film", "good"), ("dull", "bad")]


def test_a_text_is_its_ids_where_the_tokenizer_adds_nothing(base: Base) -> None:
    ids = text_ids(base, "Decide.\n")
    assert ids == base.words.encode("Decide.\n").ids
    assert base.words.decode(ids) == "Decide.\n"


@pytest.mark.parametrize(
    ("wrapped", "begins"), [("<|end|> $A", True), ("<|end|> $A <|end|>", True), ("$A <|end|>", False), ("$A", False)]
)
def test_a_begin_token_opens_the_sequence_once_where_the_tokenizer_puts_one(
    adding: MakeBase, wrapped: str, begins: bool
) -> None:
    """Also where the begin token is the end token, which some tokenizers put behind a text."""
    base = adding(wrapped)
    bare = ids_of(base.words, "Decide.\n")
    assert 0 not in bare
    assert text_ids(base, "Decide.\n") == [0] * begins + bare
    ids = in_context_ids(base, TEMPLATE, "Decide.", SOLVED)
    assert [place for place, token in enumerate(ids) if token == 0] == [0] * begins
    assert torch.equal(hard_prompt(base, "Decide.").keys, KVPrefix.from_tokens(base, text_ids(base, "Decide.")).keys)


def test_repeated_ids_start_over_with_the_begin_token(adding: MakeBase) -> None:
    """As PEFT repeats a text for its own initialisation."""
    base = adding("<|end|> $A")
    once = text_ids(base, "Decide.")
    assert repeated_ids(base, "Decide.", 2 * len(once) + 1) == [*once, *once, 0]


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_more_virtual_tokens_than_the_base_reads_are_refused_before_any_is_made(
    plain: Base, task: Callable[..., TaskParams], method: MethodName
) -> None:
    with pytest.raises(ParamsError, match=rf"{method}\.virtual_tokens is 10{{15}}, .* reads {plain.shape.context}"):
        build(plain, task(**{method: {"virtual_tokens": 10**15}}), method)


@pytest.fixture(scope="module")
def plain(adding: MakeBase) -> Base:
    return adding("$A")


@given(length=st.integers(1, 60))
def test_repeated_ids_are_as_many_as_asked_for(plain: Base, length: int) -> None:
    once = text_ids(plain, "Say good or bad.")
    ids = repeated_ids(plain, "Say good or bad.", length)
    assert len(ids) == length
    assert all(token == once[place % len(once)] for place, token in enumerate(ids))


def test_solved_examples_read_as_the_task_words_them(base: Base) -> None:
    ids = in_context_ids(base, TEMPLATE, "Decide.", SOLVED)
    assert base.words.decode(ids) == (
        "Decide.\nReview: a funny film\nSentiment: positive\n\nReview: dull\nSentiment: negative\n\n"
    )


def test_a_solved_generation_ends_as_the_model_is_to_end_it(base: Base) -> None:
    ids = in_context_ids(base, FREE, "Sum up.", [("we present", "it works")])
    end = base.tokenizer.eos_token_id
    assert base.words.decode(ids, skip_special_tokens=False) == (
        "Sum up.\nAbstract: we present\nOutcome: it works<|end|>\n\n"
    )
    assert ids.count(end) == 1


def test_a_control_token_inside_an_instruction_is_text(base: Base) -> None:
    assert base.tokenizer.eos_token_id not in text_ids(base, "never say <|end|>")
