"""A bad night: every task whose Production changed since a moment, taken back to what was good before it.

First a plan, which can be shown: it brings to its end what an interrupted command left, and moves nothing else. Then
each task by itself, as its own entry upon the very release that the plan saw. One that fails leaves the others as they
are to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from components.errors import NothingToRollBackTo, PrefaceError
from registry.protocol import Store
from registry.release_log import Release
from registry.releases.lifecycle import ReleaseResult, destination, rollback
from registry.releases.projection import settled


@dataclass(frozen=True)
class Step:
    """What is to be done about one task: from its present version to ``to``, or why it cannot be."""

    task: str
    upon: Release
    to: int | None
    fault: str = ""


def plan(store: Store, tasks: Sequence[str], since: datetime) -> list[Step]:
    """What a rollback of everything would do; tasks that stand where they stood at ``since`` are left out.

    Args:
        since: a moment with its time zone. An entry whose own time cannot be read counts as later.
    """
    steps = []
    for task in tasks:
        state, _ = settled(store, task)  # who acts upon the plan is told if it could not be
        before = next((entry.version for entry in reversed(state.line) if not _is_since(entry, since)), None)
        if not state.line or state.line[-1].version == before:
            continue
        head = state.line[-1]
        try:
            steps.append(Step(task, head, destination(state, undone=lambda entry: _is_since(entry, since))))
        except NothingToRollBackTo as error:
            steps.append(Step(task, head, None, str(error)))
    return steps


def run(
    store: Store, steps: Sequence[Step], *, reason: str, base_hash: Callable[[str], str], who: str | None = None
) -> Iterator[tuple[Step, ReleaseResult | PrefaceError]]:
    """Do what the plan says, one task after the other; each with what came of it.

    Args:
        base_hash: a task's declared base, by its name.
    """
    for step in steps:
        try:
            if step.to is None:
                raise NothingToRollBackTo(step.fault)
            declared = base_hash(step.task)
            yield (
                step,
                rollback(store, step.task, step.to, reason=reason, base_hash=declared, who=who, upon=step.upon.number),
            )
        except PrefaceError as error:
            yield step, error


def _is_since(entry: Release, since: datetime) -> bool:
    try:
        return datetime.fromisoformat(entry.when) >= since
    except (ValueError, TypeError):
        return True
