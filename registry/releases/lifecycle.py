"""The rules of what may go into Production, and out of it: promote, roll back, adopt or undo what was moved by hand.

Rules over the small store of ``protocol.py``. The release log is the truth: what takes effect is one appended entry,
stages and aliases are brought after it (``projection.py``), and a command that finds what a crash left mends it first.
Nothing here loads weights, or imports torch or prefect. What there is to see of a task is in ``queries.py``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import (
    BaseMismatch,
    NothingToRollBackTo,
    PromotionConflict,
    PromotionRefused,
    RegistryError,
    StoreUnavailable,
)
from registry.protocol import Store, Version
from registry.release_log import NO_ENTRY, Action, Release, rolled_away
from registry.releases import checks, drill_receipts
from registry.releases.projection import now, reconcile_projection, repair, user
from registry.releases.state import State, read

LONGEST_REASON = 2000  # characters: it is repeated in other tags, and MLflow refuses long ones once the entry is made


@dataclass(frozen=True)
class ReleaseResult:
    """What a move did. ``previous`` was in Production; ``changed`` is False if it is there still."""

    version: Version
    previous: int | None
    entry: Release
    changed: bool


def promote(
    store: Store,
    task: str,
    number: int | None = None,
    *,
    reason: str,
    base_hash: str,
    who: str | None = None,
    override: bool = False,
) -> ReleaseResult:
    """Put a version into Production; without a number the one in Staging.

    Args:
        base_hash: what params.yaml declares for the task's base.
        who: by whom, for the history; the user of this process if not given.
        override: proceed despite failed checks, but for damaged bytes; they are recorded in the history.

    Raises:
        PromotionRefused, BaseMismatch: its gate, report, base or history forbids it.
        ArtifactError: its bytes are not those that were registered.
        PromotionConflict: somebody else's promotion came first.
    """
    state = repair(store, task)
    version = store.version(task, number) if number is not None else state.staged
    if version is None:
        head = state.head  # who asks again after a crash wants to know that the first time did it
        live = f" (version {head.version} is in Production since {head.when}, by {head.who})" if head else ""
        raise PromotionRefused(f"{task} has no version in Staging{live}; train one with `preface retrain {task}`")
    if state.head and state.head.version == version.number and not state.drift:
        return ReleaseResult(version, version.number, state.head, changed=False)
    return _checked(store, "promote", version, state, reason, base_hash, who, override)


def rollback(
    store: Store,
    task: str,
    to: int | None = None,
    *,
    reason: str,
    base_hash: str,
    who: str | None = None,
    override: bool = False,
    upon: int | None = None,
) -> ReleaseResult:
    """Put the version back that was last good in Production; with ``to`` any that was ever there.

    Args:
        base_hash: what params.yaml declares for the task's base.
        override: also to another base than that, and with the artifact store down on the receipt of a drill.
        upon: the release that this was decided upon; another head is a conflict.

    Raises:
        NothingToRollBackTo: there is no such version.
        ArtifactError, BaseMismatch: its bytes or its base are not what they were.
        PromotionConflict: somebody else's move came first, or a rollback that never said that it took effect.
    """
    seen, state = read(store, task), repair(store, task)
    if upon is not None and state.head and state.head.number != upon:
        raise _conflict(task, state.head)
    if to is None and upon is None and state.head and state.head.action == "rollback" and seen.unprojected:
        # Asked for again after a crash, or by two people at once: one step back is meant, not two.
        raise _conflict(task, state.head, " and was not yet brought to its end, which it is now")
    target = destination(state, to)
    if target == state.line[-1].version and not state.drift:
        return ReleaseResult(store.version(task, target), target, state.line[-1], changed=False)
    version, overridden = store.version(task, target), []
    fault = checks.base_fault(version, base_hash)
    if fault:
        fault += _whereabouts(version)
        if not override:
            raise BaseMismatch(f"{fault}; set the task's base back in params.yaml, or add --override to go there now")
        overridden.append(fault)
    try:
        checks.verify(store, version)
    except StoreUnavailable as error:
        drill, unfit = drill_receipts.valid_receipt(version)
        if unfit or not override:
            rest = unfit or f"{drill} vouches for it: --override rests on that"
            raise StoreUnavailable(f"{error}; {rest}") from error
        overridden.append(f"the artifact store did not answer; this rests on {drill}")
    return _move(store, "rollback", version, state, reason, who, overridden)


def destination(state: State, to: int | None = None, undone: Callable[[Release], bool] = lambda entry: False) -> int:
    """Where a rollback of the task would land.

    Args:
        to: the version that was asked for.
        undone: entries that are to be undone together with the head.

    Raises:
        NothingToRollBackTo: nowhere.
    """
    task, line = state.task, state.line
    if not line:
        raise NothingToRollBackTo(f"{task} was never in Production; `preface promote {task}` puts a version there")
    if to is not None:
        # What an edited history says is no reason to refuse what somebody asks for by name.
        never = to not in {entry.version for entry in line} or (to not in state.released and state.get(to) is not None)
        if never and not (state.broken or state.cut):
            raise NothingToRollBackTo(
                f"{task}@{to} was never in Production; `preface promote {task} --version {to}` is the way there"
            )
        return to
    target = state.good_before(undone)
    if target is None:
        bad = ", ".join(str(number) for number in sorted(rolled_away(line))) or "none"
        edited = f"; {state.broken[-1]}, so earlier ones are not chosen by themselves" if state.broken else ""
        raise NothingToRollBackTo(
            f"{task}@{line[-1].version} has no good version before it (rolled away from: {bad}{edited});"
            " name one with --to, or promote another"
        )
    return target


def restore(store: Store, task: str) -> State:
    """Undo what was moved by hand: stages and aliases go back to what the log says."""
    state = read(store, task)
    return (
        reconcile_projection(store, task, force=True) if state.versions else state
    )  # none: its model may be deleted with its tags


def adopt(
    store: Store, task: str, *, reason: str, base_hash: str, who: str | None = None, override: bool = False
) -> ReleaseResult:
    """Write what was moved by hand into the log, if it may stand in Production; arguments and errors as in ``promote``.

    Raises:
        RegistryError: there is nothing to adopt, or not one version alone.
    """
    state = repair(store, task)
    live = {state.head.version} if state.head else set()
    moved = set.union(*state.shown) - live
    if len(moved) != 1:
        what = f"versions {sorted(moved)} could be meant" if moved else "no other version stands in Production"
        why = f"{state.drift}); {state.remedy}" if state.drift else "log, stage and alias agree)"
        raise RegistryError(f"{task} has nothing to adopt: {what} ({why}")
    return _checked(store, "adopt", store.version(task, moved.pop()), state, reason, base_hash, who, override)


def _checked(
    store: Store,
    action: Action,
    version: Version,
    state: State,
    reason: str,
    base_hash: str,
    who: str | None,
    override: bool,
) -> ReleaseResult:
    """Move a version to Production if no check fails, or somebody overrides those that do."""
    found, fault = (
        checks.refusals(store, version, state, adopting=action == "adopt"),
        checks.base_fault(version, base_hash),
    )
    if found and not override:
        raise PromotionRefused(f"{version.name} may not be promoted: {'; '.join(found)}")
    if fault and not override:
        raise BaseMismatch(f"{fault}; set bases.*.hash back, or train with `preface retrain {version.task}`")
    checks.verify(store, version)
    return _move(store, action, version, state, reason, who, [*found, *([fault] if fault else [])])


def _move(
    store: Store, action: Action, version: Version, state: State, reason: str, who: str | None, overridden: list[str]
) -> ReleaseResult:
    """Append the entry, see that it took effect, and bring stages and aliases after it."""
    if len(reason) > LONGEST_REASON:
        raise RegistryError(
            f"the reason has {len(reason)} characters, and the history keeps {LONGEST_REASON} at most: say it shorter"
        )
    task, head, declared = version.task, state.head, version.tag("declared_base")
    if declared:
        overridden = [*overridden, f"its base was declared by {declared}, and not proven"]
    release = Release(
        action=action,
        version=version.number,
        based_on=head.number if head else NO_ENTRY,
        head_hash=head.hash if head else "",
        who=who or user(),
        host=socket.gethostname(),
        when=now(),
        reason=reason,
        git_commit=git_commit(),
        digest=version.tag("manifest_digest"),
        gate=str(version.gate),
        override="; ".join(overridden),
        drift="; ".join(filter(None, [state.cut, state.drift])),
        token=uuid.uuid4().hex,
    )
    store.append_release(task, release)
    # Not by its number: where an answer was lost on the way, MLflow's client asks twice.
    after = reconcile_projection(store, task, force=True)
    entry = next((entry for entry in after.line if entry.token == release.token), None)
    if entry is None:
        raise _conflict(task, next((e for e in after.line if e.based_on == release.based_on), after.line[-1]))
    return ReleaseResult(store.version(task, version.number), head.version if head else None, entry, changed=True)


def _conflict(task: str, winner: Release, how: str = "") -> PromotionConflict:
    # A rollback's version is where it went.
    what = f"{winner.action} {'to' if winner.action == 'rollback' else 'of'} {task}@{winner.version} ({winner.reason})"
    return PromotionConflict(
        f"{winner.who}@{winner.host} came first: {what}{how}; look at `preface status {task}` and decide again"
    )


def _whereabouts(version: Version) -> str:
    """Whether the base of a version is materialised here."""
    from components.base.base_model import bases_folder, find

    bases = bases_folder(Path.cwd())
    found = find(bases, version.tag("base_hash"), version.tag("base"))
    return (
        f" (its base is here: {found})"
        if found
        else f" (its base is not in {bases}; `preface prepare` or the next training makes it)"
    )


def git_commit(folder: Path | None = None) -> str:
    """The commit that is checked out in a folder, this one if none is given.

    Outside a checkout what PREFACE_GIT_COMMIT says, which is set where an image is built; empty if nobody says.
    """
    told = os.environ.get("PREFACE_GIT_COMMIT", "")
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return told
    return found.stdout.strip() if found.returncode == 0 else told
