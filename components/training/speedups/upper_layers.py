"""Reading from the middle of the base: what the lower layers make of a row is computed once and kept.

Where training leaves the keys and values of the lower layers alone, their outputs for a row never change, so that once
it was read, later epochs run the upper layers only, forward and backward. The outputs lie in one memory-mapped file,
which the system may drop from memory; rows that it has no room for are read anew each time. This module does not know
how a prefix was made or what is learned of the rows.

Notation: B batch, T text tokens, H hidden size, L layers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.base.base_model import Base
from components.errors import TrainingError
from components.prefix.decoder import Decoder, pad
from components.prefix.kv_prefix import KVPrefix, PrefixRows
from components.training.speedups.last_layer import layers_of

Ids = tuple[int, ...]
KEPT_BYTES = 4 * 2**30


class _Reached(Exception):
    """The layer up to which was to be read; what comes after is not run."""


@dataclass(frozen=True)
class UpperLayers:
    """first: the lowest layer that is run; states: [N, H], the inputs of it for all tokens of the rows kept;
    places: where in it a row begins; lower: the prefix that those are behind; known: the rows that were read before."""

    base: Base
    first: int
    lower: KVPrefix
    states: Tensor
    places: dict[Ids, int]
    known: set[Ids]

    @classmethod
    def above(cls, base: Base, first: int, prefix: KVPrefix, rows: Sequence[Ids]) -> UpperLayers:
        """Make room for what the layers below ``first`` make of the rows, behind the prefix, once each is read.

        Args:
            rows: token ids; the same row twice is kept once.

        Raises:
            TrainingError: the base cannot be run from its middle.
        """
        lower = KVPrefix(prefix.keys.detach(), prefix.values.detach())
        room = KEPT_BYTES // (base.shape.hidden * base.dtype.itemsize)
        places: dict[Ids, int] = {}
        used, different = 0, sorted(set(rows), key=lambda row: (len(row), row))
        for row in different:
            if used + len(row) > room:
                break
            places[row] = used
            used += len(row)
        made = cls(base, first, lower, _mapped(used, base), places, set())
        made._refuse_unequal(different[-4:])
        return made

    def read(self, front: PrefixRows, rows: Sequence[Ids]) -> Tensor:
        """Final hidden states [B, T, H] of rows behind their prefixes, as ``Decoder.read`` gives them.

        Differentiable in the prefixes from layer ``first`` on; below it they must be those that were begun with.
        """
        _, counts = pad(rows, self.base)
        hidden = torch.zeros(
            len(rows), int(counts.max()), self.base.shape.hidden, dtype=self.base.dtype, device=self.base.device
        )
        for number, row in enumerate(rows):
            if row in self.known:
                at = self.places[row]
                hidden[number, : len(row)] = self.states[at : at + len(row)].to(self.base.device)
        absent, below = self.first_read(rows)
        if below is not None:
            hidden[torch.tensor(absent, device=hidden.device), : below.shape[1]] = below
        with _from_layer(self.base, self.first):
            return Decoder.behind(self.base, front, once=True).read_states(hidden, counts)

    def first_read(self, rows: Sequence[Ids]) -> tuple[list[int], Tensor | None]:
        """Numbers of the rows that are not kept, and what the lower layers make of them: kept, if there is room."""
        absent = [number for number, row in enumerate(rows) if row not in self.known]
        if not absent:
            return [], None
        below = self._below([rows[number] for number in absent])
        for number, states in zip(absent, below, strict=True):
            row = rows[number]
            if row in self.places:
                at = self.places[row]
                self.states[at : at + len(row)] = states[: len(row)].cpu()
                self.known.add(row)
        return absent, below

    @torch.no_grad()
    def _below(self, rows: Sequence[Ids]) -> Tensor:
        """[B, T, H], the inputs of layer ``first``."""
        found: list[Tensor] = []

        def stop(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(given[0] if given else named["hidden_states"])
            raise _Reached

        _, layers = _layers(self.base)
        hook = layers[self.first].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            Decoder.behind(self.base, PrefixRows.broadcast(self.lower, len(rows))).read(*pad(rows, self.base))
        except _Reached:
            return found[0]
        finally:
            hook.remove()
        raise AssertionError("a layer of the base was never run")

    @torch.no_grad()
    def _refuse_unequal(self, rows: Sequence[Ids]) -> None:
        """Some architectures do more to their input than their layers do, which from the middle would be done twice."""
        front = PrefixRows.broadcast(self.lower, len(rows))
        ids, counts = pad(rows, self.base)
        whole = Decoder.behind(self.base, front).read(ids, counts)
        below = self._below(rows)
        with _from_layer(self.base, self.first):
            split = Decoder.behind(self.base, front).read_states(below, counts)
        real = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0) < counts.unsqueeze(1)
        apart = float((split[real] - whole[real]).float().norm() / whole[real].float().norm())
        near = 1e-4 if self.base.dtype == torch.float32 else 0.05
        if not apart <= near:
            raise TrainingError(
                f"{self.base.name} cannot be run from layer {self.first}: its final states differ by {apart:.2g} of "
                f"their size, {near:g} is allowed; take prefix.layers out of params.yaml"
            )


def _layers(base: Base) -> tuple[str, nn.ModuleList]:
    found = layers_of(base)
    if found is None:
        raise TrainingError(
            f"{base.name} does not keep its {base.shape.layers} layers in one list; take prefix.layers out of "
            "params.yaml"
        )
    return found


@contextmanager
def _from_layer(base: Base, first: int) -> Iterator[None]:
    """While this lasts the model has its upper layers only; each still knows its number, and so its part of a cache."""
    name, layers = _layers(base)
    setattr(base.model.base_model, name, nn.ModuleList(list(layers)[first:]))
    try:
        yield
    finally:
        setattr(base.model.base_model, name, layers)


def _mapped(tokens: int, base: Base) -> Tensor:
    """[tokens, H] in a file that has no name any more, so that nothing is left of it however the process ends.

    Raises:
        TrainingError: the disk has no room for all of it, which writing into the map would tell by a signal.
    """
    with tempfile.NamedTemporaryFile(prefix="lower-layers-") as file:
        size = tokens * base.shape.hidden
        if size:
            try:
                os.posix_fallocate(file.fileno(), 0, size * base.dtype.itemsize)
            except OSError as error:
                raise TrainingError(
                    f"{tempfile.gettempdir()} has no room for {size * base.dtype.itemsize / 2**20:.0f} MiB of what the"
                    f" lower layers make of the rows ({error}); set TMPDIR to where there is, or take prefix.layers out"
                    " of params.yaml"
                ) from error
        flat = torch.from_file(file.name, shared=True, size=size, dtype=base.dtype)
    return flat.view(tokens, base.shape.hidden)
