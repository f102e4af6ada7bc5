"""A case as a stranger lives it: commands typed in a project's root, and how they came out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SECONDS = 400  # of one command


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Refused in words that can be read: exit 1, and one printable line on stderr, behind DVC's stages, that holds each
    of the words."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    *stages, said = done.stderr.strip().splitlines()
    assert all(line.startswith(("Running stage", "Stage ")) for line in stages), done.stderr
    assert said.startswith("error: "), said
    assert said.isprintable(), said
    for word in words:
        assert word.casefold() in said.casefold(), said


def prepared(done: subprocess.CompletedProcess[str]) -> None:
    """Done, whatever was said."""
    assert done.returncode == 0, done.stdout + done.stderr


class Case:
    """One case's files, and a project that has its tasks and bases beside the tiny base.

    Args:
        folder: the case's own copy of its files.
        root: the project's folder, which is made.
    """

    def __init__(self, folder: Path, root: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.root, self.environment = folder, root, dict(environment)

    def run(
        self, *command: str, at: str = "", seconds: float = SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Type ``preface COMMAND`` in the project's root, or in a folder ``at`` below it."""
        return self.python("-m", "cli.main", *command, at=at, seconds=seconds, **environment)

    def python(
        self, *arguments: str, at: str = "", seconds: float = SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGUMENTS`` there."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root / at,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def prepare(self, task: str) -> subprocess.CompletedProcess[str]:
        return self.run("prepare", task)

    def report(self, task: str) -> dict[str, Any]:
        """What ``preface prepare`` says of the rows."""
        return dict(json.loads((self.root / "data/prepared" / task / "data_report.json").read_text(encoding="utf-8")))

    def examples(self, task: str) -> list[dict[str, str]]:
        return list(pq.read_table(self.root / "data/prepared" / task / "examples.parquet").to_pylist())

    def edit(self, old: str, new: str) -> None:
        """Change params.yaml as typed."""
        file = self.root / "params.yaml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")
