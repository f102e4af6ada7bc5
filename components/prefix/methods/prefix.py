"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190): the keys and values of P virtual tokens, in every layer.

Without reparameterization the keys and values are the parameters. With it, a feed-forward network of one table of P
vectors makes what is ADDED to the first keys and values; its last layer begins at zero, so that both forms begin at the
same prefix. The network is folded away when the adapter is saved.

With ``layers`` only the last so many layers are trained; below them the keys and values that it began from stay, so
that what those layers make of a row need not be computed twice. What is saved is a whole prefix all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.base.base_model import Base
from components.config.params import PrefixParams, TaskParams
from components.errors import ParamsError
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.text import label_ids, sampled_ids, start_ids

RANDOM_SCALE = 0.02


class PrefixTuning(nn.Module):
    """table: [P, k*2*Hkv*D] in PEFT's layout, float32, of the k layers that are trained; network: [P, H'] -> the same,
    or none; below: [P, (L-k)*2*Hkv*D], which stays. With a frozen first token, first is its row of the k layers, and
    table and network are of the others."""

    def __init__(self, base: Base, whole: Tensor, settings: PrefixParams, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = base.shape
        self.virtual_tokens = len(whole)
        self.frozen_layers = base.shape.layers - (settings.layers or base.shape.layers)
        self.network: nn.Sequential | None = None
        columns = self.frozen_layers * 2 * base.shape.kv_heads * base.shape.head_size
        below, above = whole[:, :columns], whole[:, columns:]
        if columns:
            self.register_buffer("below", below.clone())
        self.frozen_first = settings.frozen_first
        if self.frozen_first:
            self.register_buffer("first", above[:1].clone())
        table, width = above[self.frozen_first :].clone(), settings.reparameterization
        if width is None:
            self.table = nn.Parameter(table)
            return
        self.register_buffer("start_table", table)
        self.seeds = nn.Parameter(torch.randn(len(table), width, generator=generator))
        inner, outer = nn.Linear(width, width), nn.Linear(width, table.shape[1])
        with torch.no_grad():
            inner.weight.copy_(torch.randn(width, width, generator=generator) / width**0.5)
            for tensor in (inner.bias, outer.weight, outer.bias):
                tensor.zero_()
        self.network = nn.Sequential(inner, nn.Tanh(), outer)

    @classmethod
    def start(
        cls, base: Base, task: TaskParams, solved: Iterable[tuple[str, str]] = (), whole: Tensor | None = None
    ) -> PrefixTuning:
        """Begin from a whole prefix [P, L*2*Hkv*D]; or else from the keys and values of the task text, of solved
        examples (text and target), of the label words, of sampled vocabulary, or at random, as params.yaml says."""
        settings = task.prefix
        generator = torch.Generator().manual_seed(settings.training.seed)
        if whole is not None:
            table = whole
        elif settings.init != "random":
            ids = cls._begun(base, task, solved, generator)
            table = KVPrefix.from_tokens(base, ids).to_peft().float().cpu()
        else:
            columns = base.shape.layers * 2 * base.shape.kv_heads * base.shape.head_size
            table = RANDOM_SCALE * torch.randn(settings.virtual_tokens, columns, generator=generator)
        if settings.layers and settings.layers > base.shape.layers:
            raise ParamsError(
                f"prefix.layers is {settings.layers}, the base {base.name} has {base.shape.layers} layers; "
                "leave it out to train them all"
            )
        return cls(base, table, settings, generator)

    @staticmethod
    def _begun(
        base: Base, task: TaskParams, solved: Iterable[tuple[str, str]], generator: torch.Generator
    ) -> list[int]:
        """Ids of the tokens whose keys and values it begins as."""
        init, length = task.prefix.init, task.prefix.virtual_tokens
        if init in ("text", "examples"):
            return start_ids(base, task, init, length, solved)
        sampled = sampled_ids(base, length, generator)
        spoken = [token for word in label_ids(base, task) for token in word] if init == "labels" else []
        return [*spoken, *sampled][:length]

    def _trained(self) -> Tensor:
        if self.network is None:
            return self.table
        added: Tensor = self.network(self.seeds)
        return self.get_buffer("start_table") + added

    def _whole(self) -> Tensor:
        trained = self._trained()
        if self.frozen_first:
            trained = torch.cat([self.get_buffer("first"), trained])
        return torch.cat([self.get_buffer("below"), trained], dim=1) if self.frozen_layers else trained

    def prefix(self, base: Base) -> KVPrefix:
        """Read off the table, through the network where there is one."""
        return KVPrefix.from_peft(self._whole(), self.shape).to(base.device, base.dtype)

    def folded(self) -> Tensor:
        """[P, L*2*Hkv*D], the network's share added in."""
        return self._whole().detach().float().cpu()
