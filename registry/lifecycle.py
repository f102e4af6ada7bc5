"""The rules of what may go where: register, promote, roll back, and what there is to see of it.

Rules over the small store of ``protocol.py``. The release log is the truth; stages and aliases are brought after it,
and ``_project`` may run at any time, so that a repeated command mends what a crash left. Promotion and rollback load no
weights and import neither torch nor prefect. A stage that was moved by hand is told (``Status.in_step``), not mended.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import NotFound, NothingToRollBackTo, PromotionConflict, PromotionRefused, RegistryError
from registry import artifact, checks
from registry.manifest import Manifest
from registry.protocol import Stage, Store, Version
from registry.releases import NO_ENTRY, PREFIX, Action, Release, effective, last_good, rolled_away

GATE_FOLDER = "gate"


@dataclass(frozen=True)
class Moved:
    """What a promotion or a rollback did. ``previous`` was in Production; ``changed`` is False if it is there still."""

    version: Version
    previous: int | None
    entry: Release
    changed: bool


@dataclass(frozen=True)
class Status:
    """One task at a glance. The log says what is in Production; ``in_step``: MLflow's stage and alias say the same."""

    task: str
    production: Version | None
    staging: Version | None
    versions: int
    head: Release | None
    in_step: bool


@dataclass(frozen=True)
class Entry:
    """A line of the history. A void entry came after another that was based on the same head, and changed nothing."""

    release: Release
    void: bool


def register(store: Store, folder: Path, run_id: str, report: Path, dvc_md5: str, forced: bool = False) -> Version:
    """Record an evaluated candidate: at Staging if its gate passed it, at no stage if not.

    Args:
        folder: The adapter folder, verified before anything is registered.
        report: The gate's report, a JSON object whose ``passed`` is true or false; stored with the run.
        dvc_md5: DVC's name for the prepared data.
        forced: Somebody asked for another version although the fingerprint is registered.
    """
    manifest = artifact.read(folder).manifest
    raw = report.read_bytes()
    passed = checks.verdict(raw)
    if passed is None:
        raise RegistryError(f"{report} does not say whether the gate passed: it must be a JSON object with `passed`")
    store.log_files(run_id, [report], GATE_FOLDER)
    tags = {
        **_facts(manifest),
        "dvc_md5": dvc_md5,
        "gate": "passed" if passed else "refused",
        "report": f"{GATE_FOLDER}/{report.name}",
        "report_sha256": hashlib.sha256(raw).hexdigest(),
    }
    description = (folder / artifact.CARD).read_text(encoding="utf-8").split("---\n", 2)[-1].strip()
    tags = {PREFIX + key: value for key, value in tags.items()}
    alike = store.by_fingerprint(manifest.task, manifest.fingerprint)
    # A second try, after a store that was away for a moment, goes on with the version that the first one made.
    version = next((v for v in alike if v.run_id == run_id and v.ready), None)
    version = version or store.register(manifest.task, folder, run_id, tags, description)
    # Two runs of one fingerprint can pass each other unasked; then the lowest number is the one that counts.
    first = min(v.number for v in store.by_fingerprint(manifest.task, manifest.fingerprint) if v.ready)
    if first != version.number and not forced:
        store.tag_version(manifest.task, version.number, PREFIX + "duplicate_of", str(first))
    elif passed:
        store.set_stage(manifest.task, version.number, "Staging")
        store.set_alias(manifest.task, "staging", version.number)
    return store.version(manifest.task, version.number)


def promote(
    store: Store, task: str, number: int | None = None, *, reason: str, base_hash: str, who: str | None = None
) -> Moved:
    """Put a version into Production; without a number the one in Staging.

    Args:
        base_hash: what params.yaml declares for the task's base.
        who: by whom, for the history; the user of this process if not given.

    Raises:
        PromotionRefused: its gate, report, base, artifact or history forbids it.
        PromotionConflict: somebody else's promotion came first.
    """
    line = effective(store.releases(task))
    version = store.version(task, number) if number is not None else current(store, task, "Staging")
    if version is None:
        raise PromotionRefused(f"{task} has no version in Staging; train one with `preface retrain {task}`")
    if line and line[-1].version == version.number:
        return _again(store, task, line)
    refusal = checks.refusal(store, version, line)
    if refusal:
        raise PromotionRefused(f"{version.name} may not be promoted: {refusal}")
    checks.verify(store, version, base_hash)
    return _move(store, task, "promote", version, line, reason, who)


def rollback(
    store: Store, task: str, to: int | None = None, *, reason: str, base_hash: str, who: str | None = None
) -> Moved:
    """Put the version back that was last good in Production; with ``to`` any that was ever there.

    Args:
        base_hash: what params.yaml declares for the task's base.

    Raises:
        NothingToRollBackTo: there is no such version.
        ArtifactError, BaseMismatch: its bytes or its base are not what they were.
    """
    line = effective(store.releases(task))
    if not line:
        raise NothingToRollBackTo(f"{task} was never in Production; `preface promote {task}` puts a version there")
    if to == line[-1].version:
        return _again(store, task, line)
    target = to if to is not None else last_good(line)
    if target is None:
        bad = ", ".join(str(number) for number in sorted(rolled_away(line))) or "none"
        raise NothingToRollBackTo(
            f"{task}@{line[-1].version} has no good version before it (rolled away from: {bad});"
            " name one with --to, or promote another"
        )
    if target not in {entry.version for entry in line}:
        raise NothingToRollBackTo(
            f"{task}@{target} was never in Production; `preface promote {task} --version {target}` is the way there"
        )
    version = store.version(task, target)
    checks.verify(store, version, base_hash)
    return _move(store, task, "rollback", version, line, reason, who)


def current(store: Store, task: str, stage: Stage) -> Version | None:
    """The version at a stage, None if there is none. Production is what the release log says."""
    if stage == "Production":
        line = effective(store.releases(task))
        return store.version(task, line[-1].version) if line else None
    return max((v for v in store.versions(task) if v.stage == stage), key=lambda v: v.number, default=None)


def find(store: Store, address: str) -> Version:
    """The version that ``TASK@7``, ``TASK@staging`` or ``TASK@production`` names."""
    task, _, which = address.partition("@")
    if task and which.isdecimal():
        return store.version(task, int(which))
    stages: dict[str, Stage] = {"staging": "Staging", "production": "Production"}
    if not task or which not in stages:
        raise RegistryError(f"{address!r} names no version; write TASK@NUMBER, TASK@staging or TASK@production")
    version = current(store, task, stages[which])
    if version is None:
        raise NotFound(f"{task} has no version in {stages[which]}; see `preface status {task}`")
    return version


def status(store: Store, task: str) -> Status:
    """What is where, and whether MLflow's stage and alias agree with the log."""
    versions, line = store.versions(task), effective(store.releases(task))
    head = line[-1] if line else None
    live = {head.version} if head else set()
    shown = (
        {v.number for v in versions if v.stage == "Production"},
        {v.number for v in versions if "production" in v.aliases},
    )
    return Status(
        task=task,
        production=next((v for v in versions if v.number in live), None),
        staging=max((v for v in versions if v.stage == "Staging"), key=lambda v: v.number, default=None),
        versions=len(versions),
        head=head,
        in_step=shown == (live, live),
    )


def history(store: Store, task: str) -> list[Entry]:
    """Every entry of the task's release log, oldest first, the void ones too."""
    entries = sorted(store.releases(task), key=lambda entry: entry.number)
    took_effect = {entry.number for entry in effective(entries)}
    return [Entry(entry, void=entry.number not in took_effect) for entry in entries]


def _facts(manifest: Manifest) -> dict[str, str]:
    """What a version's tags repeat of its manifest, so that MLflow can search and show it."""
    return {
        "method": manifest.method,
        "fingerprint": manifest.fingerprint,
        "base_hash": manifest.base.hash,
        "data_hash": manifest.data.hash,
        "git_commit": manifest.code.git_commit,
        "manifest_digest": manifest.digest,
        **{f"metric.{name}": f"{value:.6g}" for name, value in manifest.metrics.items()},
    }


def _move(
    store: Store, task: str, action: Action, version: Version, line: list[Release], reason: str, who: str | None
) -> Moved:
    """Append the entry, see that it took effect, and bring stages and aliases after it."""
    head = line[-1] if line else None
    release = Release(
        action=action,
        version=version.number,
        based_on=head.number if head else NO_ENTRY,
        head_hash=head.hash if head else "",
        who=who or _user(),
        host=socket.gethostname(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        git_commit=git_commit(),
    )
    number = store.append_release(task, release)
    line = effective(store.releases(task))
    entry = next((entry for entry in line if entry.number == number), None)
    if entry is None:
        winner = next(entry for entry in line if entry.based_on == release.based_on)
        raise PromotionConflict(
            f"{winner.who}@{winner.host} came first: {winner.action} of {task}@{winner.version} ({winner.reason});"
            f" look at `preface status {task}` and decide again"
        )
    _project(store, task, line)
    return Moved(store.version(task, version.number), head.version if head else None, entry, changed=True)


def _again(store: Store, task: str, line: list[Release]) -> Moved:
    """What was asked for is what the log says: nothing to append, only the stages to bring after it."""
    _project(store, task, line)
    head = line[-1]
    return Moved(store.version(task, head.version), head.version, head, changed=False)


def _project(store: Store, task: str, line: list[Release]) -> None:
    """Make stages and aliases say what the log says. Begins again when the head moved meanwhile."""
    while True:
        head = line[-1]
        store.set_stage(task, head.version, "Production")
        store.set_alias(task, "production", head.version)
        if "staging" in store.version(task, head.version).aliases:
            store.set_alias(task, "staging", None)
        store.tag_task(task, PREFIX + "projected", str(head.number))
        line = effective(store.releases(task))
        if line[-1].number == head.number:
            return


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def git_commit(folder: Path | None = None) -> str:
    """The commit that is checked out in a folder, this one if none is given; empty outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
