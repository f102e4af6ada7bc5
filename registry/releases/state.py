"""A task as the store has it at one moment: versions, release log and tags, and in what they disagree.

Pure, but for ``read``. The log is the truth; stages and aliases are shown beside it. Whether a disagreement is what a
crash left (mended by whoever comes next) or was made by hand (told, and left alone) is decided here, by two marks that
every operation leaves on the task: ``preface.projected`` says which entry stages and aliases were last brought after,
``preface.pending.TOKEN`` that somebody is at it. What is done about it is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from registry.protocol import Store, Version
from registry.release_log import NO_ENTRY, PREFIX, Release, breaks, count, effective, last_good

PROJECTED = PREFIX + "projected"
PENDING = PREFIX + "pending."


@dataclass(frozen=True)
class State:
    """What the store says of a task."""

    task: str
    versions: Sequence[Version]
    entries: Sequence[Release]
    tags: Mapping[str, str]

    @cached_property
    def line(self) -> list[Release]:
        """The entries that took effect, oldest first."""
        return effective(self.entries)

    @property
    def head(self) -> Release | None:
        """The entry that says what is in Production."""
        return self.line[-1] if self.line else None

    @property
    def live(self) -> Version | None:
        """The version in Production; None also where somebody deleted it from MLflow."""
        return self.get(self.head.version) if self.head and self.head.version in self.released else None

    @cached_property
    def released(self) -> set[int]:
        """The versions that are or were in Production, of those that are there."""
        return {version.number for version in self.versions if any(matches(entry, version) for entry in self.line)}

    @property
    def staged(self) -> Version | None:
        """The version in Staging."""
        return max((v for v in self.versions if v.stage == "Staging"), key=lambda v: v.number, default=None)

    @property
    def shown(self) -> tuple[set[int], set[int]]:
        """The versions at MLflow's stage Production, and under its alias."""
        return (
            {v.number for v in self.versions if v.stage == "Production"},
            {v.number for v in self.versions if "production" in v.aliases},
        )

    @property
    def projected(self) -> tuple[int, str]:
        """Number and hash of the entry that stages and aliases were last brought after."""
        number, _, digest = self.tags.get(PROJECTED, "").partition(" ")
        found = count(number)
        return (NO_ENTRY, "") if found is None else (found, digest)

    @property
    def pending(self) -> dict[str, str]:
        """Marks of operations that are under way, or were killed: tag -> who and when."""
        return {key: value for key, value in self.tags.items() if key.startswith(PENDING)}

    @property
    def unsettled(self) -> list[Version]:
        """Versions whose registration, or whose new gate report, did not reach its end."""
        return [v for v in self.versions if v.ready and v.tag("gate") and v.tag("settled") != v.tag("gate")]

    @property
    def unprojected(self) -> bool:
        """Whether the head took effect, and stages and aliases were not yet brought after it."""
        return self.head is not None and bool(self.versions) and self.projected[0] < self.head.number

    @property
    def interrupted(self) -> bool:
        """Whether something began here and did not end: what then disagrees is nobody's decision."""
        return bool(self.pending or self.unsettled) or self.unprojected

    def get(self, number: int) -> Version | None:
        return next((v for v in self.versions if v.number == number), None)

    def good_before(self, undone: Callable[[Release], bool] = lambda entry: False) -> int | None:
        """The version that was last good before the present one, of those that were not deleted from MLflow.

        Args:
            undone: entries that are to be undone together with the head.
        """
        return last_good(self.line, lambda entry: entry.version not in self.released or undone(entry))

    @property
    def gone(self) -> str:
        """That what was put into Production is not there, in words; empty if it is."""
        head = self.head
        if head is None or self.live is not None:
            return ""
        if there := self.get(head.version):
            now = there.tag("manifest_digest")[:12] or "none"
            return (
                f"release {head.number} put version {head.version} with the digest {head.digest[:12]} into Production,"
                f" but version {head.version} has {now}: the one was deleted and its number is another's now, or a"
                " digest was edited"
            )
        return f"version {head.version}, which release {head.number} put into Production, was deleted"

    @cached_property
    def drift(self) -> str:
        """In what MLflow's stage and alias say otherwise than the log, in words; empty if they agree."""
        if self.gone:
            return self.gone
        head, (at_stage, at_alias) = self.head, self.shown
        live = {head.version} if head else set()
        wrong = [
            f"MLflow's {what} says {_versions(found)}"
            for what, found in (("stage Production", at_stage), ("alias production", at_alias))
            if found != live
        ]
        said = f"version {head.version} (release {head.number})" if head else "nothing is in Production"
        return f"{' and '.join(wrong)}, the release log {said}" if wrong else ""

    @property
    def remedy(self) -> str:
        """What settles ``drift``."""
        task = self.task
        if not self.gone:
            return (
                f"`preface reconcile {task}` settles that: --restore brings MLflow back, --adopt writes it into the log"
            )
        good = self.good_before()
        if good is not None:
            return f"`preface rollback {task}` goes back to version {good}"
        over = "" if self.versions else f"; if the task is over, delete {task}.releases in MLflow too"
        return f"`preface promote {task}` puts another there, `preface retrain {task}` trains one{over}"

    @cached_property
    def breaks(self) -> list[int]:
        """Places in the line at which an entry does not stand upon the one before it as that now reads."""
        return breaks(self.line)

    @cached_property
    def broken(self) -> list[str]:
        """The same in words: the history was edited or cut."""
        found = []
        for place in self.breaks:
            entry, before = self.line[place], self.line[place - 1] if place else None
            if before and entry.based_on == before.number:
                found.append(f"release {before.number} was edited after release {entry.number} was based on it")
            else:
                found.append(f"release {entry.based_on}, which release {entry.number} was based on, was taken away")
        return found

    @property
    def cut(self) -> str:
        """How the log's end differs from what was last brought to effect, in words; a later entry hides it."""
        head, (number, digest) = self.head, self.projected
        if number > (head.number if head else NO_ENTRY):
            return f"release {number}, the last that took effect, is not in the log any more"
        if head and number == head.number and digest != head.hash:
            return f"release {number} was edited after it took effect"
        return ""


def read(store: Store, task: str) -> State:
    """Look at a task.

    Raises:
        NotFound: the store has no such task.
    """
    # The log first: a head that moves meanwhile is then older than what is shown, and seen as moved at the next look.
    entries = store.releases(task)
    return State(task, store.versions(task), entries, store.task_tags(task))


def matches(entry: Release, version: Version) -> bool:
    """Whether the entry speaks of this version: a number comes back where a registered model was deleted whole."""
    return entry.version == version.number and entry.digest in ("", version.tag("manifest_digest"))


def _versions(numbers: set[int]) -> str:
    if not numbers:
        return "nothing"
    return f"version{'s' * (len(numbers) > 1)} {' and '.join(map(str, sorted(numbers)))}"
