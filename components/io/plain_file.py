"""Bytes of a file that is a file, and no more of them than can be right. Knows nothing of what they mean."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from components.errors import ArtifactError


def read(path: Path, limit: int, remedy: str) -> bytes:
    """At most ``limit`` bytes of a regular file: no link out of the folder, no device, no pipe.

    Raises:
        ArtifactError: it is something else, or longer; ``remedy`` ends the message.
        OSError: it is not there, or is a link.
    """
    # Without O_NONBLOCK a planted pipe would hang the open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path} is not a regular file; {remedy}")
        if status.st_size > limit:
            raise ArtifactError(f"{path} has {status.st_size} bytes, at most {limit} can be right; {remedy}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)  # not of the limit: Python makes room for all that is asked for
    finally:
        os.close(descriptor)
