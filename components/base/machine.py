"""The machine that an adapter was trained on, as far as the adapter's last bits depend on it.

It asks this machine and changes nothing; importing it brings no torch. What a difference means is not decided here.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from components.records import Count, Record

if TYPE_CHECKING:
    from components.base.base_model import Base

CPUINFO = Path("/proc/cpuinfo")
# What tells a kind of processor, in the words of x86 and of ARM.
_KIND = ("model name", "cpu family", "model", "CPU implementer", "CPU part")


class Machine(Record):
    """processor: the kind of what multiplied the matrices. dtype: of the base; an adapter itself is float32."""

    processor: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    threads: Count


def machine_of(base: Base) -> Machine:
    """This machine, as it trains and answers with a loaded base."""
    import torch

    # Which instructions the libraries choose follows from the processor, and can be held down by the environment.
    cpu = f"{cpu_kind(CPUINFO)}, {torch.backends.cpu.get_cpu_capability()}"
    processor = torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else cpu
    return Machine.model_validate(
        {
            "processor": processor,
            "device": base.device.type,
            "dtype": str(base.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }
    )


def cpu_kind(cpuinfo: Path) -> str:
    """Maker and model; where the system does not tell, the architecture alone."""
    facts: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name", "")
    rest = [f"{key} {facts[key]}" for key in _KIND[1:] if facts.get(key)]
    return ", ".join(part for part in (platform.machine(), name, *rest) if part)
