"""Data-parallel training: several processes, a device each, take every optimizer step together.

Each process holds the base and the adapter and runs its share of a step's rows; gradients, kilobytes to megabytes, are
added up by Hugging Face's accelerate, so that all take the very step that one process would take on all rows. Processes
are started in ``launch.py``. Knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; by default it is alone. device: its own, where sums are made."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def joined(cls, cpu: bool) -> ProcessGroup:
        """The crew that `accelerate launch` started this process for."""
        from accelerate import PartialState

        state = PartialState(cpu=cpu)
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Those that are this process's to work on; it may be none."""
        return items[self.rank :: self.size]

    def added_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same in each; every one must ask at the same place."""
        if self.size == 1:
            return values
        from accelerate.utils import reduce

        summed: Tensor = reduce(values.to(self.device), "sum")  # GPUs add up what is on GPUs alone
        return summed.to(values.device)


SINGLE_PROCESS = ProcessGroup()
