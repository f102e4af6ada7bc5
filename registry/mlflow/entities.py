"""MLflow's entities as the records that the rules are written for. Asks nobody and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from registry.protocol import Head, Run, Stage, Version
from registry.release_log import Release, count


def version(found: ModelVersion, aliases: Mapping[str, Any], stages: bool) -> Version:
    """A model version under its model's aliases; where there are no ``stages``, its stage is what its alias says."""
    number = int(found.version)
    own = tuple(sorted(alias for alias, at in aliases.items() if count(at) == number))
    by_alias = "Production" if "production" in own else "Staging" if "staging" in own else "None"
    return Version(
        task=found.name,
        number=number,
        stage=cast(Stage, found.current_stage if stages else by_alias),
        tags=dict(found.tags),
        run_id=found.run_id or "",
        source=found.source or "",
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        ready=found.status == "READY",
        aliases=own,
    )


def run(found: MlflowRun) -> Run:
    """A run, and the rows that it says it used."""
    used = found.inputs.dataset_inputs if found.inputs else []
    return Run(
        status=str(found.info.status),
        deleted=found.info.lifecycle_stage == "deleted",
        tags=dict(found.data.tags),
        datasets=tuple(entry.dataset.digest for entry in used),
    )


def head(found: RegisteredModel, log: RegisteredModel | None, stages: bool) -> Head:
    """A task's registered model and that of its release log, as a search for all of them gives them."""
    return Head(
        task=found.name,
        tags=dict(found.tags),
        aliases={alias: number for alias, at in found.aliases.items() if (number := count(at)) is not None},
        # Without stages MLflow names one latest version: too little to tell a task at rest by.
        latest=[version(each, found.aliases, stages) for each in found.latest_versions or ()] if stages else (),
        last=last(log) if log else None,
    )


def last(log: RegisteredModel) -> Release | None:
    """The last entry of a release log, as a search for all of them gives it."""
    entries = sorted(log.latest_versions or (), key=lambda entry: int(entry.version))
    return Release.from_tags(int(entries[-1].version), entries[-1].tags) if entries else None
