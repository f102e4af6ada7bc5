"""Which rows become examples, and that one text never lands in two splits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from components.config.params import SPLITS, DataParams, Split, SplitParams
from components.config.values import ENCODE
from components.data.examples import Example, id_of, made, normalise, split_of_id
from components.data.selection import kept as selected
from components.data.tally import REASONS, Dropped, Tally
from components.rows.reader import Row

TOKENIZER = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
TOKENIZER.pre_tokenizer = pre_tokenizers.Whitespace()  # a token is a word or a run of punctuation


def data(**settings: Any) -> DataParams:
    return DataParams.model_validate({"source": "rows", "format": "csv", "labels": ["neg", "pos"]} | settings)


def rows(*pairs: tuple[object, object]) -> list[Row]:
    return [Row(f"a.csv:{line}", text, target) for line, (text, target) in enumerate(pairs, start=2)]


def examples(
    rows: Iterable[Row], data: DataParams, tokenizer: Tokenizer, parts: int = 3
) -> tuple[dict[Split, list[Example]], Any]:
    """Examples by split, and every dropped row by its reason."""
    tally = Tally(dropped={why: Dropped(named=10**6) for why in REASONS})
    splits: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    with tempfile.TemporaryDirectory() as room:
        for one in selected(made(rows, data, tokenizer, tally), data, tally, Path(room), parts):
            splits[one.split].append(one.example)
    dropped = {why: found.first for why, found in tally.dropped.items()}
    assert {why: found.rows for why, found in tally.dropped.items()} == {why: len(f) for why, f in dropped.items()}
    return splits, SimpleNamespace(read=tally.read, truncated=tally.truncated, dropped=dropped)


def kept(splits: dict[Split, list[Example]]) -> list[tuple[str, str]]:
    return sorted((example.text, example.target) for found in splits.values() for example in found)


def only(row: Row, **settings: Any) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    splits, tally = examples([row], data(**settings), TOKENIZER)
    return kept(splits), {why: where for why, where in tally.dropped.items() if where}


PAIRS = st.lists(st.tuples(st.text("abAB \n", max_size=6), st.sampled_from(["neg", "pos"])), max_size=30)


@given(PAIRS, st.integers(1, 3))
def test_no_text_lands_in_two_splits_and_every_row_is_accounted_for(pairs: list[Any], max_tokens: int) -> None:
    splits, tally = examples(rows(*pairs), data(max_tokens=max_tokens), TOKENIZER)
    texts = [normalise(example.text) for found in splits.values() for example in found]
    assert len(texts) == len(set(texts))
    assert len(texts) + sum(map(len, tally.dropped.values())) == tally.read == len(pairs)


@given(PAIRS, PAIRS)
def test_adding_rows_moves_none(before: list[Any], added: list[Any]) -> None:
    place = {e.id: s for s, found in examples(rows(*before), data(), TOKENIZER)[0].items() for e in found}
    later = {e.id: s for s, found in examples(rows(*before, *added), data(), TOKENIZER)[0].items() for e in found}
    assert all(later[id_] == place[id_] for id_ in place.keys() & later.keys())


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_count(pairs: list[Any], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    limited = data(limit={"train": 2, "validation": 1, "test": 1})
    of = [examples(rows(*order), limited, TOKENIZER)[0] for order in (pairs, shuffled)]
    assert [[e.id for e in of[0][split]] for split in SPLITS] == [[e.id for e in of[1][split]] for split in SPLITS]


@given(PAIRS, st.integers(1, 3), st.integers(2, 40))
def test_into_how_many_files_the_rows_are_spilled_does_not_count(pairs: list[Any], max_tokens: int, parts: int) -> None:
    limited = data(max_tokens=max_tokens, limit={"train": 2})
    one, many = (examples(rows(*pairs), limited, TOKENIZER, count) for count in (1, parts))
    assert one == many


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("same", ["a  Fine\nfilm ", "A FINE FILM", "ａ fine ﬁlm"])
def test_case_white_space_and_compatibility_forms_do_not_make_another_text(same: str) -> None:
    assert id_of(same) == id_of("a fine film")


def test_the_split_of_a_text_never_changes() -> None:
    # Pinned: another hash would let rows that adapters were trained on into the test split.
    assert (id_of("a fine film"), split_of_id(id_of("a fine film"), SplitParams())) == (
        "bac6d0ff1e0a93ed",
        "validation",
    )


def test_shares_are_kept_and_a_larger_training_share_takes_rows_only_from_the_others() -> None:
    texts = [f"text {n}" for n in range(4000)]
    wide = SplitParams(train=0.8, validation=0.1, test=0.1)
    counts = [[split_of_id(id_of(text), shares) for text in texts] for shares in (SplitParams(), wide)]
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert counts[0].count(split) / 4000 == pytest.approx(share, abs=0.03)
    assert all(after == "train" for before, after in zip(*counts, strict=True) if before == "train")


def test_texts_that_only_differ_behind_the_cut_are_one_text() -> None:
    splits, tally = examples(rows(("one two three", "pos"), ("One two four", "pos")), data(max_tokens=2), TOKENIZER)
    assert kept(splits) == [("one two", "pos")]
    assert tally.dropped["duplicate"] == ["a.csv:3"]
    assert tally.truncated == 2


def test_the_split_follows_from_the_whole_text_whatever_the_tokenizer_leaves_of_it() -> None:
    (short,) = (
        e for found in examples(rows(("a b c", "pos")), data(max_tokens=1), TOKENIZER)[0].values() for e in found
    )
    assert (short.text, short.id) == ("a", id_of("a b c"))


def test_one_text_with_two_targets_is_dropped_altogether() -> None:
    splits, tally = examples(rows(("a film", "pos"), ("b", "neg"), ("A film", "neg")), data(), TOKENIZER)
    assert kept(splits) == [("b", "neg")]
    assert tally.dropped["conflicting"] == ["a.csv:2", "a.csv:4"]


def test_a_limit_keeps_its_number_and_says_which_rows_it_left_out() -> None:
    everything = rows(*((f"text {n}", "pos") for n in range(60)))
    free, _ = examples(everything, data(), TOKENIZER)
    limited, tally = examples(everything, data(limit={"train": 5}), TOKENIZER)
    assert len(limited["train"]) == 5
    assert set(limited["train"]) < set(free["train"])
    assert limited["test"] == free["test"]
    assert len(tally.dropped["over_limit"]) == len(free["train"]) - 5


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (Row("a:1", "", "pos"), "'text' is empty"),
        (Row("a:1", " \n\u00a0", "pos"), "'text' is empty"),
        (Row("a:1", None, "pos"), "'text' is empty"),
        (Row("a:1", 3, "pos"), "'text' holds int, not text"),
        (Row("a:1", "caf\udce9", "pos"), f"'text' holds bytes that are not utf-8, or half a character; {ENCODE}"),
        (Row("a:1", "fine", ""), "'target' is empty"),
        (Row("a:1", "fine", "good"), "label 'good' is none of ['neg', 'pos']"),
        (Row("a:1", "fine", ["pos"]), "'target' holds list, not text"),
        (Row("a:1", fault="not JSON"), "not JSON"),
    ],
)
def test_bad_rows_are_named_with_their_fault(row: Row, fault: str) -> None:
    assert only(row) == ([], {"bad": [f"a:1: {fault}"]})


def test_numbers_are_labels_too() -> None:
    assert only(Row("a:1", "fine", 1), labels={"0": "bad", "1": "good"}) == ([("fine", "1")], {})


@pytest.mark.parametrize(
    ("number", "label"), [("0.5", "pos"), (0.49, None), (-0.5, "neg"), ("-inf", "neg"), (7, "pos"), ("-0.4", None)]
)
def test_ranges_turn_numbers_into_labels_and_drop_what_lies_between(number: object, label: str | None) -> None:
    ranges = {"neg": [None, -0.5], "pos": [0.5, None]}
    found, dropped = only(Row("a:1", "fine", number), ranges=ranges)
    assert (found, dropped) == (([("fine", label)], {}) if label else ([], {"out_of_range": ["a:1"]}))


@pytest.mark.parametrize("number", ["", "high", None, "nan"])
def test_what_is_no_number_is_a_bad_row(number: object) -> None:
    found, dropped = only(Row("a:1", "fine", number), ranges={"neg": [None, 0], "pos": [1, None]})
    assert (found, dropped) == ([], {"bad": [f"a:1: 'target' is {number!r}, not a number"]})


def test_first_lines_are_the_first_that_hold_something() -> None:
    found, _ = only(Row("a:1", "\n Headline \n\nFirst.\nSecond.\n", "pos"), first_lines=2)
    assert found == [("Headline\nFirst.", "pos")]


def test_free_text_targets_are_kept_as_they_are() -> None:
    assert only(Row("a:1", "fine", " A sentence. "), labels=None) == ([("fine", "A sentence.")], {})
