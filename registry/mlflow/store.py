"""MLflow, narrow: versions, stages, aliases and the release log, upon the runs of ``run_store.py``.

No other two modules talk to its client. They know no rule: what may go where is in ``lifecycle.py``.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from components.errors import NotFound
from registry.mlflow import entities, faults
from registry.mlflow.run_store import RunStore
from registry.protocol import Head, Stage, Version
from registry.release_log import PREFIX, Release

ADAPTER = "artifacts/adapter"  # the adapter folder's place in MLflow's model folder
LOG_SUFFIX = ".releases"  # no task has a dot in its name
MODELS_A_PAGE = 1000  # MLflow's limit


class Store(RunStore):
    """One tracking store, by default the one that MLFLOW_TRACKING_URI names.

    MLflow looks parts of its own up through a process-wide address (``create_model_version`` does), so making a Store
    sets that to this store. A process works with one store at a time.

    MLflow marks stages as deprecated. Where they are gone, or PREFACE_STAGES=off says to leave them alone, the aliases
    beside them carry everything: a version's ``stage`` is then what its alias says.
    """

    # --- versions -----------------------------------------------------------------------------------------------------

    def register(self, task: str, folder: Path, run_id: str, tags: Mapping[str, str], description: str) -> Version:
        """Upload the adapter folder inside an MLflow model, and only when all of it is there give it a number."""
        from registry.mlflow.pyfunc_model import pack  # not needed to move what is registered, and slow

        with self._answering(), tempfile.TemporaryDirectory() as room:
            packed = Path(room) / "model"
            pack(folder, packed)
            logged = self._client.create_logged_model(self._experiment(task), name=task, source_run_id=run_id)
            self._client.log_model_artifacts(logged.model_id, str(packed))
            self._client.finalize_logged_model(logged.model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            made = self._number(
                task,
                f"models:/{logged.model_id}",
                tags,
                run_id=run_id,
                model_id=logged.model_id,
                description=description,
            )
        return self.version(task, int(made.version))

    def version(self, task: str, number: int) -> Version:
        """One version of a task."""
        with self._answering(f"{task}@{number}"):
            found = self._client.get_model_version(task, str(number))
            return entities.version(found, self._client.get_registered_model(task).aliases, self._stages)

    def versions(self, task: str) -> list[Version]:
        """All versions of a task, oldest first."""
        model = self._model(task)
        if model is None:
            return []
        with self._answering():
            return [entities.version(found, model.aliases, self._stages) for found in self._search(task)]

    def task_tags(self, task: str) -> dict[str, str]:
        """The tags of a task's registered model."""
        model = self._model(task)
        return dict(model.tags) if model else {}

    def by_fingerprint(self, task: str, fingerprint: str) -> list[Version]:
        """The versions that were trained from exactly this, oldest first; none if the task has none."""
        with self._answering():
            found = self._search(task, f"tags.`{PREFIX}fingerprint` = '{fingerprint}'")
            return [entities.version(version, {}, self._stages) for version in found]

    def tasks(self) -> list[str]:
        """The tasks that have a registered model of ours, or had one and have its log still, sorted."""
        with self._answering():
            logged = {str(log.name).removesuffix(LOG_SUFFIX) for log in self._models("releases")}
            return sorted({*logged, *(str(registered.name) for registered in self._models("adapters"))})

    def overview(self) -> list[Head]:
        """Every task as two searches tell of it: a look at each would be as many as there are tasks."""
        with self._answering():
            logs = {str(log.name).removesuffix(LOG_SUFFIX): log for log in self._models("releases")}
            heads = [
                entities.head(found, logs.pop(found.name, None), self._stages) for found in self._models("adapters")
            ]
            # Whose registered model was deleted whole shows by its log.
            return [*heads, *(Head(task, {}, {}, (), entities.last(log)) for task, log in logs.items())]

    def download(self, version: Version) -> Path:
        """A copy of the version's adapter folder, unverified; it lives as long as this object."""
        if self._downloads is None:
            self._downloads = Path(tempfile.mkdtemp(prefix="preface-"))
            weakref.finalize(self, shutil.rmtree, self._downloads, ignore_errors=True)
        to = Path(tempfile.mkdtemp(prefix=f"{version.name}-", dir=self._downloads))
        with self._answering(version.name):
            root = self._client.get_model_version_download_uri(version.task, str(version.number))
            return self._fetch(f"{root}/{ADAPTER}", to, f"the adapter of {version.name}")

    def set_stage(self, task: str, number: int, stage: Stage) -> None:
        """Move a version to a stage; whoever stood in Staging or Production before is archived."""
        if not self._stages:
            return
        with self._answering(f"{task}@{number}"), warnings.catch_warnings():
            # Stages are deprecated and carried by all of MLflow 3; the aliases beside them are ready for the day.
            warnings.filterwarnings("ignore", "(?s).*transition_model_version_stage", FutureWarning)
            self._client.transition_model_version_stage(
                task, str(number), stage, archive_existing_versions=stage in ("Staging", "Production")
            )

    def set_alias(self, task: str, alias: str, number: int | None) -> None:
        """Point an alias at a version, or take it away."""
        with self._answering(f"{task}@{number}"):
            if number is None:
                self._client.delete_registered_model_alias(task, alias)
            else:
                self._client.set_registered_model_alias(task, alias, str(number))

    def tag_version(self, task: str, number: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._answering(f"{task}@{number}"):
            self._client.set_model_version_tag(task, str(number), key, value)

    def tag_task(self, task: str, key: str, value: str) -> None:
        """Set a tag of a task's registered model."""
        with self._answering(f"task {task!r}"):
            self._client.set_registered_model_tag(task, key, value)

    def untag_task(self, task: str, key: str) -> None:
        """Take a tag of a task's registered model away, if it is there."""
        with self._answering(f"task {task!r}"):
            self._client.delete_registered_model_tag(task, key)

    # --- release log --------------------------------------------------------------------------------------------------

    def append_release(self, task: str, release: Release) -> int:
        """Append an entry, in one call, and return the number that it got."""
        with self._answering(f"{task}@{release.version}"):
            source = f"models:/{task}/{release.version}"
            return int(self._number(task + LOG_SUFFIX, source, release.tags()).version)

    def releases(self, task: str) -> list[Release]:
        """All entries of the task's log, oldest first; what does not read as an entry is none."""
        with self._answering():
            read = (Release.from_tags(int(found.version), found.tags) for found in self._search(task + LOG_SUFFIX))
            return [release for release in read if release is not None]

    # --- what the above share -----------------------------------------------------------------------------------------

    def _number(self, name: str, source: str, tags: Mapping[str, str], **more: Any) -> ModelVersion:
        """The next version of a registered model, which is made if this is its first."""
        create = partial(self._client.create_model_version, name, source, tags=dict(tags), await_creation_for=0, **more)
        try:
            return create()
        except MlflowException as error:
            if error.error_code not in faults.ABSENT:
                raise
        holds = "releases" if name.endswith(LOG_SUFFIX) else "adapters"
        try:
            self._client.create_registered_model(name, tags={PREFIX + "holds": holds})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody else was first
                raise
        return create()

    def _model(self, task: str) -> RegisteredModel | None:
        """A task's registered model; None where that was deleted whole, and the release log is left.

        Raises:
            NotFound: there is neither.
        """
        try:
            with self._answering(f"task {task!r}"):
                return self._client.get_registered_model(task)
        except NotFound:
            if not self.releases(task):
                raise
            return None

    def _models(self, holds: str) -> Iterator[RegisteredModel]:
        """Our registered models: those of ``adapters``, or of ``releases``."""
        ours = f"tags.`{PREFIX}holds` = '{holds}'"
        return _pages(lambda token: self._client.search_registered_models(ours, MODELS_A_PAGE, page_token=token))

    def _search(self, name: str, condition: str = "") -> list[ModelVersion]:
        """A registered model's versions, oldest first; none if there is no such model."""
        wanted = f"name = '{name}'" + (f" AND {condition}" if condition else "")
        found = _pages(lambda token: self._client.search_model_versions(wanted, page_token=token))
        return sorted(found, key=lambda version: int(version.version))


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Every result of a paged search."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return
