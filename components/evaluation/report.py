"""The report of a candidate: its scores on the held-out test split beside every baseline and the champion.

Test rows are answered here and nowhere else, and nothing is chosen by them. What follows from the scores is decided in
``gates/decide.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from components.config.params import TaskParams
from components.data.prepare import Examples
from components.evaluation.baselines import Answers
from components.evaluation.metrics import Scored, lead, score
from components.gates.decide import Champion
from components.records import MethodName, Record, Split

# What a contestant says to texts, in its own wording.
PredictFn = Callable[[Sequence[str]], list[str]]


class Report(Record):
    """What the gate decides on and the registry keeps; every contestant answered the same rows.

    ``champion_reason`` says why the version in Production has no scores here, or why there is none to compare with.
    ``starts``: where the candidate was trained from more than one start, the best validation loss of each.
    """

    task: str
    method: MethodName
    split: Split
    row_ids: list[str]
    targets: list[str]
    data_hash: str
    base_hash: str
    candidate: Scored
    baselines: dict[str, Scored]
    champion: Scored | None = None
    champion_version: int | None = None
    champion_reason: str = ""
    starts: dict[str, float] = Field(default_factory=dict)

    def in_production(self) -> Champion | None:
        """The champion as the gate wants it: None if there is none, without metrics if it could not be compared."""
        if self.champion_version is None:
            return None
        metrics = self.champion.metrics if self.champion else None
        return Champion(version=self.champion_version, metrics=metrics, reason=self.champion_reason)

    def unopposed(self) -> str:
        """Why there is no champion, where there is none."""
        return self.champion_reason or "nothing is in Production"


def scores(task: TaskParams, examples: Examples, asked: PredictFn) -> dict[str, float]:
    """One contestant alone on the test rows: its value by metric."""
    labels = list(task.data.labels) if task.data.labels else None
    rows = examples.of("test")
    return score(asked([row.text for row in rows]), [row.target for row in rows], labels).metrics


def evaluate(
    base_hash: str,
    name: str,
    task: TaskParams,
    method: MethodName,
    examples: Examples,
    candidate: PredictFn,
    measured: Mapping[str, Answers],
    champion: PredictFn | None = None,
    champion_version: int | None = None,
    champion_reason: str = "",
) -> Report:
    """Ask the candidate, each baseline and the champion every test row, and score them alike.

    Args:
        base_hash: of the base that the candidate answers with.
        measured: what each baseline answered to the test rows, in their order (``baselines.run``).
        champion: the version in Production, if it can be compared.
        champion_version: its version, also when it could not be compared; ``champion_reason`` then says why.
    """
    labels = list(task.data.labels) if task.data.labels else None
    rows = examples.of("test")
    texts, targets = [row.text for row in rows], [row.target for row in rows]

    own = score(candidate(texts), targets, labels)

    def beside(other: Scored, choice: str = "") -> Scored:
        return other.model_copy(update={"choice": choice, "lead": lead(own, other)})

    return Report(
        task=name,
        method=method,
        split="test",
        row_ids=[row.id for row in rows],
        targets=targets,
        data_hash=examples.content_hash,
        base_hash=base_hash,
        candidate=own,
        baselines={
            other: beside(score(given.predictions, targets, labels), given.choice) for other, given in measured.items()
        },
        champion=beside(score(champion(texts), targets, labels)) if champion else None,
        champion_version=champion_version,
        champion_reason=champion_reason,
    )
