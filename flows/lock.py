"""Writes requirements.lock: the exact version of everything in this environment. `make lock` runs it.

It decides no version: pip did, when the environment was made. It knows nothing of what any package is for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.errors import SetupError

HEADER = (
    "# Exact versions of everything, for Python 3.11. "
    "Written by 'make lock'; read by the Makefile and the Dockerfile.\n"
)
# A CUDA build of torch asks for these by itself: in the lock they would be installed beside a CPU build too.
CUDA_PARTS = re.compile(r"(nvidia|cuda)-|triton==")


def freeze() -> list[str]:
    """What pip says is installed here, without pip itself and this project."""
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude", "preface"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"pip freeze failed: {done.stderr.strip().splitlines()[-1]}; run 'make setup'")
    return done.stdout.splitlines()


def lines(frozen: Iterable[str]) -> Iterator[str]:
    """The lines worth locking; torch without the suffix of its build (+cpu, +cu130), so that any build fits."""
    for line in frozen:
        if "==" not in line:
            raise SetupError(f"{line!r} is not a released version; install it from a registry, then 'make lock'")
        if not CUDA_PARTS.match(line):
            yield re.sub(r"^(torch==[^+]+)\+.*", r"\1", line)


def write(to: Path, frozen: Iterable[str]) -> None:
    """The lock, complete or not at all."""
    text = HEADER + "".join(f"{line}\n" for line in lines(frozen))
    new = to.with_name(f"{to.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(to)


if __name__ == "__main__":
    try:
        write(Path("requirements.lock"), freeze())
    except SetupError as error:
        sys.exit(f"error: {error}")
