"""Answers with a KVPrefix per row: score label words, or generate. The one decoder of evaluation, pyfunc and serving.

An answer does not depend on what else is in its batch. Knows nothing of where prefixes come from or what is right.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.base.base_model import Base
from components.config.params import MethodName
from components.data.template import Template
from components.errors import DataError
from components.prefix.decoder import KEPT_PER_READ, Decoder, by_length, last, logits, pad
from components.prefix.kv_prefix import KVPrefix, PrefixRows

# Padded tokens a batch: large enough to keep two cores or a GPU busy, small enough to bound memory.
TOKEN_BUDGET = 2048


def from_artifact(base: Base, method: MethodName, table: Tensor) -> KVPrefix:
    """The prefix of a saved adapter.

    Args:
        table: ``prompt_embeddings`` of the artifact: [P, H] for prompt, [P, L*2*Hkv*D] for prefix.
    """
    with torch.no_grad():
        if method == "prompt":
            return KVPrefix.from_embeddings(base, table)
        return KVPrefix.from_peft(table, base.shape).to(base.device, base.dtype)


@torch.no_grad()
def classify(
    base: Base, prefix: KVPrefix | Sequence[KVPrefix], template: Template, texts: Sequence[str]
) -> list[dict[str, float]]:
    """Log-probability of each label's word behind each text.

    Args:
        prefix: one for all rows, or one per row.

    Returns:
        A row per text: {label: log p(word | prefix, text)}, summed over the word's tokens.
    """
    tokenizer = base.words
    labels = template.label_ids(tokenizer)
    rows = _token_rows(base, prefix, template, texts, max(map(len, labels.values())))
    scores: list[dict[str, float]] = [{} for _ in texts]
    kept = _longest(prefix) // KEPT_PER_READ
    for batch in by_length([len(row) + kept for row in rows], TOKEN_BUDGET):
        ids, counts = pad([rows[i] for i in batch], base)
        decoder = Decoder.behind(base, _prefix_rows(prefix, batch))
        first = logits(base, last(decoder.read(ids, counts), counts)).log_softmax(-1)  # [B, V]
        for label, word in labels.items():
            total = first[:, word[0]]
            if len(word) > 1:
                total = total + _rest_of_word(decoder.fork(), word)
            for i, value in zip(batch, total.tolist(), strict=True):
                scores[i][label] = value
    return scores


def _rest_of_word(decoder: Decoder, word: Sequence[int]) -> Tensor:
    """log p of a word's tokens after its first, for every row: [B]."""
    rows = decoder.mask.shape[0]
    ids, counts = pad([word[:-1]] * rows, decoder.base)
    after = logits(decoder.base, decoder.read(ids, counts)).log_softmax(-1)  # [B, len(word) - 1, V]
    return after.gather(-1, torch.tensor(word[1:], device=after.device).expand(rows, -1).unsqueeze(-1)).sum((1, 2))


@torch.no_grad()
def generate(
    base: Base, prefix: KVPrefix | Sequence[KVPrefix], template: Template, texts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """The greedy continuation of each text, to the end token or ``max_new_tokens``, without outer white space."""
    end = base.tokenizer.eos_token_id
    rows = _token_rows(base, prefix, template, texts, max_new_tokens)
    produced: list[list[int]] = [[] for _ in texts]
    # Keys and values of the answer weigh as much as those of the text: budget for both.
    kept = max_new_tokens + _longest(prefix) // KEPT_PER_READ
    for batch in by_length([len(row) + kept for row in rows], 2 * TOKEN_BUDGET):
        ids, counts = pad([rows[i] for i in batch], base)
        decoder = Decoder.behind(base, _prefix_rows(prefix, batch))
        state, alive = last(decoder.read(ids, counts), counts), list(batch)
        for _ in range(max_new_tokens):
            chosen = logits(base, state).argmax(-1)
            going = [row for row, token in enumerate(chosen.tolist()) if token != end]
            if not going:
                break
            if len(going) < len(alive):
                still = torch.tensor(going, device=base.device)
                decoder.keep(still)
                chosen, alive = chosen[still], [alive[row] for row in going]
            for i, token in zip(alive, chosen.tolist(), strict=True):
                produced[i].append(token)
            one = torch.ones(len(alive), dtype=torch.long, device=base.device)
            state = last(decoder.read(chosen.unsqueeze(1), one), one)
    return [str(base.tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in produced]


def answer(
    base: Base, prefix: KVPrefix | Sequence[KVPrefix], template: Template, texts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """The label of highest score, or the generated text, as the template's task asks. A tie goes to the first label."""
    if template.labels is None:
        return generate(base, prefix, template, texts, max_new_tokens)
    return [max(scores, key=scores.__getitem__) for scores in classify(base, prefix, template, texts)]


def _token_rows(
    base: Base, prefix: KVPrefix | Sequence[KVPrefix], template: Template, texts: Sequence[str], more: int
) -> list[list[int]]:
    """Token ids of each filled template, refusing before any work what is empty or would pass the context."""
    if not isinstance(prefix, KVPrefix) and len(prefix) != len(texts):
        raise ValueError(f"{len(prefix)} prefixes for {len(texts)} texts; give one for all, or one for each")
    rows = [template.input_ids(base.words, text) for text in texts]
    if [] in rows:
        raise DataError(f"text {rows.index([]) + 1} of {len(rows)} is empty, and so is the template around it")
    longest = _longest(prefix)
    needed = longest + max(map(len, rows), default=0) + more
    if needed > base.shape.context:
        raise DataError(
            f"{longest} virtual tokens, the longest text and {more} tokens of answer are {needed} positions; "
            f"the base has {base.shape.context}: lower data.max_tokens or virtual_tokens"
        )
    return rows


def _longest(prefix: KVPrefix | Sequence[KVPrefix]) -> int:
    return prefix.length if isinstance(prefix, KVPrefix) else max((one.length for one in prefix), default=0)


def _prefix_rows(prefix: KVPrefix | Sequence[KVPrefix], batch: Sequence[int]) -> PrefixRows:
    if isinstance(prefix, KVPrefix):
        return PrefixRows.broadcast(prefix, len(batch))
    return PrefixRows.gather([prefix[i] for i in batch], range(len(batch)))
