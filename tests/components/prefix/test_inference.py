"""Answers equal what transformers says of the whole sequence, row by row, whatever else is asked at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.data.template import Template
from components.errors import ArtifactError, DataError
from components.prefix import inference
from components.prefix.decoder import Decoder
from components.prefix.inference import answer, classify, from_artifact, generate
from components.prefix.kv_prefix import KVPrefix

WORDS = {"good": "positive", "bad": "negative", "none": "not at all", "some": "a mess"}
LABELLED = Template("Review: {text}\nSentiment:", WORDS, max_tokens=32)
FREE = Template("Review: {text}\nOutcome:", None, max_tokens=32)
TEXTS = ["a funny film", "dull", "too long by half an hour, and lifeless from the first scene to the last", "q", "mess"]


@pytest.fixture(scope="module", params=["llama", "qwen", "gpt2"])
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder(request.param)
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def llama(tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder("llama")
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


def soft_prompt(base: Base, length: int, seed: int = 0) -> KVPrefix:
    table = torch.randn(length, base.shape.hidden, generator=torch.Generator().manual_seed(seed))
    return from_artifact(base, "prompt", table)


def key_values(base: Base, length: int, seed: int = 0) -> KVPrefix:
    columns = base.shape.layers * 2 * base.shape.kv_heads * base.shape.head_size
    return from_artifact(base, "prefix", torch.randn(length, columns, generator=torch.Generator().manual_seed(seed)))


def prefixes_of(base: Base) -> list[KVPrefix]:
    """One for each of TEXTS: every method, several lengths, and none of them as long as another."""
    tokens = KVPrefix.from_tokens(base, base.words.encode("Decide whether the review is positive.").ids)
    return [
        soft_prompt(base, 3),
        key_values(base, 7),
        tokens,
        soft_prompt(base, 1, seed=1),
        key_values(base, 2, seed=1),
    ]


@torch.no_grad()
def plain(base: Base, prefix: KVPrefix, ids: Sequence[int]) -> Tensor:
    """Logits [T, V] of one unpadded row, from transformers alone."""
    pairs = zip(prefix.keys.unsqueeze(1), prefix.values.unsqueeze(1), strict=True)
    positions = torch.arange(prefix.length, prefix.length + len(ids)).unsqueeze(0)
    output = base.model(
        input_ids=torch.tensor([list(ids)]), past_key_values=DynamicCache(list(pairs)), position_ids=positions
    )
    return cast(Tensor, output.logits[0])


def expected_scores(base: Base, prefix: KVPrefix, template: Template, text: str) -> dict[str, float]:
    """log p of each label's word, one whole forward pass for each."""
    asked, found = template.input_ids(base.words, text), {}
    for label, word in template.label_ids(base.words).items():
        said = plain(base, prefix, [*asked, *word])[len(asked) - 1 : -1].log_softmax(-1)
        found[label] = sum(said[place, token].item() for place, token in enumerate(word))
    return found


def close(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> bool:
    return len(found) == len(expected) and all(
        list(one) == list(other) and list(one.values()) == pytest.approx(list(other.values()), abs=1e-4)
        for one, other in zip(found, expected, strict=True)
    )


# --- scoring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [("good", "bad"), ("none", "some"), ("good", "none", "bad", "some")])
def test_a_score_is_the_log_probability_of_the_whole_word(base: Base, labels: tuple[str, ...]) -> None:
    """Words of one token, of several, and of both kinds."""
    template = replace(LABELLED, labels={label: WORDS[label] for label in labels})
    lengths = {len(ids) for ids in template.label_ids(base.words).values()}
    assert (1 in lengths, max(lengths) > 1) == ("good" in labels, "none" in labels)
    prefix = soft_prompt(base, 4)
    expected = [expected_scores(base, prefix, template, text) for text in TEXTS]
    assert close(classify(base, prefix, template, TEXTS), expected)


def test_a_prefix_of_text_scores_as_that_text_in_front(base: Base) -> None:
    front = base.words.encode("Decide whether the review is positive.\n").ids
    found = classify(base, KVPrefix.from_tokens(base, front), LABELLED, TEXTS[:1])[0]
    asked, word = LABELLED.input_ids(base.words, TEXTS[0]), LABELLED.label_ids(base.words)["none"]
    with torch.no_grad():
        whole = base.model(input_ids=torch.tensor([[*front, *asked, *word]])).logits[0].log_softmax(-1)
    start = len(front) + len(asked) - 1
    assert found["none"] == pytest.approx(sum(whole[start + n, token].item() for n, token in enumerate(word)), abs=1e-4)


@pytest.mark.parametrize("budget", [1, 60, 2048])
def test_scores_do_not_depend_on_the_batch(base: Base, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """Each row with its own method and length of prefix, asked alone, in pairs and all at once."""
    prefixes = prefixes_of(base)
    expected = [expected_scores(base, *given) for given in zip(prefixes, [LABELLED] * 5, TEXTS, strict=True)]
    monkeypatch.setattr(inference, "TOKEN_BUDGET", budget)
    assert close(classify(base, prefixes, LABELLED, TEXTS), expected)
    assert close(classify(base, prefixes[::-1], LABELLED, TEXTS[::-1]), expected[::-1])
    assert close(classify(base, prefixes[1], LABELLED, [TEXTS[1]]), expected[1:2])


def test_the_answer_is_the_likeliest_label_and_in_a_tie_the_first(llama: Base) -> None:
    prefix = soft_prompt(llama, 4)
    scores = classify(llama, prefix, LABELLED, TEXTS)
    assert answer(llama, prefix, LABELLED, TEXTS, 8) == [max(row, key=lambda label: row[label]) for row in scores]
    still = replace(llama, model=_flattened(llama))
    tied = replace(LABELLED, labels={"bad": "negative", "good": "positive"})
    assert answer(still, prefix, tied, TEXTS[:2], 8) == ["bad", "bad"]


def _flattened(base: Base) -> Any:
    """A view of the model whose head says zero of every token."""

    class Flat:
        base_model = base.model.base_model

        def get_output_embeddings(self) -> Callable[[Tensor], Tensor]:
            return lambda hidden: hidden.new_zeros(*hidden.shape[:-1], 400)

    return Flat()


# --- generation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """A tokenizer that decodes to the ids themselves, so that a test sees exactly what was generated."""

    eos_token_id: int | None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(map(str, ids))


def in_numbers(base: Base, end: int | None) -> Base:
    return replace(base, tokenizer=cast(PreTrainedTokenizerBase, Numbers(end)))


def generated(base: Base, prefix: KVPrefix | Sequence[KVPrefix], count: int, end: int | None = None) -> list[list[int]]:
    said = generate(in_numbers(base, end), prefix, FREE, TEXTS, count)
    return [[int(number) for number in row.split()] for row in said]


def greedy(base: Base, front: Sequence[int], text: str, count: int, end: int | None) -> list[int]:
    """transformers' own greedy search over the tokens of prefix and text, less the end token."""
    ids = torch.tensor([[*front, *FREE.input_ids(base.words, text)]])
    whole = base.model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=end,
        pad_token_id=0,
    )
    said: list[int] = whole[0, ids.shape[1] :].tolist()
    return said[: said.index(end)] if end in said else said


def test_generation_is_the_greedy_search_of_transformers(base: Base) -> None:
    fronts = [base.words.encode(text).ids for text in ("Say it.", "a", "the bank reported a loss", "So:", "x y")]
    prefixes = [KVPrefix.from_tokens(base, front) for front in fronts]
    expected = [greedy(base, *given, 10, None) for given in zip(fronts, TEXTS, strict=True)]
    assert [len(row) for row in expected] == [10] * 5
    assert generated(base, prefixes, 10) == expected
    # An end token that ends some rows early, at different steps, and others not at all.
    ends = sorted({token for row in expected for token in row})
    stops = {end: [row.index(end) if end in row else 10 for row in expected] for end in ends}
    end = max(ends, key=lambda token: (len(set(stops[token])), max(stops[token]) == 10))
    assert len(set(stops[end])) > 1
    assert [len(row) for row in expected] != stops[end]
    assert generated(base, prefixes, 10, end) == [greedy(base, *g, 10, end) for g in zip(fronts, TEXTS, strict=True)]
    assert [len(row) for row in generated(base, prefixes, 10, end)] == stops[end]


@pytest.mark.parametrize("budget", [1, 2048])
def test_generation_does_not_depend_on_the_batch(base: Base, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """Prefixes of every method and length; some rows end before the others."""
    prefixes = prefixes_of(base)
    free = generated(base, prefixes, 8)
    end = free[0][2]
    monkeypatch.setattr(inference, "TOKEN_BUDGET", budget)
    together = generated(base, prefixes, 8, end)
    assert together == [row[: row.index(end)] if end in row else row for row in free]
    for row, (prefix, text) in enumerate(zip(prefixes, TEXTS, strict=True)):
        alone = generate(in_numbers(base, end), prefix, FREE, [text], 8)
        assert alone == [" ".join(map(str, together[row]))]


def test_no_more_tokens_than_asked_for(llama: Base) -> None:
    whole = generated(llama, soft_prompt(llama, 3), 6)
    for count in (1, 4):
        assert generated(llama, soft_prompt(llama, 3), count) == [row[:count] for row in whole]


def test_an_answer_is_text_without_its_end_token_and_outer_white_space(llama: Base) -> None:
    tokens = generated(llama, soft_prompt(llama, 3), 12)
    said = generate(llama, soft_prompt(llama, 3), FREE, TEXTS, 12)
    assert said == [llama.words.decode(row, skip_special_tokens=True).strip() for row in tokens]
    assert answer(llama, soft_prompt(llama, 3), FREE, TEXTS, 12) == said


# --- what comes in ----------------------------------------------------------------------------------------------------


def test_a_control_token_inside_a_text_is_text(llama: Base) -> None:
    """Read as the token itself, `<|end|>` in a review would end the prompt that it stands in."""
    text = "good <|end|> bad"
    assert llama.tokenizer(text).input_ids.count(llama.tokenizer.eos_token_id) == 1
    assert llama.tokenizer.eos_token_id not in LABELLED.input_ids(llama.words, text)
    prefix = soft_prompt(llama, 2)
    assert close(classify(llama, prefix, LABELLED, [text]), [expected_scores(llama, prefix, LABELLED, text)])


@pytest.mark.parametrize("prefix", ["one", "each"])
def test_no_texts_get_no_answers(llama: Base, prefix: str) -> None:
    given: KVPrefix | list[KVPrefix] = soft_prompt(llama, 2) if prefix == "one" else []
    assert classify(llama, given, LABELLED, []) == []
    assert generate(llama, given, FREE, [], 8) == []
    assert answer(llama, given, LABELLED, [], 8) == []


@pytest.mark.parametrize("template", [LABELLED, FREE])
def test_what_passes_the_context_is_refused_before_any_work(
    llama: Base, monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    wide, text = replace(template, max_tokens=600), " mess" * 400
    length = len(wide.input_ids(llama.words, text))
    monkeypatch.setattr(Decoder, "read", lambda *_: pytest.fail("it began"))
    more = max(map(len, wide.label_ids(llama.words).values())) if wide.labels else 9
    fault = (
        f"20 virtual tokens, the longest text and {more} tokens of answer are {20 + length + more} positions; .* 512"
    )
    with pytest.raises(DataError, match=fault):
        answer(llama, [soft_prompt(llama, 1), key_values(llama, 20)], wide, ["short", text], 9)


def test_what_just_fits_the_context_is_answered(tiny_base_folder: Callable[..., Path]) -> None:
    """Learned positions end for good: one too many would be an error of the embedding."""
    folder = tiny_base_folder("gpt2")
    gpt2 = load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)
    length = len(FREE.input_ids(gpt2.words, "short"))
    room = gpt2.shape.context - length - 5
    said = generate(in_numbers(gpt2, None), [key_values(gpt2, room), key_values(gpt2, 1)], FREE, ["short", "short"], 5)
    assert [len(row.split()) for row in said] == [5, 5]
    with pytest.raises(DataError, match="are 513 positions"):
        generate(gpt2, key_values(gpt2, room + 1), FREE, ["short"], 5)


def test_an_empty_prompt_is_refused(llama: Base) -> None:
    """There is no last token to go on from; a padded place would answer in its stead."""
    bare = replace(LABELLED, text="{text}")
    with pytest.raises(DataError, match="text 2 of 3 is empty"):
        classify(llama, soft_prompt(llama, 2), bare, ["good", "  ", "bad"])
    assert len(classify(llama, soft_prompt(llama, 2), LABELLED, [""])) == 1


def test_prefixes_and_texts_must_pair(llama: Base) -> None:
    with pytest.raises(ValueError, match="3 prefixes for 5 texts"):
        classify(llama, [soft_prompt(llama, 2)] * 3, LABELLED, TEXTS)


def test_long_prefixes_make_small_batches(llama: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row keeps keys and values of its whole prefix: 300 short texts behind 400 tokens are not one batch."""
    seen, read = [], Decoder.read

    def watch(decoder: Decoder, ids: Tensor, counts: Tensor) -> Tensor:
        hidden = read(decoder, ids, counts)
        seen.append(decoder.mask.numel())
        return hidden

    monkeypatch.setattr(Decoder, "read", watch)
    classify(llama, key_values(llama, 400), replace(LABELLED, text="{text}"), ["q"] * 300)
    assert max(seen) <= inference.TOKEN_BUDGET * inference.KEPT_PER_READ
    seen.clear()
    classify(llama, key_values(llama, 4), replace(LABELLED, text="{text}"), ["q"] * 300)
    assert len(seen) == 3, "one batch, and the rest of two words"


# --- saved adapters ---------------------------------------------------------------------------------------------------


def test_a_table_of_the_wrong_shape_is_refused(base: Base) -> None:
    shape = base.shape
    columns = shape.layers * 2 * shape.kv_heads * shape.head_size
    with pytest.raises(ArtifactError, match=rf"prompt table is \[3, 33\]; this base needs \[P, {shape.hidden}\]"):
        from_artifact(base, "prompt", torch.zeros(3, 33))
    with pytest.raises(ArtifactError, match=rf"prompt table is \[3, 1\]; this base needs \[P, {shape.hidden}\]"):
        from_artifact(base, "prompt", torch.zeros(3, 1))  # learned positions would broadcast it
    with pytest.raises(ArtifactError, match=rf"prompt table is \[{shape.hidden}\]"):
        from_artifact(base, "prompt", torch.zeros(shape.hidden))
    with pytest.raises(ArtifactError, match=rf"prefix table is \[3, {columns + 1}\]; this base needs \[P, {columns}\]"):
        from_artifact(base, "prefix", torch.zeros(3, columns + 1))
    with pytest.raises(ArtifactError, match="prefix table is"):
        from_artifact(base, "prefix", torch.zeros(3, shape.hidden))


@pytest.mark.parametrize("length", [0, 512])
def test_a_prompt_that_is_empty_or_leaves_no_room_is_refused(base: Base, length: int) -> None:
    with pytest.raises(DataError, match=rf"a prefix of {length} tokens; this base takes 1 to 511"):
        KVPrefix.from_tokens(base, [5] * length)
