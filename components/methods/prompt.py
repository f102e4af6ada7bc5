"""Prompt tuning (Lester, Al-Rfou and Constant 2021, arXiv:2104.08691): P input vectors in front of the text.

The vectors run through the frozen base once a step, not once a row: all rows share their keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.base_model import Base
from components.kv_prefix import KVPrefix
from components.methods.text import start_ids
from components.params import TaskParams
from components.template import ids_of

# Lester et al. sample from the 5,000 most common tokens; byte-pair merges stand in order of frequency.
COMMON_TOKENS = 5000


class PromptTuning(nn.Module):
    """weight: the soft prompt [P, H], float32. Every layer's keys and values follow from it."""

    frozen_layers = 0

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.virtual_tokens = len(weight)

    @classmethod
    def start(cls, base: Base, task: TaskParams, solved: Iterable[tuple[str, str]] = ()) -> PromptTuning:
        """Begin from the task text, solved examples (text and target), the label words, sampled vocabulary, or at
        random, as params.yaml says."""
        settings = task.prompt
        generator = torch.Generator().manual_seed(settings.training.seed)
        embeddings: nn.Module = base.model.get_input_embeddings()
        table = embeddings.get_parameter("weight").detach().float().cpu()  # [V, H]
        length = settings.virtual_tokens
        sampled = table[torch.randint(min(COMMON_TOKENS, len(table)), (length,), generator=generator)]
        if settings.init in ("text", "examples"):
            return cls(table[start_ids(base, task, settings.init, length, solved)])
        if settings.init == "labels":
            # A vector a label, the mean of its word's tokens; what is left over is sampled vocabulary.
            spoken = [table[ids_of(base.words, f" {word}")].mean(0) for word in (task.data.labels or {}).values()]
            return cls(torch.cat([torch.stack(spoken), sampled])[:length] if spoken else sampled)
        if settings.init == "vocabulary":
            return cls(sampled)
        return cls(torch.rand(length, table.shape[1], generator=generator) - 0.5)

    def prefix(self, base: Base) -> KVPrefix:
        """One differentiable pass of P vectors through the base."""
        return KVPrefix.from_embeddings(base, self.weight)

    def folded(self) -> Tensor:
        """[P, H]"""
        return self.weight.detach().float().cpu()
