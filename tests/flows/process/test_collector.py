"""What Python's end still does when it searches for no cycles: everything that was registered for it."""

from __future__ import annotations

import subprocess
import sys

AT_THE_END = """
import atexit, gc, threading
from flows.process import collector
collector.tune_gc()
atexit.register(lambda: print("registered"))
main = threading.main_thread()
threading.Thread(target=lambda: (main.join(), print("thread"))).start()
{failing}
"""


def ended(failing: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", AT_THE_END.format(failing=failing)], capture_output=True, text=True)
    return done.returncode, done.stdout.split()


def test_threads_and_what_is_registered_come_to_their_end() -> None:
    assert ended("") == (0, ["thread", "registered"])


def test_a_status_is_kept() -> None:
    assert ended("raise SystemExit(3)") == (3, ["thread", "registered"])


def test_cycles_are_still_collected_while_it_runs() -> None:
    looped = "class A: pass\nfor _ in range(300_000):\n    a = A(); a.a = a\nprint(gc.get_count()[0] < 300_000)"

    assert ended(looped) == (0, ["True", "thread", "registered"])
