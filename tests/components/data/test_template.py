"""One wording everywhere: what is cut, what is asked and what counts as an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from components.base.tokenizer import read_tokenizer
from components.data.template import Template, ids_of, truncate, truncate_all
from components.errors import BaseError, DataError

SENTENCES = ["a fine film about a dull man", "a dull film, positively so", "positive negative neutral", "café 10%"]


def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    return tokenizer


TOKENIZER = byte_level_tokenizer()
TOKENIZER.encode_special_tokens = True
REVIEWS = Template("Review: {text}\nSentiment:", {"pos": "positive", "neg": "negative"}, max_tokens=8)


@given(st.text(), st.integers(1, 12))
def test_a_truncated_text_is_a_start_of_the_text_and_truncating_it_again_changes_nothing(text: str, limit: int) -> None:
    cut, was_cut = truncate(TOKENIZER, text, limit)
    assert text.strip().startswith(cut)
    assert was_cut == (cut != text.strip())
    assert len(ids_of(TOKENIZER, cut)) <= limit
    assert truncate(TOKENIZER, cut, limit) == (cut, False)


@given(st.lists(st.text() | st.text("aé 😀\u0301\n", max_size=60), max_size=12), st.integers(1, 12))
def test_many_texts_at_once_are_cut_as_each_alone(texts: list[str], limit: int) -> None:
    alone = [truncate(TOKENIZER, text, limit) for text in texts]
    assert truncate_all(TOKENIZER, texts, limit) == [(cut, was, len(ids_of(TOKENIZER, cut))) for cut, was in alone]


def test_the_first_tokens_are_kept_and_no_fewer() -> None:
    whole = " ".join(SENTENCES)
    cut, was_cut = truncate(TOKENIZER, whole, 6)
    assert was_cut
    assert ids_of(TOKENIZER, cut) == ids_of(TOKENIZER, whole)[:6]


def test_a_character_of_several_tokens_is_never_cut_in_two() -> None:
    assert len(ids_of(TOKENIZER, "日本")) == 6
    assert truncate(TOKENIZER, "日本", 4) == ("日", True)
    assert truncate(TOKENIZER, "日本", 2) == ("", True)


@given(st.text())
def test_a_prepared_text_and_the_raw_text_give_the_same_ids(text: str) -> None:
    prepared, _ = truncate(TOKENIZER, text, REVIEWS.max_tokens)
    assert REVIEWS.input_ids(TOKENIZER, prepared) == REVIEWS.input_ids(TOKENIZER, text)


def test_the_template_surrounds_the_text_and_braces_in_the_text_stay_text() -> None:
    assert TOKENIZER.decode(REVIEWS.input_ids(TOKENIZER, " a {text} ")) == "Review: a {text}\nSentiment:"


def test_answers_start_with_a_space_and_a_generated_one_ends_with_the_end_token() -> None:
    assert TOKENIZER.decode(REVIEWS.target_ids(TOKENIZER, "pos")) == " positive"
    free = Template("{text}\n", None, max_tokens=8)
    assert free.target_ids(TOKENIZER, "a film", eos=0) == [*ids_of(TOKENIZER, " a film"), 0]
    assert free.label_ids(TOKENIZER) == {}


def test_a_target_outside_the_labels_and_a_missing_end_token_are_refused() -> None:
    with pytest.raises(DataError, match=r"'positive' is none of the labels \['neg', 'pos'\]"):
        REVIEWS.target_ids(TOKENIZER, "positive")
    with pytest.raises(DataError, match="needs an end token"):
        Template("{text}", None, max_tokens=8).target_ids(TOKENIZER, "a film")


def test_label_ids_keep_the_order_of_the_labels() -> None:
    found = REVIEWS.label_ids(TOKENIZER)
    assert list(found) == ["pos", "neg"]
    assert found["neg"] == ids_of(TOKENIZER, " negative")


@pytest.mark.parametrize("words", [("good", "good film"), ("good film", "good"), ("good", "good")])
def test_a_label_that_begins_another_is_refused(words: tuple[str, str]) -> None:
    first, second = words
    with pytest.raises(DataError, match=r"1 pair of labels .*Write, for example, labels: {a: .*, b: .*}"):
        Template("{text}", {"a": first, "b": second}, max_tokens=8).label_ids(TOKENIZER)


def test_a_tokenizer_is_read_without_its_own_truncation_and_control_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=64)
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))

    ids = ids_of(read_tokenizer(file), "a fine film <|end|>")
    assert TOKENIZER.decode(ids) == "a fine film <|end|>"
    assert TOKENIZER.token_to_id("<|end|>") not in ids


def test_an_absent_and_a_broken_tokenizer_are_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="does not exist; run `preface prepare`"):
        read_tokenizer(tmp_path / "tokenizer.json")
    broken = tmp_path / "tokenizer.json"
    broken.write_text(json.dumps({"version": "1.0"}), encoding="utf-8")
    with pytest.raises(BaseError, match=r"is not a tokenizer: .*run `preface prepare`"):
        read_tokenizer(broken)
