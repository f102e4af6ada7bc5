"""What crosses from one step of the flow to the next: small frozen records. They do nothing by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from components.base.base_model import bases_folder
from components.config.params import BaseParams, MethodName, Record, TaskParams
from components.provenance.fingerprint import baselines_fingerprint
from flows.dvc.repro import DataVersion
from registry.artifact.manifest import StartPin


class Job(Record):
    """One retraining, settled before anything is trained.

    ``sweep``: the MLflow run that found its settings, if one did; ``start``: the version that it goes on from as well.
    """

    root: Path
    task: str
    params: TaskParams
    method: MethodName
    base: BaseParams
    data: DataVersion
    fingerprint: str
    forced: bool
    sweep: str = ""
    start: StartPin | None = None

    @property
    def folder(self) -> Path:
        """Where the run keeps its checkpoint, adapter and report until they are registered."""
        return self.root / ".preface" / "runs" / self.fingerprint[:16]

    @property
    def promotes(self) -> bool:
        """Whether a pass goes on to Production with nobody asked."""
        return self.params.promotion == "auto"

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
        """The run's own copy of the prepared rows: a later preparation does not change them under it."""
        return self.folder / "rows"

    def why_unchanged(self, known: Registered) -> str:
        """Why a version of the same fingerprint makes training pointless."""
        verdict = ", and its gate refused it" if known.refused else ""
        return (
            f"version {known.number} was trained by {self.method} tuning on the same "
            f"data ({self.data.content_hash[:12]}), base ({self.base.hash[:12]}) and "
            f"settings (fingerprint {self.fingerprint[:12]}){verdict}"
        )


class Imported(Record):
    """An adapter that was trained elsewhere, and what is known of where.

    ``sha256`` of its tensor's file, ``base`` the name that it gives its base, ``base_hash`` empty where nothing proves
    one. ``declared``: who said all the same that it is the task's base, and against what; empty where that is proven.
    """

    folder: Path
    method: MethodName
    virtual_tokens: int
    sha256: str
    base: str
    base_hash: str
    declared: str


class Import(Job):
    """An adapter from elsewhere on its way in; ``method`` is its own."""

    imported: Imported

    @property
    def promotes(self) -> bool:
        """Where nothing but somebody's word stands for the base, somebody promotes it too."""
        return super().promotes and not self.imported.declared

    def why_unchanged(self, known: Registered) -> str:
        """Why a version of the same fingerprint makes importing pointless."""
        verdict = ", and its gate refused it" if known.refused else ""
        return (
            f"version {known.number} was imported from the same tensor ({self.imported.sha256[:12]}) for the same data "
            f"({self.data.content_hash[:12]}), base ({self.base.hash[:12]}) and wording{verdict}"
        )


class Fetched(Record):
    """A registered version, where its adapter folder lies, and its manifest's digest as it was registered."""

    task: str
    number: int
    folder: Path
    digest: str


class Evaluation(Job):
    """A registered version that is judged again; ``method`` and ``fingerprint`` are its own."""

    version: Fetched

    @property
    def folder(self) -> Path:
        """Beside those of unfinished runs: one of the same fingerprint may be under way."""
        return self.version.folder.parent

    def alone(self, rival: Fetched | None) -> str:
        """That nothing is to be compared with, since the version is the one in Production; empty if it is not."""
        number = self.version.number
        return f"version {number} is itself in Production" if rival and rival.number == number else ""


class Registered(Record):
    """A candidate's version; ``duplicate_of`` the version that another run registered from exactly the same.

    ``waits`` in Staging; ``own``: an earlier attempt of the very run that asks made it, and was killed after that.
    """

    number: int
    run: str = ""
    refused: bool = False
    waits: bool = False
    own: bool = False
    duplicate_of: str = ""


class Candidate(Record):
    """An adapter that waits to be judged: the file of its table, and the best validation loss of each start, where
    it was trained from more than one."""

    file: Path
    starts: Mapping[str, float] = Field(default_factory=dict)


class Promotion(Record):
    """Whether a version that passed went on into Production; ``kept`` says why not, where the task asked for it."""

    done: bool = False
    kept: str = ""


class Outcome(Record):
    """How a run ended. result: Unchanged, Duplicate, Staged, Promoted, Passed, GateRefused or Alert."""

    task: str
    method: MethodName
    result: str
    version: int
    message: str

    @property
    def refused(self) -> bool:
        """Whether somebody should look: the gate turned it down, or the champion is not what it should be."""
        return self.result in ("GateRefused", "Alert")
