"""One forward pass of padded rows behind their prefixes, exact in positions and in what each token may see.

Training, scoring and generation all run through ``Decoder.read``. It knows nothing of labels, losses
or the making of adapters.

Notation: B batch, T text tokens, P virtual tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from components.base.base_model import Base
from components.prefix.kv_prefix import PrefixRows, layers_of

# A virtual token takes up keys and values but no work: in a batch's budget so many of them count as one token read.
KEPT_PER_READ = 8


@dataclass
class Decoder:
    """Rows in the middle of being read: what was seen so far, and where each row stands.

    cache: keys and values of all columns; mask: [B, columns], 1 where a column counts; position: [B], the next one.
    """

    base: Base
    cache: DynamicCache
    mask: Tensor
    position: Tensor

    @classmethod
    def behind(cls, base: Base, rows: PrefixRows, once: bool = False) -> Decoder:
        """Rows that have seen their prefix and no text yet. ``once``: they are read once and not gone on with."""
        return cls(base, rows.standing_cache() if once else rows.cache(), rows.mask(), rows.lengths)

    def read(self, ids: Tensor, counts: Tensor) -> Tensor:
        """Read further tokens.

        Args:
            ids: [B, T], right-padded.
            counts: [B], how many of a row's T tokens are real.

        Returns:
            Final hidden states [B, T, H], meaningless at padded places. A row with prefix of P tokens that has read n
            tokens used positions P..P+n-1, whatever the padding.
        """
        return self._run(counts, ids.shape[1], input_ids=ids)

    def read_states(self, states: Tensor, counts: Tensor) -> Tensor:
        """The same of vectors [B, T, H] in place of tokens."""
        return self._run(counts, states.shape[1], inputs_embeds=states)

    def _run(self, counts: Tensor, width: int, **given: Tensor) -> Tensor:
        columns = torch.arange(width, device=counts.device).unsqueeze(0)  # [1, T]
        real = (columns < counts.unsqueeze(1)).long()
        self.mask = torch.cat([self.mask, real], dim=1)
        # A padded place repeats its row's last position: never attended to, it must not pass a learned table's end.
        steps = torch.minimum(columns, (counts - 1).clamp(min=0).unsqueeze(1))
        output = self.base.model.base_model(
            attention_mask=self.mask,
            position_ids=self.position.unsqueeze(1) + steps,
            past_key_values=self.cache,
            use_cache=True,
            **given,
        )
        self.position = self.position + counts
        hidden: Tensor = output.last_hidden_state
        return hidden

    def fork(self) -> Decoder:
        """A second reader that goes on from here; neither sees what the other reads."""
        return Decoder(self.base, DynamicCache(layers_of(self.cache)), self.mask, self.position)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone (indices into the batch)."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]


def logits(base: Base, hidden: Tensor) -> Tensor:
    """[..., H] -> [..., V] in float32."""
    head: nn.Module = base.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    scores: Tensor = head(hidden)
    return scores.float()


def pad(rows: Sequence[Sequence[int]], base: Base) -> tuple[Tensor, Tensor]:
    """Token rows of unequal length -> (ids [B, T] right-padded with 0, counts [B]) on the base's device."""
    counts = [len(row) for row in rows]
    width = max(counts)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=base.device)
    return ids, torch.tensor(counts, device=base.device)


def last(hidden: Tensor, counts: Tensor) -> Tensor:
    """The state at each row's last real token: [B, T, H] and [B] -> [B, H]."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), counts - 1]


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in batches of like length, each of at most ``budget`` padded tokens (or one row)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batches and lengths[row] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
