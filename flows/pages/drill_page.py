"""What a drill came to, a record for each task, and how that is shown. Pure."""

from __future__ import annotations

from pydantic import Field

from components.records import Record

PARTS = ("fetch", "verify", "base", "load", "answer")


class Landing(Record):
    """Where a rollback of a task would land; no version where there is none, and why."""

    task: str
    version: int | None
    base_hash: str = ""
    note: str = ""
    fault: str = ""


class Drilled(Record):
    """How a landing version did.

    Attributes:
        score: of ``rows`` rows by ``metric``; ``registered`` is what all test rows scored when it was registered.
        seconds: by part (PARTS). The base is loaded once for all versions that run on it.
        note: what one should know of how it was asked, or why there was nothing to ask.
        fault: why it failed; empty if it did not.
    """

    task: str
    version: int | None
    metric: str = ""
    score: float | None = None
    registered: float | None = None
    rows: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    note: str = ""
    fault: str = ""

    @property
    def name(self) -> str:
        return f"{self.task}@{self.version}" if self.version is not None else self.task

    @property
    def result(self) -> str:
        """In a word or two."""
        if self.fault:
            return "FAILED"
        return "answers" if self.version is not None else "nothing to roll back to"

    def row(self) -> dict[str, object]:
        """A line of the table."""
        score = f"{self.metric} {self.score:.4f} of {self.rows} rows" if self.score is not None else None
        return {
            "task": self.task,
            "lands on": self.version,
            "result": self.result,
            "score": score,
            "registered": self.registered,
            **{f"{part} s": f"{self.seconds[part]:.2f}" if part in self.seconds else None for part in PARTS},
            "note": self.fault or self.note or None,
        }
