"""Writes requirements.lock: the exact version of everything in this environment. `make lock` runs it.

What only tests and linters ask for stands at its end, under a heading of its own: an image leaves that part out. It
decides no version: pip did, when the environment was made. It knows nothing of what any package is for.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components import distribution
from components.errors import SetupError
from components.io import atomic

HEADER = (
    "# Exact versions of everything, for Python 3.11. "
    "Written by 'make lock'; read by the Makefile and the Dockerfile.\n"
)
TESTS_ALONE = "# Tests alone: an image leaves out what stands from here on.\n"
# A CUDA build of torch asks for these by itself: in the lock they would be installed beside a CPU build too.
CUDA_PARTS = re.compile(r"(nvidia|cuda)-|triton==")


def freeze() -> list[str]:
    """What pip says is installed here, without pip itself and this project."""
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude", distribution.NAME]
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


def runtime(project: Path) -> set[str]:
    """The names of all that running Preface asks for: what pyproject.toml declares, and whatever that depends on."""
    declared = tomllib.loads(project.read_text(encoding="utf-8"))
    waiting = [
        Requirement(line) for line in (*declared["project"]["dependencies"], *declared["build-system"]["requires"])
    ]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        name, extras = canonicalize_name(asked.name), frozenset(asked.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another machine, such as the parts of CUDA
        waiting += [each for each in map(Requirement, needed) if _is_asked(each, extras)]
    return {name for name, _ in seen}


def _is_asked(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement holds here, by itself or through one of the extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def write(to: Path, frozen: Iterable[str], needed: set[str]) -> None:
    """The lock, complete or not at all.

    Args:
        needed: what running asks for; the rest stands under the heading of the tests.
    """
    locked = list(lines(frozen))
    run = [line for line in locked if canonicalize_name(line.split("==")[0]) in needed]
    tests = [line for line in locked if line not in run]
    atomic.write_text(
        to, "".join([HEADER, *(f"{line}\n" for line in run), TESTS_ALONE, *(f"{line}\n" for line in tests)])
    )


if __name__ == "__main__":
    try:
        write(Path("requirements.lock"), freeze(), runtime(Path("pyproject.toml")))
    except SetupError as error:
        sys.exit(f"error: {error}")
