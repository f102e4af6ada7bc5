"""Python's search for cycles of objects, kept off what a process has imported and keeps to its end.

PyTorch, MLflow and Prefect make over a million objects while they are imported. Searching all of them again and again
while more come, and once more when Python ends, cost a run about two seconds.
"""

from __future__ import annotations

import atexit
import gc

NEW_OBJECTS = 50_000  # between two searches; Python's own 700 is for programs of a few modules


def tune_gc() -> None:
    """Search seldom, and not at the end. Whatever ``atexit`` holds is still done."""
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)
