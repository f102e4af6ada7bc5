"""A registered version's adapter folder, copied out of the registry for the steps of a run, and read again by them."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.errors import ArtifactError
from flows.run.job import Fetched
from registry.artifact import adapter_folder
from registry.mlflow.store import Store
from registry.protocol import Version
from registry.releases import checks


def fetched(store: Store, version: Version, to: Path) -> Fetched:
    """A copy of a version's adapter folder, verified; a store takes its own downloads away with it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(store.download(version), to)
    checks.compare(to, version)
    return Fetched(task=version.task, number=version.number, folder=to, digest=version.tag("manifest_digest"))


def adapter_of(version: Fetched) -> adapter_folder.Adapter:
    """The adapter of a version that an earlier step fetched.

    Raises:
        ArtifactError: what lies there now is another, or is damaged.
    """
    stored = adapter_folder.read(version.folder)
    if stored.manifest.digest != version.digest:
        raise ArtifactError(
            f"{version.folder} holds the adapter {stored.manifest.digest}, {version.task}@{version.number} is"
            f" registered as {version.digest}; run the command again"
        )
    return stored
