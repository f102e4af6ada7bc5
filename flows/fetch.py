"""A registered version's adapter folder, copied out of the registry for the steps of a run, and read again by them."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.errors import ArtifactError
from flows.job import Fetched
from registry import artifact, checks
from registry.protocol import Version
from registry.store import Store


def fetched(store: Store, version: Version, to: Path) -> Fetched:
    """A copy of a version's adapter folder, verified; a store takes its own downloads away with it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(store.download(version), to)
    checks.compare(to, version)
    return Fetched(task=version.task, number=version.number, folder=to, digest=version.tag("manifest_digest"))


def adapter_of(version: Fetched) -> artifact.Adapter:
    """The adapter of a version that an earlier step fetched.

    Raises:
        ArtifactError: what lies there now is another, or is damaged.
    """
    stored = artifact.read(version.folder)
    if stored.manifest.digest != version.digest:
        raise ArtifactError(
            f"{version.folder} holds the adapter {stored.manifest.digest}, {version.task}@{version.number} is"
            f" registered as {version.digest}; run the command again"
        )
    return stored
