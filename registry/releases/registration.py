"""Making a candidate a version: its adapter, its evidence and its gate's verdict, and Staging if that was a pass.

A version comes into being in one call, complete; what is left to do then (its stage, whether it repeats another) any
later command brings to its end. What may go on to Production is decided in ``lifecycle.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.errors import RegistryError
from registry.artifact import adapter_folder
from registry.artifact.manifest import Manifest, trained_fingerprint
from registry.protocol import Gate, Store, Version, report_digest
from registry.release_log import PREFIX
from registry.releases import checks
from registry.releases.projection import reconcile_projection

GATE_FOLDER = "gate"


def register(
    store: Store,
    folder: Path,
    run_id: str,
    report: Path,
    dvc_md5: str,
    forced: bool = False,
    declared_base: str = "",
    evidence: Sequence[Path] = (),
) -> Version:
    """Record an evaluated candidate: at Staging if its gate passed it, at no stage if not.

    A second try, after a store that was away for a moment, goes on with the version that the first one made, and what
    that one recorded stays: every try keeps its evidence in a folder of its own.

    Args:
        folder: The adapter folder, verified before anything is registered.
        report: The gate's report, a JSON object whose ``passed`` is true or false; stored with the run, and
            ``evidence`` beside it.
        dvc_md5: DVC's name for the prepared data.
        forced: Somebody asked for another version although the fingerprint is registered.
        declared_base: Who said so, where the base was declared and not proven.
    """
    manifest = adapter_folder.read(folder).manifest
    place = _new_folder()
    gate = _gate(report, place)
    alike = store.by_fingerprint(manifest.task, manifest.fingerprint)
    if made := next((version for version in alike if version.run_id == run_id and version.ready), None):
        reconcile_projection(store, manifest.task)
        return store.version(manifest.task, made.number)
    store.log_files(run_id, [*evidence, report], place)
    tags = {
        **_facts(manifest),
        "dvc_md5": dvc_md5,
        "gate": str(gate),
        "forced": "true" if forced else "",
        "declared_base": declared_base,
    }
    description = (folder / adapter_folder.CARD).read_text(encoding="utf-8").split("---\n", 2)[-1].strip()
    version = store.register(
        manifest.task, folder, run_id, {PREFIX + key: value for key, value in tags.items() if value}, description
    )
    reconcile_projection(store, manifest.task)
    return store.version(manifest.task, version.number)


def judge_again(store: Store, version: Version, report: Path, evidence: Sequence[Path] = ()) -> Version:
    """Record another gate report of a registered version, and its stage after it. The earlier report is kept.

    Args:
        report: as in ``register``; stored with ``evidence`` in a folder of its own in the version's run.
    """
    folder = _new_folder()
    gate = _gate(report, folder)
    store.log_files(version.run_id, [*evidence, report], folder)
    store.tag_version(version.task, version.number, PREFIX + "gate", str(gate))
    reconcile_projection(store, version.task)
    return store.version(version.task, version.number)


def _new_folder() -> str:
    return f"{GATE_FOLDER}/{uuid.uuid4().hex[:12]}"


def _gate(report: Path, folder: str) -> Gate:
    raw = report.read_bytes()
    passed = checks.verdict(raw)
    if passed is None:
        raise RegistryError(f"{report} does not say whether the gate passed: it must be a JSON object with `passed`")
    return Gate("passed" if passed else "refused", f"{folder}/{report.name}", report_digest(raw))


def _facts(manifest: Manifest) -> Mapping[str, str]:
    """What a version's tags repeat of its manifest, so that MLflow can search and show it."""
    return {
        "method": manifest.method,
        "fingerprint": manifest.fingerprint,
        "settings": trained_fingerprint(manifest, settings_alone=True) or "",
        "base": manifest.base.name,
        "base_hash": manifest.base.hash,
        "data_hash": manifest.data.hash,
        "git_commit": manifest.code.git_commit,
        "manifest_digest": manifest.digest,
        **{f"metric.{name}": f"{value:.6g}" for name, value in manifest.metrics.items()},
    }
