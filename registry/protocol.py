"""What the registry keeps of an adapter, and what a store must be able to do for the rules to rest on it.

``registry/mlflow/store.py`` does it with MLflow, the tests also with a dictionary. No rule is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from registry.release_log import PREFIX, Release

Stage = Literal["None", "Staging", "Production", "Archived"]


@dataclass(frozen=True)
class Gate:
    """What a version's gate said, and the stored report that says so; one tag, so that it changes as a whole."""

    verdict: str
    report: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.verdict} {self.report} {self.sha256}"

    def is_of(self, report: bytes) -> bool:
        """Whether these are the bytes of the report that it was registered with."""
        return report_digest(report) == self.sha256


def report_digest(report: bytes) -> str:
    """What a version's tag keeps of its gate report's bytes, in hexadecimal digits."""
    return hashlib.sha256(report).hexdigest()


@dataclass(frozen=True)
class Version:
    """A registered adapter as the store tells of it. ``tags`` are all of its tags, ours begin with ``preface.``."""

    task: str
    number: int
    stage: Stage
    tags: Mapping[str, str]
    run_id: str
    source: str
    created: datetime
    ready: bool
    aliases: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.task}@{self.number}"

    def tag(self, key: str) -> str:
        """One of our own tags, empty if it is not there."""
        return self.tags.get(PREFIX + key, "")

    @property
    def gate(self) -> Gate:
        """Empty parts where nothing, or nothing readable, is recorded."""
        parts = self.tag("gate").split(" ")
        return Gate(*parts) if len(parts) == 3 else Gate("", "", "")


@dataclass(frozen=True)
class Run:
    """A training run as the store tells of it; ``datasets`` are the digests of the rows that it used."""

    status: str
    deleted: bool
    tags: Mapping[str, str]
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A run that failed: when (an ISO time), and of what, in one line."""

    run: str
    when: str
    error: str


@dataclass(frozen=True)
class Head:
    """One task out of the store's overview: as much as bulk queries tell.

    ``latest`` are the highest versions at each stage, ``last`` the last entry of the log, which may be void; None where
    the store cannot say, or where the task has no log.
    """

    task: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    latest: Sequence[Version]
    last: Release | None


class Store(Protocol):
    """What the rules need of a registry. Reads of what does not exist raise ``NotFound``.

    A task exists by its versions, or by its release log where they were deleted; it then has no versions and no tags.
    """

    def version(self, task: str, number: int) -> Version: ...
    def versions(self, task: str) -> list[Version]: ...
    def task_tags(self, task: str) -> Mapping[str, str]: ...
    def by_fingerprint(self, task: str, fingerprint: str) -> list[Version]: ...
    def overview(self) -> list[Head]: ...
    def register(self, task: str, folder: Path, run_id: str, tags: Mapping[str, str], description: str) -> Version: ...
    def download(self, version: Version) -> Path: ...
    def log_files(self, run_id: str, paths: Sequence[Path], artifact_path: str) -> None: ...
    def read_file(self, run_id: str, path: str) -> bytes: ...
    def run(self, run_id: str) -> Run: ...
    def set_stage(self, task: str, number: int, stage: Stage) -> None: ...
    def set_alias(self, task: str, alias: str, number: int | None) -> None: ...
    def tag_version(self, task: str, number: int, key: str, value: str) -> None: ...
    def tag_task(self, task: str, key: str, value: str) -> None: ...
    def untag_task(self, task: str, key: str) -> None: ...
    def append_release(self, task: str, release: Release) -> int: ...
    def releases(self, task: str) -> list[Release]: ...
