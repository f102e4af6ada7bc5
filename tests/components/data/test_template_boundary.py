"""The ids of an answer are those that follow the prompt in the whole, whatever a tokenizer puts in front or strips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from components.data.template import Template, ids_of
from components.errors import DataError
from tests.components.data.test_template import byte_level_tokenizer

CORPUS = [
    f"{a} {b}\nMood: {c}" for a in ("The lamp", "It", "A film") for b in ("works", "is bad") for c in ("good", "bad")
]
SPACE = "\u2581"
SIGNS = [*(chr(char) for char in range(33, 127)), SPACE, "\n"]


def _trained(tokenizer: Tokenizer, kind: str = "bpe") -> Tokenizer:
    trainer = {
        "bpe": lambda: trainers.BpeTrainer(vocab_size=300, initial_alphabet=SIGNS, special_tokens=["<unk>"]),
        "unigram": lambda: trainers.UnigramTrainer(
            vocab_size=200, initial_alphabet=SIGNS, special_tokens=["<unk>"], unk_token="<unk>"
        ),
        "wordpiece": lambda: trainers.WordPieceTrainer(
            vocab_size=300, initial_alphabet=SIGNS, special_tokens=["[UNK]"], show_progress=False
        ),
    }[kind]()
    trainer.show_progress = False
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def legacy_sentencepiece() -> Tokenizer:
    """Llama 2's: a space in front of whatever is encoded, by the normaliser; no words are split before."""
    merges = []
    for word in ("good", "bad", "Mood", "Text", "The"):
        merges += [(SPACE + word[:end], word[end]) for end in range(len(word))]
    chars = dict.fromkeys(["<unk>", *SIGNS, *(one + other for one, other in merges)])
    words = {char: at for at, char in enumerate(chars)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=list(dict.fromkeys(merges)), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return tokenizer


def metaspace(scheme: str) -> Callable[[], Tokenizer]:
    def made() -> Tokenizer:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        return _trained(tokenizer)

    return made


def unigram() -> Tokenizer:
    """T5's and XLNet's: NFKC, white space made one, a space in front."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return _trained(tokenizer, "unigram")


def wordpiece() -> Tokenizer:
    """BERT's: lower case, accents taken off, no spaces at all."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(tokenizer, "wordpiece")


def stripping_bytes() -> Tokenizer:
    """Byte level behind a normaliser that takes outer spaces away."""
    tokenizer = byte_level_tokenizer()
    tokenizer.normalizer = normalizers.Strip()
    return tokenizer


def spaced_bytes() -> Tokenizer:
    """Byte level as RoBERTa has it where add_prefix_space is set."""
    tokenizer = byte_level_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def eager_added_tokens() -> Tokenizer:
    """An added token that takes the spaces on both of its sides."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("Mood:", lstrip=True, rstrip=True), AddedToken("good", lstrip=True)])
    return tokenizer


KINDS = (
    byte_level_tokenizer,
    legacy_sentencepiece,
    metaspace("always"),
    metaspace("first"),
    metaspace("never"),
    unigram,
    wordpiece,
    stripping_bytes,
    spaced_bytes,
    eager_added_tokens,
)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("text", ["Text: {text}\nMood:", "{text}", "{text} =", "{text}!"])
def test_an_answer_has_the_ids_that_follow_the_prompt_in_the_whole(make: Callable[[], Tokenizer], text: str) -> None:
    tokenizer, words = make(), {"g": "good", "b": "bad"}
    asked = Template(text, words, 64)
    asked.refuse_joined(tokenizer)
    prompt, filled = asked.input_ids(tokenizer, "The lamp works"), text.format(text="The lamp works")
    found = asked.label_ids(tokenizer)
    for label, word in words.items():
        assert [*prompt, *found[label]] == ids_of(tokenizer, f"{filled} {word}")
    free = Template(text, None, 64)
    for answer in ("good works", "A film", "is bad\nMood"):
        whole = ids_of(tokenizer, f"{filled} {answer}")
        assert [*prompt, *free.target_ids(tokenizer, answer, eos=0)] == [*whole, 0]


def test_a_space_that_the_tokenizer_puts_in_front_is_no_part_of_an_answer() -> None:
    tokenizer = legacy_sentencepiece()
    found = Template("Text: {text}\nMood:", {"g": "good", "b": "bad"}, 64).label_ids(tokenizer)
    assert all(ids[0] != tokenizer.token_to_id(SPACE) for ids in found.values())


@pytest.mark.parametrize("words", [{"g": "good", "b": "bad"}, None])
def test_a_template_that_the_tokenizer_joins_with_the_answer_is_refused(words: dict[str, str] | None) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, " ": 1, "  ": 2, "T": 3, ":": 4}, merges=[(" ", " ")]))
    with pytest.raises(DataError, match=r'one token.*end it with a visible character, template: "{text}:"'):
        Template("{text}: ", words, 64).refuse_joined(tokenizer)
    Template("{text}:", words, 64).refuse_joined(tokenizer)


def test_a_word_without_a_token_is_refused() -> None:
    tokenizer = wordpiece()
    with pytest.raises(DataError, match=r"labels 'x' have no token"):
        Template("{text}", {"x": "\u200b", "g": "good"}, 64).label_ids(tokenizer)
