"""Our training step with one exact saving switched off: the same loss and gradient, by more work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from components.base.base_model import Base
from components.prefix.decoder import Decoder, logits
from components.prefix.kv_prefix import KVPrefix, PrefixRows, layers_of
from components.training import losses, trainer
from components.training.batches import TrainingRow, collate

Step = Callable[[Sequence[TrainingRow]], None]
Switch = Callable[[int], AbstractContextManager[object]]  # of the rows in a batch
SHARED = "soft prompt once a step"
FASTER = "attention by plain products"  # as much work, done faster
LEANER = "norms and gated networks keep their input alone"  # as much work, in less memory


def _head_everywhere(_: int) -> AbstractContextManager[object]:
    def whole(
        base: Base, prefixes: Sequence[KVPrefix], batches: Sequence[Sequence[TrainingRow]], _: object = None
    ) -> list[Tensor]:
        [prefix], [rows] = prefixes, batches
        ids, counts, places, labels = collate(rows, base)
        with losses.narrowed(base, places):
            hidden = Decoder.behind(base, PrefixRows.broadcast(prefix, len(rows))).read(ids, counts)
        scores = logits(base, hidden).flatten(0, 1)[places]
        return [cross_entropy(scores, labels, reduction="sum")]

    both = ExitStack()
    for module in (losses, trainer):
        both.enter_context(patch.object(module, "losses", whole))
    return both


def _whole_last_layer(_: int) -> AbstractContextManager[object]:
    return patch.object(losses, "narrowed", lambda base, places: nullcontext())


@contextmanager
def _prompt_in_each_row(rows: int) -> Iterator[None]:
    def from_embeddings(base: Base, embeddings: Tensor) -> KVPrefix:
        each = embeddings.to(base.device, base.dtype).expand(rows, -1, -1)
        cache = DynamicCache()
        base.model.base_model(inputs_embeds=each, past_key_values=cache, use_cache=True)
        keys, values = zip(*layers_of(cache), strict=True)
        return KVPrefix(torch.stack(keys).mean(1), torch.stack(values).mean(1))

    with patch.object(KVPrefix, "from_embeddings", staticmethod(from_embeddings)):
        yield


def _fused_attention(_: int) -> AbstractContextManager[object]:
    return patch.object(trainer, "plain_products", lambda base, methods, batches: nullcontext())


def _keeping_layers(_: int) -> AbstractContextManager[object]:
    return patch.object(trainer, "lean", lambda base: nullcontext())


SWITCHES: dict[str, Switch] = {
    "head at labels alone": _head_everywhere,
    "last feed-forward at labels alone": _whole_last_layer,
    SHARED: _prompt_in_each_row,
    FASTER: _fused_attention,
    LEANER: _keeping_layers,
}


def switched_off(switch: Switch, step: Step) -> Step:
    """The step as it would be without that saving."""

    def dearer(rows: Sequence[TrainingRow]) -> None:
        with switch(len(rows)):
            step(rows)

    return dearer
