"""The most memory that a piece of work took is told, whatever was freed before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.evaluation import peak_memory
from components.evaluation.peak_memory import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20


def work(mib: int) -> None:
    """Many blocks of a size that the allocator keeps for itself when they are freed."""
    blocks = [torch.ones(16, 1024) for _ in range(mib * MIB // (16 * 1024 * 4))]
    assert len(blocks) > 1


@pytest.mark.parametrize("mib", [100, 300])
def test_the_peak_is_that_of_the_work_alone(mib: int) -> None:
    work(400)  # freed again: the allocator has room for all that follows
    memory = PeakMemory(CPU)
    work(mib)
    above = memory.above()
    assert above is not None
    assert 0.9 * mib * MIB <= above <= 1.5 * mib * MIB


def test_nothing_is_told_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "none" / "clear_refs")
    assert PeakMemory(CPU).above() is None
