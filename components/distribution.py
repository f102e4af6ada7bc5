"""What this distribution is called where Python's packages are named, and which version of it is installed.

``preface`` is somebody else's package on PyPI, so nothing that is recorded may ask an index for that name.
"""

from __future__ import annotations

import importlib.metadata

NAME = "preface-adapters"


def version() -> str:
    """The installed version, as in ``0.1.0``."""
    return importlib.metadata.version(NAME)
