"""Words of labels that a base can tell apart: which clash, and which words to write instead.

A label is scored by the probability of its word's tokens. Where one word's tokens begin another's, the shorter one is
counted inside the longer, so the two scores cannot be compared. This module knows token ids, not how they are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from components.config.params_faults import yaml_word

TOLD = 20  # pairs named in one message; the count says how many there are
WHOLE = 24  # labels that are written out whole; of more, those alone that need another word

WordIds = Callable[[str], Sequence[int]]


def fault(words: Mapping[str, str], ids: Mapping[str, Sequence[int]], ids_of_word: WordIds) -> str:
    """What is wrong with the words of all labels at once, and what to write; empty if nothing is.

    Args:
        words: the word of each label.
        ids: the token ids of each label's word.
        ids_of_word: gives the token ids of any other word, for the words that are suggested.
    """
    silent = [label for label, found in ids.items() if not found]
    if silent:
        return (
            f"the words of the labels {_listed(silent)} have no token in the base's tokenizer; give them words of"
            " letters under data.labels"
        )
    pairs = clashes(ids)
    if not pairs:
        return ""
    told = "; ".join(f"{one!r} and {other!r}" for one, other in pairs[:TOLD])
    more = f"; and {len(pairs) - TOLD} more" if len(pairs) > TOLD else ""
    return (
        f"{len(pairs)} pair{'s' * (len(pairs) > 1)} of labels have words of which one begins with all tokens of the"
        f" other, so their scores cannot be compared: {told}{more}. {_remedy(words, ids, pairs, ids_of_word)}"
    )


def clashes(ids: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    """Each pair of labels of which the first's ids begin the second's, or are the same."""
    begins: dict[tuple[int, ...], list[str]] = {}
    for label, found in ids.items():
        begins.setdefault(tuple(found), []).append(label)
    pairs = []
    for label, found in ids.items():
        for length in range(1, len(found)):
            pairs += [(other, label) for other in begins.get(tuple(found[:length]), ())]
        same = begins[tuple(found)]
        pairs += [(other, label) for other in same[: same.index(label)]]
    return pairs


def _remedy(
    words: Mapping[str, str], ids: Mapping[str, Sequence[int]], pairs: list[tuple[str, str]], ids_of_word: WordIds
) -> str:
    """A line for params.yaml under which no two words clash, or what to look for where none was found."""
    chosen, taken = dict(words), dict(ids)
    for label in dict.fromkeys(longer for _, longer in pairs):
        del taken[label]
        for word in _other_words(words[label]):
            found = ids_of_word(word)
            if found and not any(_begins(found, other) for other in taken.values()):
                chosen[label], taken[label] = word, found
                break
        else:
            return "Give one of each pair another word under data.labels, one that begins otherwise"
    changed = {label: word for label, word in chosen.items() if word != words[label]}
    if len(words) <= WHOLE:
        return f"Write, for example, labels: {_yaml(chosen)}"
    return f"Write every label with its word under data.labels, these with another, for example: {_yaml(changed)}"


def _begins(one: Sequence[int], other: Sequence[int]) -> bool:
    shorter = min(len(one), len(other))
    return list(one[:shorter]) == list(other[:shorter])


def _other_words(word: str) -> Iterator[str]:
    """Words that say the same and begin otherwise: order_status -> status of order."""
    parts = [part for part in re.split(r"[\s_\-./]+", word) if re.search(r"\w", part)]
    if len(parts) > 1:
        yield f"{parts[-1]} of {' '.join(parts[:-1])}"
        yield f"{' '.join(parts[1:])} of {parts[0]}"
    plain = " ".join(parts) or word
    for before in ("the", "some", "this is", "one of", "about", "called"):
        yield f"{before} {plain}"
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        yield f"{letter}: {plain}"


def _yaml(words: Mapping[str, str]) -> str:
    """A mapping as YAML in one line."""
    return "{" + ", ".join(f"{yaml_word(label)}: {yaml_word(word)}" for label, word in words.items()) + "}"


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - TOLD} more" if len(labels) > TOLD else ""
    return ", ".join(map(repr, labels[:TOLD])) + more
