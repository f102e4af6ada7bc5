"""Prompt tuning (Lester, Al-Rfou and Constant 2021, arXiv:2104.08691): P input vectors in front of the text.

The vectors run through the frozen base once a step, not once a row: all rows share their keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.base.base_model import Base
from components.config.params import TaskParams
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.text import label_ids, sampled_ids, start_ids


class PromptTuning(nn.Module):
    """weight: the soft prompt [P, H], float32; without its first vector where that is frozen and stays first, [1, H].

    Every layer's keys and values follow from it.
    """

    frozen_layers = 0

    def __init__(self, whole: Tensor, frozen_first: bool = False) -> None:
        super().__init__()
        self.virtual_tokens = len(whole)
        self.frozen_first = frozen_first
        if frozen_first:
            self.register_buffer("first", whole[:1].clone())
        self.weight = nn.Parameter(whole[frozen_first:].clone())

    @classmethod
    def start(
        cls, base: Base, task: TaskParams, solved: Iterable[tuple[str, str]] = (), whole: Tensor | None = None
    ) -> PromptTuning:
        """Begin from a whole soft prompt [P, H]; or else from the task text, solved examples (text and target), the
        label words, sampled vocabulary, or at random, as params.yaml says."""
        begun = cls._begun(base, task, solved) if whole is None else whole
        return cls(begun, task.prompt.frozen_first)

    @staticmethod
    def _begun(base: Base, task: TaskParams, solved: Iterable[tuple[str, str]]) -> Tensor:
        settings = task.prompt
        generator = torch.Generator().manual_seed(settings.training.seed)
        embeddings: nn.Module = base.model.get_input_embeddings()
        table = embeddings.get_parameter("weight").detach().float().cpu()  # [V, H]
        length = settings.virtual_tokens
        sampled = table[sampled_ids(base, length, generator)]
        if settings.init in ("text", "examples"):
            return table[start_ids(base, task, settings.init, length, solved)]
        if settings.init == "labels":
            # A vector a label, the mean of its word's tokens; what is left over is sampled vocabulary.
            spoken = [table[word].mean(0) for word in label_ids(base, task)]
            return torch.cat([torch.stack(spoken), sampled])[:length] if spoken else sampled
        if settings.init == "vocabulary":
            return sampled
        return torch.rand(length, table.shape[1], generator=generator) - 0.5

    def whole(self) -> Tensor:
        """[P, H], differentiable in what is trained."""
        return torch.cat([self.get_buffer("first"), self.weight]) if self.frozen_first else self.weight

    def prefix(self, base: Base) -> KVPrefix:
        """One differentiable pass of P vectors through the base."""
        return KVPrefix.from_embeddings(base, self.whole())

    def folded(self) -> Tensor:
        """[P, H]"""
        return self.whole().detach().float().cpu()
