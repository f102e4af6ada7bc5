"""Processes that end with their parent, by whatever it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from components.tied import tied

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = """
import subprocess, sys, threading, time
from components.tied import tied
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
child = subprocess.Popen(tied([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]),
                         stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(kind: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not gone(child, 0.2)

    parent.send_signal(kind)
    parent.wait()
    parent.stdout.close()

    assert gone(child)


def test_one_whose_parent_is_gone_already_does_nothing() -> None:
    command = tied(SLEEP)
    command[command.index(str(os.getpid()))] = "1"

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "the process 1, which started this one, is gone" in done.stderr


def test_it_becomes_the_command() -> None:
    code = "import sys; print(sys.argv[1:]); sys.exit(3)"

    done = subprocess.run(tied([sys.executable, "-c", code, "a b", "--c"]), capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (3, "['a b', '--c']\n")
