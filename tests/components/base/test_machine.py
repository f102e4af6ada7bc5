"""A machine's record: what an adapter's last bits depend on, told alike each time and told apart where it differs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import load
from components.base.machine import cpu_kind, machine_of

X86 = "processor\t: 0\nmodel name\t: Maker Chip 9\ncpu family\t: 26\nmodel\t\t: 2\n\nprocessor\t: 1\nmodel\t: 3\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (X86, "mill, Maker Chip 9, cpu family 26, model 2"),
        (ARM, "mill, CPU implementer 0x41, CPU part 0xd40"),
        ("", "mill"),
        (None, "mill"),
    ],
)
def test_a_kind_of_processor(text: str | None, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "mill")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert cpu_kind(tmp_path / "cpuinfo") == kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_this_machine_as_the_base_uses_it(tiny_base_folder: Callable[..., Path], dtype: torch.dtype) -> None:
    folder = tiny_base_folder()
    base = load(folder, hash_base(folder).value, device="cpu", dtype=dtype)
    said = machine_of(base)
    assert (said.device, said.dtype) == ("cpu", str(dtype).removeprefix("torch."))
    assert said.threads == torch.get_num_threads()
    assert torch.backends.cpu.get_cpu_capability() in said.processor
    assert machine_of(base) == said


def test_reading_a_record_needs_no_torch() -> None:
    """A manifest holds one, and promotion reads manifests."""
    code = "import sys, components.base.machine; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
