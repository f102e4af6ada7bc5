"""MLflow, narrow: how a tracking store is reached, and the runs in it. What is registered is in ``store.py``.

Whatever keeps the tracking server, its database or its artifact store from answering becomes ``StoreUnavailable``, in
one line. MLflow would try a dead server for minutes; here it is seconds, unless MLFLOW_HTTP_REQUEST_MAX_RETRIES,
..._BACKOFF_FACTOR or ..._TIMEOUT say otherwise.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException

from components.errors import NotFound, RegistryError, StoreUnavailable, sanitized
from components.io import plain_file
from components.redaction import redact
from registry.mlflow import address, entities, faults, schema
from registry.protocol import Failure, Run
from registry.release_log import PREFIX

RETRY_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "3",
}
MAX_FILE = 1 << 26  # bytes of an artifact that is read whole
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100  # MLflow's limits
ERROR_LENGTH = 2000


class RunStore:
    """The runs of one tracking store; see ``store.Store``, of which it is the lower half."""

    def __init__(self, uri: str | None = None, stages: bool | None = None) -> None:
        for name, value in RETRY_DEFAULTS.items():
            os.environ.setdefault(name, value)
        self.uri = uri or mlflow.get_tracking_uri()
        schema.ensure(self.uri)
        with self._answering():
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        wanted = os.environ.get("PREFACE_STAGES", "on") != "off" if stages is None else stages
        self._stages = wanted and hasattr(self._client, "transition_model_version_stage")
        self._downloads: Path | None = None

    def start_run(self, task: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """Open a run in the task's experiment."""
        with self._answering():
            run = self._client.create_run(self._experiment(task), tags=dict(tags), run_name=name)
            given = [Param(key, str(value)) for key, value in params.items()]
            for some in _chunks(given, PARAMS_A_CALL):
                self._client.log_batch(run.info.run_id, params=some)
        return str(run.info.run_id)

    def unfinished(self, task: str, fingerprint: str, place: str) -> str | None:
        """The newest run of a fingerprint that began in a place and never ended well, opened again; None if none.

        Args:
            place: the project's folder, by the id that its own lock of the fingerprint stands for. A host's name would
                not do: two containers may share one, and then one run.
        """
        said = f"tags.`{PREFIX}fingerprint` = '{fingerprint}' and tags.`{PREFIX}place` = '{place}'"
        with self._answering():
            at = self._client.get_experiment_by_name(task)
            if at is None or at.lifecycle_stage == "deleted":
                return None
            found = self._client.search_runs(
                [at.experiment_id],
                f"{said} and attributes.status != 'FINISHED'",
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
            if not found:
                return None
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)

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
        where = json.dumps({"uri": redact(source)})
        dataset = Dataset(name=name, digest=digest, source_type="local", source=where)
        with self._answering():
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def read_file(self, run_id: str, path: str) -> bytes:
        """The content of one of a run's artifacts."""
        if not _lies_within(path):
            raise NotFound(f"run {run_id} has no artifact {sanitized(path)!r}")
        with self._answering(), tempfile.TemporaryDirectory() as room:
            root = self._client.get_run(run_id).info.artifact_uri
            found = self._fetch(f"{root}/{path}", Path(room), f"artifact {path} of run {run_id}")
            return plain_file.read(found, MAX_FILE, "it is no report of ours")

    def run(self, run_id: str) -> Run:
        """What is recorded of a run."""
        with self._answering(f"run {run_id}"):
            return entities.run(self._client.get_run(run_id))

    def end_run(self, run_id: str, status: str, error: str = "") -> None:
        """Close a run as FINISHED, FAILED or KILLED; ``error`` is what it failed of."""
        with self._answering():
            if error:
                self._client.set_tag(run_id, PREFIX + "error", redact(error)[:ERROR_LENGTH])
            self._client.set_terminated(run_id, status)

    def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Set one tag of a run."""
        with self._answering():
            self._client.set_tag(run_id, key, value)

    def failures(self) -> dict[str, Failure]:
        """The last run of each task that failed, among the last thousand of all."""
        with self._answering():
            names = {found.experiment_id: found.name for found in self._client.search_experiments(max_results=50000)}
            runs = self._client.search_runs(
                list(names),
                "attributes.status = 'FAILED'",
                order_by=["attributes.end_time DESC"],
                max_results=METRICS_A_CALL,
            )
        found: dict[str, Failure] = {}
        for run in runs:
            when = datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)
            said = run.data.tags.get(PREFIX + "error", "")
            failure = Failure(run=run.info.run_id, when=when.isoformat(timespec="seconds"), error=said)
            found.setdefault(names[run.info.experiment_id], failure)
        return found

    def _experiment(self, task: str) -> str:
        """The id of the task's experiment, which is made if this is its first run.

        Raises:
            RegistryError: it was deleted, and MLflow gives its name to no other; or it writes where the project was.
        """
        found = self._client.get_experiment_by_name(task)
        if found and found.lifecycle_stage == "deleted":
            raise RegistryError(
                f"the experiment {task!r} was deleted in MLflow, and a run needs it; bring it back with `mlflow"
                f" experiments restore --experiment-id {found.experiment_id}`, then run the command again"
            )
        if found and (here := address.moved(self.uri, found.artifact_location)):
            raise RegistryError(
                f"the project was moved or renamed: MLflow would write the artifacts of {task!r} to"
                f" {found.artifact_location}, and they are in {here} now; move the project back, or lay a link where it"
                " was (ln -s NEW OLD), then run the command again"
            )
        if found:
            return str(found.experiment_id)
        try:
            return self._client.create_experiment(task, artifact_location=address.beside(self.uri))
        except MlflowException as error:
            found = self._client.get_experiment_by_name(task)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or not found:
                raise
            return str(found.experiment_id)

    def _fetch(self, uri: str, to: Path, what: str) -> Path:
        uri = address.moved(self.uri, uri) or uri
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


def _lies_within(path: str) -> bool:
    """Whether a path that a tag names stays below a run's artifacts, and is the name of a file there."""
    return bool(re.fullmatch(r"(?:[\w.-]+/)*[\w.-]+", path)) and ".." not in path.split("/")


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
