"""Processes that end with the one that started them, however that ends: also by SIGKILL.

`python -m components.tied PID COMMAND...` ties itself to PID, its parent, and then becomes COMMAND. A function that ran
between fork and exec would do the same, and may hang where the parent has threads. The means is Linux's own, and looks
at the parent's thread: a thread that starts such a process lives at least as long as that is to. It knows no process of
ours.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """The command line for ``command`` tied to this process: SIGTERM comes when this one is gone."""
    return [sys.executable, "-P", "-m", __name__, str(os.getpid()), *command]


def tie(parent: int) -> None:
    """Tie this process to its parent; it ends at once where that is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # gone before it was said
        sys.exit(f"the process {parent}, which started this one, is gone")


def main() -> None:
    """Become the command that the arguments name."""
    tie(int(sys.argv[1]))
    command = sys.argv[2:]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
