"""KVPrefix: what every adapter is to the model, the keys and values of P virtual tokens in each layer.

In a causal decoder the virtual tokens never see the text, so their keys and values are all that the text can attend to.
Prompt tuning, prefix tuning, a hard prompt and in-context examples all end in this one type; training, evaluation and
serving know no other. This module does not know how a prefix was made, nor what is asked behind it.

Notation: B batch, P virtual tokens, H hidden size, L layers, Hkv key/value heads, D head size.
Keys are stored after the rotary embedding, at positions 0..P-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from components.base.base_model import Base
from components.base.base_support import KVShape
from components.errors import ArtifactError, DataError


@dataclass(frozen=True)
class KVPrefix:
    """keys, values: [L, Hkv, P, D], of one dtype, on one device."""

    keys: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if self.keys.shape != self.values.shape or self.keys.dim() != 4:
            raise ValueError(
                f"keys {list(self.keys.shape)} and values {list(self.values.shape)} must both be [L, Hkv, P, D]"
            )

    @property
    def length(self) -> int:
        """P, the number of virtual tokens."""
        return int(self.keys.shape[2])

    @classmethod
    def none(cls, base: Base) -> KVPrefix:
        """No virtual tokens: what the base says by itself."""
        shape = base.shape.layers, base.shape.kv_heads, 0, base.shape.head_size
        return cls(*(torch.zeros(shape, device=base.device, dtype=base.dtype) for _ in range(2)))

    def to(self, device: torch.device, dtype: torch.dtype) -> KVPrefix:
        """The same prefix elsewhere or in another precision."""
        return KVPrefix(self.keys.to(device, dtype), self.values.to(device, dtype))

    def to_peft(self) -> Tensor:
        """PEFT's layout for prefix tuning: [P, L*2*Hkv*D], columns layer0.K, layer0.V, layer1.K, ..., heads major."""
        stacked = torch.stack([self.keys, self.values], dim=1)  # [L, 2, Hkv, P, D]
        return stacked.permute(3, 0, 1, 2, 4).flatten(start_dim=1)

    @classmethod
    def from_peft(cls, table: Tensor, shape: KVShape) -> KVPrefix:
        """The inverse of ``to_peft``.

        Args:
            table: [P, L*2*Hkv*D].
            shape: the base's L, Hkv and D.

        Raises:
            ArtifactError: the table was made for another shape of base.
        """
        columns = shape.layers * 2 * shape.kv_heads * shape.head_size
        if table.dim() != 2 or table.shape[1] != columns:
            raise ArtifactError(
                f"prefix table is {list(table.shape)}; this base needs [P, {columns}] "
                f"({shape.layers} layers * 2 * {shape.kv_heads} heads * {shape.head_size}): use its own base"
            )
        stacked = table.view(table.shape[0], shape.layers, 2, shape.kv_heads, shape.head_size).permute(1, 2, 3, 0, 4)
        return cls(stacked[:, 0], stacked[:, 1])

    @classmethod
    def from_embeddings(cls, base: Base, embeddings: Tensor) -> KVPrefix:
        """Run P input vectors through the frozen base and keep their keys and values. Differentiable.

        Args:
            embeddings: [P, H], of any float dtype; computed in the base's.

        Returns:
            A prefix in the base's dtype, on its device.

        Raises:
            ArtifactError: the vectors were made for another width of base.
            DataError: there are none, or so many that no text could follow.
        """
        [prefix] = cls.each_from_embeddings(base, [embeddings])
        return prefix

    @classmethod
    def each_from_embeddings(cls, base: Base, tables: Sequence[Tensor]) -> list[KVPrefix]:
        """The same of several, in one pass; of one adapter's vectors none sees another's, nor the padding behind."""
        for table in tables:
            _refuse_unfit(base, table)
        longest = max(len(table) for table in tables)
        padded = [torch.nn.functional.pad(table, (0, 0, 0, longest - len(table))) for table in tables]
        rows = torch.stack(padded).to(base.device, base.dtype)  # [K, P, H]
        positions = torch.arange(longest, device=base.device).unsqueeze(0)
        cache = DynamicCache()
        base.model.base_model(
            inputs_embeds=rows,
            attention_mask=torch.ones(rows.shape[:2], dtype=torch.long, device=base.device),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        keys, values = (torch.stack(part) for part in zip(*layers_of(cache), strict=True))  # each [L, K, Hkv, P, D]
        return [cls(keys[:, k, :, : len(table)], values[:, k, :, : len(table)]) for k, table in enumerate(tables)]

    @classmethod
    def from_tokens(cls, base: Base, ids: Sequence[int]) -> KVPrefix:
        """The keys and values of a text's tokens, without gradient."""
        with torch.no_grad():
            table = base.model.get_input_embeddings()
            return cls.from_embeddings(base, table(torch.tensor(list(ids), dtype=torch.long, device=base.device)))


def _refuse_unfit(base: Base, embeddings: Tensor) -> None:
    if embeddings.dim() != 2 or embeddings.shape[1] != base.shape.hidden:
        raise ArtifactError(
            f"prompt table is {list(embeddings.shape)}; this base needs [P, {base.shape.hidden}]: use its own base"
        )
    if not 0 < len(embeddings) < base.shape.context:
        raise DataError(
            f"a prefix of {len(embeddings)} tokens; this base takes 1 to {base.shape.context - 1} and a text "
            "behind them: change the instruction or virtual_tokens"
        )


def layers_of(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [B, Hkv, columns, D] of each layer; layers of another kind are refused on load."""
    return [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr, misc]


@dataclass(frozen=True)
class PrefixRows:
    """The prefix of each row of a batch, in front-padded columns.

    keys, values: [L, B, Hkv, P, D] with P the longest; lengths: [B], each row's own number of virtual tokens.
    Front padding is masked, and since keys carry their position, a column's place does not matter.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor

    @classmethod
    def broadcast(cls, prefix: KVPrefix, rows: int) -> PrefixRows:
        """One prefix for every row, as a view: the gradient of all rows flows into the one."""
        keys, values = (part.unsqueeze(1).expand(-1, rows, -1, -1, -1) for part in (prefix.keys, prefix.values))
        return cls(keys, values, torch.full((rows,), prefix.length, device=prefix.keys.device))

    @classmethod
    def gather(cls, prefixes: Sequence[KVPrefix], index: Sequence[int]) -> PrefixRows:
        """Row b takes ``prefixes[index[b]]``; methods and lengths may differ from row to row."""
        longest = max(prefix.length for prefix in prefixes)
        padded = [_pad_front(prefix, longest) for prefix in prefixes]
        keys = torch.stack([padded[i].keys for i in index], dim=1)
        values = torch.stack([padded[i].values for i in index], dim=1)
        lengths = torch.tensor([prefixes[i].length for i in index], device=keys.device)
        return cls(keys, values, lengths)

    def cache(self) -> DynamicCache:
        """A new cache that holds the prefixes and grows with what is run behind them."""
        if not self.keys.shape[3]:
            return DynamicCache()  # nothing has no precision either
        return DynamicCache([(keys, values) for keys, values in zip(self.keys, self.values, strict=True)])

    def standing_cache(self) -> DynamicCache:
        """One that holds the prefixes and keeps nothing else: for one reading, whose layers may be run twice."""
        cache = self.cache()
        cache.layers = [_StandingLayer.of(keys, values) for keys, values in layers_of(cache)]
        return cache

    def mask(self) -> Tensor:
        """[B, P], 1 where a column holds a virtual token of the row, 0 in its padding."""
        columns = torch.arange(self.keys.shape[3], device=self.keys.device)
        return (columns >= (self.keys.shape[3] - self.lengths).unsqueeze(1)).long()


class _StandingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    kept: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> _StandingLayer:
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = layer.kept = keys, values
        return layer

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return torch.cat([self.kept[0], key_states], dim=-2), torch.cat([self.kept[1], value_states], dim=-2)


def _pad_front(prefix: KVPrefix, length: int) -> KVPrefix:
    missing = length - prefix.length
    return KVPrefix(*(torch.nn.functional.pad(part, (0, 0, missing, 0)) for part in (prefix.keys, prefix.values)))
