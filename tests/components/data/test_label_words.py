"""All labels whose words clash are told at once, with words that do not."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.data import label_words
from components.data.template import Template
from components.errors import DataError
from tests.components.data.test_template import byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
INTENTS = ("insurance", "insurance_change", "credit_limit", "credit_limit_change", "pto", "pto_status", "order")


def _told(words: dict[str, str]) -> str:
    with pytest.raises(DataError) as caught:
        Template("{text}\nIntent:", words, 64).label_ids(TOKENIZER)
    return str(caught.value)


def _written(message: str) -> dict[str, str]:
    return dict(yaml.safe_load(message.partition("labels: ")[2]))


def test_every_pair_is_told_and_the_line_to_write_is_taken() -> None:
    message = _told({name: name for name in INTENTS})
    for pair in ("insurance", "credit_limit", "pto"):
        assert f"'{pair}' and '{pair}_" in message
    assert message.startswith("3 pairs of labels")
    written = _written(message)
    assert list(written) == list(INTENTS)
    assert Template("{text}\nIntent:", written, 64).label_ids(TOKENIZER)


def test_a_hundred_and_fifty_clashing_labels_make_a_bounded_message() -> None:
    message = _told({name: name for name in ("order", *(f"order_{n}" for n in range(149)))})
    assert len(message) < 12_000
    assert "more. " in message


@pytest.mark.parametrize("words", [("a", "a"), ("yes", "yes sir", "yes sir please"), ("1", "1 2"), ("<50K", "<50K!")])
def test_words_to_write_are_found_for_words_of_any_kind(words: tuple[str, ...]) -> None:
    written = _written(_told({f"l{n}": word for n, word in enumerate(words)}))
    assert Template("{text}\nIntent:", written, 64).label_ids(TOKENIZER)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), st.text("12", max_size=4), max_size=8))
def test_clashes_are_the_pairs_of_which_one_begins_the_other(words: dict[str, str]) -> None:
    ids = {label: list(map(int, word)) for label, word in words.items() if word}
    found = {frozenset(pair) for pair in label_words.clashes(ids)}
    labels = list(ids)
    assert found == {
        frozenset((a, b))
        for at, a in enumerate(labels)
        for b in labels[at + 1 :]
        if ids[a][: len(ids[b])] == ids[b] or ids[b][: len(ids[a])] == ids[a]
    }
