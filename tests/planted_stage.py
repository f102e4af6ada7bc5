"""Other code in the place of the stage `prepare`, for whatever Python starts with a certain PYTHONPATH."""

from __future__ import annotations

import os
from pathlib import Path

# Python imports it by itself when it starts.
SITE = """
import importlib.util, pathlib, sys

class Planted:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "components.data.prepare":
            return importlib.util.spec_from_file_location(name, pathlib.Path(__file__).with_name("planted.py"))

sys.meta_path.insert(0, Planted)
"""
ROOT = Path(__file__).parents[1]


def plant(folder: Path, code: str) -> str:
    """Write the code into a folder, and return the PYTHONPATH by which it is found."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    (folder / "planted.py").write_text(code, encoding="utf-8")
    return os.pathsep.join([str(folder), str(ROOT)])
