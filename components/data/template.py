"""Wording: how a text and its target become token ids, the same way in preparation, training and answering.

Knows a tokenizer (of the `tokenizers` library, see base/tokenizer.py); no model, tensor or file of rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple, Protocol

from tokenizers import Tokenizer

from components.config.params import TaskParams
from components.data import label_words
from components.errors import DataError

SHORT = 3  # characters a token: a text of fewer is most likely not cut


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text and of nothing else: no begin or end token is added."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def truncate(tokenizer: Tokenizer, text: str, max_tokens: int) -> tuple[str, bool]:
    """The text without surrounding white space, cut after at most ``max_tokens`` tokens, and whether it was cut.

    The cut falls between two tokens and never inside a character. Truncating the result again changes nothing, so a
    text prepared for training and the same text sent to a server end in the same ids.
    """
    text = text.strip()
    encoding = tokenizer.encode(text, add_special_tokens=False)
    # A start alone can need more tokens than in the whole (a character's bytes may be shared out): step back then.
    for kept in range(max_tokens, 0, -1):
        if kept >= len(encoding):
            return text, False
        cut = text[: encoding.offsets[kept - 1][1]].rstrip()
        if len(ids_of(tokenizer, cut)) <= max_tokens:
            return cut, True
    return "", True


def following_ids(tokenizer: Tokenizer, before: str, text: str) -> list[int]:
    """Ids of ``text`` as it stands behind ``before``: those that the two together have more than ``before`` alone.

    Some tokenizers put a space in front of whatever they encode, or take one away, so the ids of a text by itself need
    not be those that it has inside a longer one. Where the end of ``before`` and the beginning of ``text`` become one
    token, no ids follow; then it is the ids behind a letter (see ``Template.refuse_joined``).
    """
    alone, begun, whole = ids_of(tokenizer, text), ids_of(tokenizer, before), ids_of(tokenizer, before + text)
    if whole == [*begun, *alone]:
        return alone
    if whole[: len(begun)] == begun:
        return whole[len(begun) :]
    letter, behind = ids_of(tokenizer, "a"), ids_of(tokenizer, f"a{text}")
    return behind[len(letter) :] if behind[: len(letter)] == letter else alone


class Cut(NamedTuple):
    """A text as ``truncate`` leaves it, whether it was cut, and how many tokens are left."""

    text: str
    cut: bool
    tokens: int


def counts_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """How many ids each text has by ``ids_of``, in one call, which uses every core and holds up no other thread."""
    return [len(found) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def truncate_all(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[Cut]:
    """What ``truncate`` makes of each text, several times as fast as asking it one by one."""
    whole = [text.strip() for text in texts]
    done: dict[int, Cut] = {}
    # Where tokens stand in a text costs time, and only a cut needs it: a guess by length says who is asked at once.
    short = [place for place, text in enumerate(whole) if len(text) <= SHORT * max_tokens]
    for place, tokens in zip(short, counts_of(tokenizer, [whole[place] for place in short]), strict=True):
        if tokens <= max_tokens:
            done[place] = Cut(whole[place], False, tokens)
    asked = [place for place in range(len(whole)) if place not in done]
    encodings = tokenizer.encode_batch([whole[place] for place in asked], add_special_tokens=False)
    long = {}
    for place, encoding in zip(asked, encodings, strict=True):
        if len(encoding) <= max_tokens:
            done[place] = Cut(whole[place], False, len(encoding))
        else:
            long[place] = encoding
    for kept in range(max_tokens, 0, -1):
        cuts = [whole[place][: encoding.offsets[kept - 1][1]].rstrip() for place, encoding in long.items()]
        for place, cut, tokens in zip(list(long), cuts, counts_of(tokenizer, cuts), strict=True):
            if tokens <= max_tokens:
                done[place] = Cut(cut, True, tokens)
                del long[place]
        if not long:
            break
    return [done.get(place, Cut("", True, 0)) for place in range(len(whole))]


class Wording(Protocol):
    """Whatever says how a task is worded: the manifest of an adapter does."""

    @property
    def template(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str] | None: ...
    @property
    def max_tokens(self) -> int: ...


@dataclass(frozen=True)
class Template:
    """How one task words its question and its answers.

    ``text`` holds ``{text}`` once. ``labels`` maps each label to its word, None for a generation task.
    """

    text: str
    labels: Mapping[str, str] | None
    max_tokens: int

    @classmethod
    def of(cls, said: TaskParams | Wording) -> Template:
        """The wording of a task as params.yaml declares it now, or as an adapter's manifest says that it was."""
        rows = said.data if isinstance(said, TaskParams) else said
        return cls(said.template, rows.labels, rows.max_tokens)

    @cached_property
    def ending(self) -> str:
        """What stands before every answer: the template behind its text, and a letter for the text itself."""
        return "a" + self.text.format(text="\0").partition("\0")[2]

    def input_ids(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """Ids of the template filled with the text, truncated by the one rule."""
        cut, _ = truncate(tokenizer, text, self.max_tokens)
        return ids_of(tokenizer, self.text.format(text=cut))

    def target_ids(self, tokenizer: Tokenizer, target: str, eos: int | None = None) -> list[int]:
        """Ids of the answer as it stands behind the filled template.

        The answer is a space and the label's word, or a space, the free text and the end token ``eos``.

        Raises:
            DataError: the target is none of the labels, or a generated answer was given no end token.
        """
        if self.labels is None:
            if eos is None:
                raise DataError("a generated answer needs an end token; the base model's tokenizer names none")
            return [*following_ids(tokenizer, self.ending, f" {target}"), eos]
        if target not in self.labels:
            raise DataError(f"target {target!r} is none of the labels {sorted(self.labels)}")
        return following_ids(tokenizer, self.ending, f" {self.labels[target]}")

    def label_ids(self, tokenizer: Tokenizer) -> dict[str, list[int]]:
        """Ids of each label's word, in the order of the labels; empty for a generation task.

        Raises:
            DataError: one label's ids begin another's, so that scoring would count the shorter inside the longer; all
                such pairs are named, with words to write instead.
        """
        found = {label: self.target_ids(tokenizer, label) for label in self.labels or {}}
        if self.labels and (fault := label_words.fault(self.labels, found, partial(self._word_ids, tokenizer))):
            raise DataError(fault)
        return found

    def refuse_joined(self, tokenizer: Tokenizer) -> None:
        """Refuse a template whose end the tokenizer makes one token with the beginning of an answer.

        No ids of the answer follow the prompt then: the model would be trained and asked on a split that no text has.

        Raises:
            DataError: with a template to write.
        """
        joined = self._joined(tokenizer)
        if joined is None:
            return
        room = self.text.rstrip()
        others = (replace(self, text=text) for text in (room, f"{room}\nAnswer:", f"{room} =", f"{room} Answer:"))
        better = next((json.dumps(one.text) for one in others if one._joined(tokenizer) is None), None)
        remedy = f"end it with a visible character, template: {better}" if better else "choose another base"
        raise DataError(
            f"the base's tokenizer joins the end of the template {self.ending[1:]!r} with the answer {joined!r} to one"
            f" token, so no tokens of the answer follow those of the prompt; {remedy}"
        )

    def _joined(self, tokenizer: Tokenizer) -> str | None:
        """The first answer whose beginning becomes one token with the template's end; None if there is none."""
        begun = ids_of(tokenizer, self.ending)
        for word in self.labels.values() if self.labels else ("The", "a"):
            if ids_of(tokenizer, f"{self.ending} {word}")[: len(begun)] != begun:
                return f" {word}"
        return None

    def _word_ids(self, tokenizer: Tokenizer, word: str) -> list[int]:
        return following_ids(tokenizer, self.ending, f" {word}")
