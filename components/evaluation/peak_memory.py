"""The most memory that a piece of work took above what was taken when it began. Asks the system, changes no result."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Begins where it is made. On a GPU tensors count, else the whole process, where the system tells of it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before: int | None = torch.cuda.memory_allocated(device)
        else:
            _give_back()
            try:
                CLEAR.write_text("5")  # Linux forgets the peak so far
                self._before = _bytes("VmRSS")
            except OSError:
                self._before = None

    def above(self) -> int | None:
        """Bytes, the most since the beginning; None where that cannot be told."""
        if self._before is None:
            return None
        now = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else _bytes("VmHWM")
        return max(0, now - self._before)


def _bytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _give_back() -> None:
    """What earlier work has freed and the allocator keeps would be used again, and so not be seen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
