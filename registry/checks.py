"""What must be true of a version before it may stand in Production. Reads the store and moves nothing.

An override of a refusal, and gate reports that compared with another champion than today's, will be judged here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from components.errors import ArtifactError, BaseMismatch, NotFound
from registry import artifact
from registry.protocol import Store, Version
from registry.releases import Release, rolled_away


def refusal(store: Store, version: Version, line: Sequence[Release]) -> str:
    """Why the version may not go to Production, empty if it may. Tags can be edited, so the stored report counts.

    Args:
        line: the task's entries that took effect, oldest first.
    """
    path, again = version.tag("report"), f"train again with `preface retrain {version.task} --force`"
    if not version.ready:
        return f"it was never completed; {again}"
    if version.tag("duplicate_of"):
        return f"it repeats version {version.tag('duplicate_of')}; promote that one"
    if version.tag("gate") != "passed":
        return f"its gate says {version.tag('gate') or 'nothing'}; see `preface show {version.name}`"
    try:
        raw = store.read_file(version.run_id, path)
    except NotFound:
        return f"its gate report {path or '(none)'} is not in the store; {again}"
    found, registered = hashlib.sha256(raw).hexdigest(), version.tag("report_sha256") or "nothing"
    if found != registered or verdict(raw) is not True:
        return f"its gate report was changed: sha256 {found}, registered as {registered}; {again}"
    away = rolled_away(line).get(version.number)
    if away:
        return f"it was rolled away from on {away.when} by {away.who}: {away.reason}; train another"
    return ""


def verify(store: Store, version: Version, base_hash: str) -> None:
    """Check that the adapter's bytes are those that were registered, and its base the declared one.

    Raises:
        BaseMismatch: it was trained on another base than ``base_hash``, which params.yaml declares.
        ArtifactError: its bytes are damaged, or another adapter's.
    """
    recorded = version.tag("base_hash")
    if recorded != base_hash:
        raise BaseMismatch(
            f"{version.name} was trained on base {recorded or '(not recorded)'}, params.yaml declares {base_hash};"
            f" set bases.*.hash back, or train with `preface retrain {version.task}`"
        )
    manifest = artifact.read(store.download(version), base_hash).manifest
    if manifest.digest != version.tag("manifest_digest") or manifest.task != version.task:
        raise ArtifactError(
            f"{version.name}: the stored adapter is {manifest.task} {manifest.digest}, registered was {version.task}"
            f" {version.tag('manifest_digest') or '(nothing)'}; restore it, or train the task again"
        )


def verdict(report: bytes) -> bool | None:
    """What a gate report says; None if it says nothing."""
    try:
        content = json.loads(report)
    except (ValueError, RecursionError):
        return None
    passed = content.get("passed") if isinstance(content, dict) else None
    return passed if isinstance(passed, bool) else None
