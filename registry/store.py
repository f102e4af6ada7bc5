"""MLflow, narrow: runs, versions, stages, aliases and the release log. The only module that talks to its client.

It knows no rule: what may go where is in ``lifecycle.py``. Whatever keeps the tracking server, its database or its
artifact store from answering becomes ``StoreUnavailable``, in one line. MLflow would try a dead server for minutes;
here it is seconds, unless MLFLOW_HTTP_REQUEST_MAX_RETRIES, ..._BACKOFF_FACTOR or ..._TIMEOUT say otherwise.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from components.errors import NotFound, StoreUnavailable
from registry import address, faults, records
from registry.protocol import Head, Run, Stage, Version
from registry.releases import PREFIX, Release

ADAPTER = "artifacts/adapter"  # the adapter folder's place in MLflow's model folder
LOG_SUFFIX = ".releases"  # no task has a dot in its name
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "3",
}
METRICS_A_CALL, PARAMS_A_CALL, MODELS_A_PAGE = 1000, 100, 1000  # MLflow's limits


class Store:
    """One tracking store, by default the one that MLFLOW_TRACKING_URI names.

    MLflow looks parts of its own up through a process-wide address (``create_model_version`` does), so making a Store
    sets that to this store. A process works with one store at a time.

    MLflow marks stages as deprecated. Where they are gone, or PREFACE_STAGES=off says to leave them alone, the aliases
    beside them carry everything: a version's ``stage`` is then what its alias says.
    """

    def __init__(self, tracking_uri: str | None = None, stages: bool | None = None) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self.uri = tracking_uri or mlflow.get_tracking_uri()
        # Said once and better by the exception: MLflow would print a traceback first, and its schema's every step.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        with self._answering():
            address.reach(self.uri)
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        wanted = os.environ.get("PREFACE_STAGES", "on") != "off" if stages is None else stages
        self._stages = wanted and hasattr(self._client, "transition_model_version_stage")
        self._downloads: Path | None = None

    # --- runs ---------------------------------------------------------------------------------------------------------

    def start_run(self, task: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """Open a run in the task's experiment."""
        with self._answering():
            run = self._client.create_run(self._experiment(task), tags=dict(tags), run_name=name)
            given = [Param(key, str(value)) for key, value in params.items()]
            for some in _chunks(given, PARAMS_A_CALL):
                self._client.log_batch(run.info.run_id, params=some)
        return str(run.info.run_id)

    def log_metrics(self, run_id: str, metrics: Sequence[tuple[str, float, int]]) -> None:
        """Log (name, value, step) triples."""
        now = int(time.time() * 1000)
        with self._answering():
            for some in _chunks([Metric(key, value, now, step) for key, value, step in metrics], METRICS_A_CALL):
                self._client.log_batch(run_id, metrics=some)

    def log_files(self, run_id: str, paths: Sequence[Path], artifact_path: str) -> None:
        """Copy files into the run's artifacts."""
        with self._answering():
            for path in paths:
                self._client.log_artifact(run_id, str(path), artifact_path)

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """Name the rows that a run used; ``digest`` is at most 36 characters, which DVC's md5 is."""
        where = json.dumps({"uri": source})
        dataset = Dataset(name=name, digest=digest, source_type="local", source=where)
        with self._answering():
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def read_file(self, run_id: str, path: str) -> bytes:
        """The content of one of a run's artifacts."""
        with self._answering(), tempfile.TemporaryDirectory() as room:
            root = self._client.get_run(run_id).info.artifact_uri
            return self._fetch(f"{root}/{path}", Path(room), f"artifact {path} of run {run_id}").read_bytes()

    def run(self, run_id: str) -> Run:
        """What is recorded of a run."""
        with self._answering(f"run {run_id}"):
            return records.run(self._client.get_run(run_id))

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        with self._answering():
            self._client.set_terminated(run_id, status)

    # --- versions -----------------------------------------------------------------------------------------------------

    def register(self, task: str, folder: Path, run_id: str, tags: Mapping[str, str], description: str) -> Version:
        """Upload the adapter folder inside an MLflow model, and only when all of it is there give it a number."""
        from registry.model import pack  # not needed to move what is registered, and slow

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
            return records.version(found, self._client.get_registered_model(task).aliases, self._stages)

    def versions(self, task: str) -> list[Version]:
        """All versions of a task, oldest first."""
        with self._answering(f"task {task!r}"):
            aliases = self._client.get_registered_model(task).aliases
            return [records.version(found, aliases, self._stages) for found in self._search(task)]

    def task_tags(self, task: str) -> dict[str, str]:
        """The tags of a task's registered model."""
        with self._answering(f"task {task!r}"):
            return dict(self._client.get_registered_model(task).tags)

    def by_fingerprint(self, task: str, fingerprint: str) -> list[Version]:
        """The versions that were trained from exactly this, oldest first; none if the task has none."""
        with self._answering():
            found = self._search(task, f"tags.`{PREFIX}fingerprint` = '{fingerprint}'")
            return [records.version(version, {}, self._stages) for version in found]

    def tasks(self) -> list[str]:
        """The tasks that have a registered model of ours, sorted."""
        with self._answering():
            return sorted(str(registered.name) for registered in self._models("adapters"))

    def overview(self) -> list[Head]:
        """Every task as two searches tell of it: a look at each would be as many as there are tasks."""
        with self._answering():
            logs = {registered.name: registered for registered in self._models("releases")}
            models = self._models("adapters")
            return [records.head(found, logs.get(found.name + LOG_SUFFIX), self._stages) for found in models]

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

    def _experiment(self, task: str) -> str:
        """The id of the task's experiment, which is made if this is its first run."""
        found = self._client.get_experiment_by_name(task)
        if found:
            return str(found.experiment_id)
        try:
            return self._client.create_experiment(task, artifact_location=address.beside(self.uri))
        except MlflowException as error:
            found = self._client.get_experiment_by_name(task)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or not found:
                raise
            return str(found.experiment_id)

    def _models(self, holds: str) -> Iterator[RegisteredModel]:
        """Our registered models: those of ``adapters``, or of ``releases``."""
        ours = f"tags.`{PREFIX}holds` = '{holds}'"
        return _pages(lambda token: self._client.search_registered_models(ours, MODELS_A_PAGE, page_token=token))

    def _search(self, name: str, condition: str = "") -> list[ModelVersion]:
        """A registered model's versions, oldest first; none if there is no such model."""
        wanted = f"name = '{name}'" + (f" AND {condition}" if condition else "")
        found = _pages(lambda token: self._client.search_model_versions(wanted, page_token=token))
        return sorted(found, key=lambda version: int(version.version))

    def _fetch(self, uri: str, to: Path, what: str) -> Path:
        try:
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(to), tracking_uri=self.uri))
        except (MlflowException, OSError) as error:
            # Each kind of artifact store says "absent" in its own words, some in the words of an outage: look.
            folder, _, name = uri.rpartition("/")
            there = mlflow.artifacts.list_artifacts(artifact_uri=folder, tracking_uri=self.uri)
            if name in {entry.path.rpartition("/")[2] for entry in there}:
                raise
            if address.is_away(self.uri, uri):
                raise StoreUnavailable(
                    f"the folder of the artifacts is not there ({uri}); is its disk mounted?"
                ) from error
            raise NotFound(f"{what} is not in the artifact store ({uri})") from error

    def _answering(self, what: str = "that") -> AbstractContextManager[None]:
        return faults.answering(self.uri, what)


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Every result of a paged search."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
