"""A missing value is one in every format, words are words, and a label is met however a file spells it."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.values import ENCODE, answer_of, number_of, same_label, same_labels, text_of
from components.errors import DataError


@pytest.mark.parametrize("value", [None, "", " \n", " ", math.nan, Decimal("NaN")])
@pytest.mark.parametrize("labels", [None, {"nan": "nan", "None": "None"}])
def test_a_missing_value_is_no_answer_and_no_text(value: object, labels: Any) -> None:
    with pytest.raises(DataError, match=r"'summary' is (empty|NaN, a missing value)"):
        answer_of(value, "summary", labels, "utf-8")
    with pytest.raises(DataError, match=r"'summary' is (empty|NaN, a missing value)"):
        text_of(value, "summary", "utf-8")


@pytest.mark.parametrize("word", ["NA", "None", "null", "nan", "NaN", "n/a", "#N/A", "-nan", "<NA>", "NaT"])
def test_the_word_for_a_missing_value_is_a_word(word: str) -> None:
    assert answer_of(word, "region", None, "utf-8") == word
    assert answer_of(word, "region", {word: word, "EMEA": "EMEA"}, "utf-8") == word
    assert text_of(word, "answer", "utf-8") == word


@pytest.mark.parametrize(
    ("value", "labels", "label"),
    [
        (1, ["0", "1"], "1"),
        (1.0, ["0", "1"], "1"),  # pandas writes integers so, where one of them is missing
        ("1.0", ["0", "1"], "1"),
        (Decimal("1.00"), ["0", "1"], "1"),
        (1.0, ["1", "1.0"], "1.0"),
        (1, ["0.0", "1.0"], "1.0"),
        (True, ["true", "false"], "true"),
        (False, ["True", "False"], "False"),
        ("TRUE", ["true", "false"], "true"),
        (2**70, [str(2**70), "1"], str(2**70)),
        (" yes ", ["yes", "no"], "yes"),
        (unicodedata.normalize("NFD", "Négatif"), ["Négatif", "Positif"], "Négatif"),
        ("Négatif", [unicodedata.normalize("NFD", "Négatif"), "Positif"], unicodedata.normalize("NFD", "Négatif")),
        ("한국", [unicodedata.normalize("NFD", "한국"), "日本"], unicodedata.normalize("NFD", "한국")),
        ("\u212b", ["\u00c5", "Z"], "\u00c5"),  # the Ångström sign, and the letter
    ],
)
def test_a_label_is_met_however_it_is_spelt_and_keeps_the_spelling_of_params(
    value: object, labels: list[str], label: str
) -> None:
    assert answer_of(value, "label", dict(zip(labels, labels, strict=True)), "utf-8") == label


@pytest.mark.parametrize("value", [1.5, "01", "1.01", "１", True, "1,0", -1.0])
def test_another_number_is_another_label(value: object) -> None:
    with pytest.raises(DataError, match=r"label '.*' is none of \['0', '1'\]"):
        answer_of(value, "label", {"0": "a", "1": "b"}, "utf-8")


def test_a_spelling_that_two_labels_share_means_neither() -> None:
    assert same_label("1.00", ["1", "1.0"]) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.inf, "'label' is inf, not text"),
        (["a"], "'label' holds list, not text"),
        ({"a": 1}, "'label' holds dict, not text"),
        (b"a", "'label' holds bytes, not text"),
        (datetime(2026, 1, 1, tzinfo=UTC), "'label' holds datetime, not text"),
        ("half \ud800", f"'label' holds bytes that are not utf-8, or half a character; {ENCODE}"),
    ],
)
def test_what_is_no_answer_is_named(value: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        answer_of(value, "label", None, "utf-8")
    assert str(caught.value) == message


def test_a_label_that_is_none_is_told_short_printable_and_with_what_comes_near() -> None:
    with pytest.raises(DataError, match=r"'Good' is none of \['bad', 'good'\]; 'good' differs in letter case or white"):
        answer_of("Good", "label", {"bad": "bad", "good": "good"}, "utf-8")
    with pytest.raises(DataError) as caught:
        answer_of("\x1b[31m" + "x" * 100_000, "label", {str(n): str(n) for n in range(500)}, "utf-8")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_an_integer_too_long_to_write_is_named() -> None:
    with pytest.raises(DataError, match="'label' holds an integer of thousands of digits, not an answer"):
        answer_of(10**5000, "label", None, "utf-8")
    with pytest.raises(DataError, match="'score' is a list too large to show, not a number"):
        number_of([10**5000], "score")


@pytest.mark.parametrize(("value", "number"), [(10**400, math.inf), (-(10**400), -math.inf), ("2", 2.0)])
def test_a_number_beyond_every_float_still_lies_in_an_open_range(value: object, number: float) -> None:
    assert number_of(value, "score") == number


@pytest.mark.parametrize("value", [None, "", math.nan, "nan", [1], {}, "x" * 100_000, "\udce9", True, False])
def test_what_is_no_number_is_named_in_short(value: object) -> None:
    with pytest.raises(DataError, match=r"'score' is .*, not a number") as caught:
        number_of(value, "score")
    assert len(str(caught.value)) < 120


def test_labels_that_look_the_same_are_found() -> None:
    taken_apart = unicodedata.normalize("NFD", "Négatif")
    assert same_labels(["Positif", "Négatif", taken_apart]) == ("Négatif", taken_apart)
    assert same_labels(["Négatif", "Negatif"]) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(allow_nan=False),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
)


@given(ANYTHING, st.none() | st.lists(st.text(), min_size=2, max_size=4, unique=True))
def test_every_value_is_an_answer_or_a_fault_of_one_printable_line(value: object, labels: list[str] | None) -> None:
    try:
        found = answer_of(value, "label", labels and {label: label for label in labels}, "utf-8")
    except DataError as fault:
        said = str(fault)
    else:
        said = "fine"
        assert found.strip()
        assert labels is None or found in labels
    assert said.isprintable()
    assert len(said) < 1200
