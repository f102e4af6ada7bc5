"""What must be true of a version before it may stand in Production. Reads the store and moves nothing.

``refusals`` are about history and evidence, and somebody may override them. ``verify`` is about bytes, and nobody may.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.errors import ArtifactError, BaseMismatch, NotFound
from registry.artifact import adapter_folder
from registry.protocol import Store, Version, report_digest
from registry.release_log import count, rolled_away
from registry.releases.state import State


def refusals(store: Store, version: Version, state: State, adopting: bool = False) -> list[str]:
    """Why the version may not go to Production, each with its remedy. Tags can be edited: the stored report counts.

    Args:
        adopting: it stands there already, by hand, and it is that which is asked about.
    """
    found, gate = [], version.gate
    evaluate = f"`preface evaluate {version.name}` measures it again"
    if version.tag("duplicate_of"):
        found.append(f"it repeats version {version.tag('duplicate_of')}; promote that one")
    try:
        raw = store.read_file(version.run_id, gate.report) if gate.report else None
    except NotFound:
        raw = None
    champion = state.live.number if state.live else None
    if raw is None:
        found.append(f"its gate report {gate.report or '(none)'} is not in the store; {evaluate}")
    elif not gate.is_of(raw):
        said = report_digest(raw)
        found.append(f"its gate report was changed: sha256 {said}, registered as {gate.sha256}; {evaluate}")
    elif verdict(raw) is not True:
        found.append(f"its gate refused it; see `preface show {version.name}`")
    elif compared_with(raw) != champion:
        then, today = (f"version {v}" if v else "nothing" for v in (compared_with(raw), champion))
        found.append(f"its gate report is stale: it was compared with {then}, in Production is {today}; {evaluate}")
    away = rolled_away(state.line).get(version.number) if version.number in state.released else None
    if away:
        found.append(f"it was rolled away from on {away.when} by {away.who}: {away.reason}; train another")
    # What was deleted and has nothing good before it is no reason: another version is then the only way on.
    if state.drift and not adopting and not (state.gone and state.good_before() is None):
        found.append(f"{state.drift}; {state.remedy}")
    return found


def base_fault(version: Version, base_hash: str) -> str:
    """How the version's base differs from the declared one, empty if it does not."""
    recorded = version.tag("base_hash")
    if recorded == base_hash:
        return ""
    return (
        f"{version.name} was trained on base {version.tag('base')} {recorded or '(not recorded)'}, params.yaml declares"
        f" {base_hash}"
    )


def verify(store: Store, version: Version) -> adapter_folder.Adapter:
    """The version's adapter out of the artifact store, once it is the one that was registered; errors as below."""
    if not version.ready:
        raise ArtifactError(f"{version.name} was never completed; train again with `preface retrain {version.task}`")
    return compare(store.download(version), version)


def compare(folder: Path, version: Version) -> adapter_folder.Adapter:
    """The adapter in a folder, once its bytes are those that were registered and its base the recorded one.

    Raises:
        BaseMismatch: its manifest names another base than its record.
        ArtifactError: its bytes are damaged, or another adapter's.
    """
    again = f"restore it, or train again with `preface retrain {version.task} --force`"
    adapter = adapter_folder.read(folder)
    said = adapter.manifest
    if said.digest != version.tag("manifest_digest") or said.task != version.task:
        raise ArtifactError(
            f"{version.name}: the stored adapter is {said.task} {said.digest}, registered was {version.task}"
            f" {version.tag('manifest_digest') or '(nothing)'}; {again}"
        )
    if said.base.hash != version.tag("base_hash"):
        raise BaseMismatch(
            f"{version.name}: its manifest names the base {said.base.hash}, its record"
            f" {version.tag('base_hash') or '(nothing)'}; {again}"
        )
    return adapter


def verdict(report: bytes) -> bool | None:
    """What a gate report says; None if it says nothing."""
    passed = _read(report).get("passed")
    return passed if isinstance(passed, bool) else None


def compared_with(report: bytes) -> int | None:
    """The version that a gate report compared with, None for none."""
    champion = _read(report).get("champion")
    return count(champion) if type(champion) is int else None


def _read(report: bytes) -> dict[str, Any]:
    try:
        content = json.loads(report)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
