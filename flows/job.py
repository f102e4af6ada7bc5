"""What crosses from one step of the flow to the next: small frozen records. They do nothing by themselves."""

from __future__ import annotations

from pathlib import Path

from components.base_model import bases_folder
from components.fingerprint import baselines_fingerprint
from components.params import BaseParams, MethodName, Record, TaskParams
from flows.data_step import DataVersion


class Job(Record):
    """One retraining, settled before anything is trained."""

    root: Path
    task: str
    params: TaskParams
    method: MethodName
    base: BaseParams
    data: DataVersion
    fingerprint: str
    forced: bool

    @property
    def folder(self) -> Path:
        """Where the run keeps its checkpoint, adapter and report until they are registered."""
        return self.root / ".preface" / "runs" / self.fingerprint[:16]

    @property
    def baselines_file(self) -> Path:
        """What the baselines answered to the test rows: the same for every method, so a later run finds it there."""
        mark = baselines_fingerprint(self.params, self.base.hash, self.data.content_hash)
        return self.root / ".preface" / "baselines" / f"{self.task}-{mark[:16]}.json"

    @property
    def base_folder(self) -> Path:
        """The materialised base."""
        return bases_folder(self.root) / self.params.base

    @property
    def examples_folder(self) -> Path:
        """The prepared rows."""
        return self.root / "data" / "prepared" / self.task

    def why_unchanged(self, known: Registered) -> str:
        """Why a version of the same fingerprint makes training pointless."""
        verdict = ", and its gate refused it" if known.refused else ""
        return (
            f"version {known.number} was trained by {self.method} tuning on the same "
            f"data ({self.data.content_hash[:12]}), base ({self.base.hash[:12]}) and "
            f"settings (fingerprint {self.fingerprint[:12]}){verdict}"
        )


class Registered(Record):
    """A candidate's version; ``duplicate_of`` the version that another run registered from exactly the same."""

    number: int
    refused: bool = False
    duplicate_of: str = ""


class InProduction(Record):
    """The champion and where its adapter folder lies."""

    number: int
    folder: Path


class Outcome(Record):
    """How a run ended. result: Unchanged, Duplicate, Staged, Promoted or GateRefused."""

    task: str
    method: MethodName
    result: str
    version: int
    message: str

    @property
    def refused(self) -> bool:
        """Whether the gate turned the candidate down."""
        return self.result == "GateRefused"
