"""What a trained candidate's manifest will say, gathered from the job, the report and this installation; and read back.

Pure but for asking git and the installed distributions who they are. Writes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components import distribution
from components.base.base_hash import BaseHash
from components.base.base_support import KVShape
from components.base.machine import Machine
from components.config.params import MethodName, TaskParams
from components.errors import ArtifactError, sanitized
from components.evaluation.metrics import leading_metric
from components.provenance.fingerprint import RECIPE
from components.redaction import redact
from flows.dvc.repro import DataVersion
from flows.run.job import Imported
from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Manifest, Shape, StartPin
from registry.releases.lifecycle import git_commit

if TYPE_CHECKING:
    from components.evaluation.report import Report  # it brings torch

# Those whose version can change an adapter, and those whose version can change its scores alone.
SHAPING = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
SCORING = ("scikit-learn", "sacrebleu", "rouge-score")


def draft(
    task: str,
    params: TaskParams,
    method: MethodName,
    base: BaseHash,
    shape: KVShape,
    data: DataVersion,
    fingerprint: str,
    report: Report,
    machine: Machine,
    root: Path,
    start: StartPin | None = None,
) -> Draft:
    """Everything of the manifest but the digests of the folder's files."""
    settings = params.settings(method)
    return Draft(
        task=task,
        method=method,
        kind="generation" if params.generates else "classification",
        virtual_tokens=settings.virtual_tokens,
        shape=Shape(
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            hidden=shape.hidden,
            heads=shape.heads,
        ),
        base=BasePin(
            name=params.base, hash=base.value, weights=base.weights, config=base.config, tokenizer=base.tokenizer
        ),
        data=DataPin(hash=data.content_hash, lock=data.lock_entry),
        fingerprint=fingerprint,
        recipe=RECIPE,
        seed=settings.training.seed,
        params={
            "instruction": params.instruction,
            "data": params.data.model_dump(mode="json") | {"source": redact(params.data.source)},
            method: settings.model_dump(mode="json"),
        },
        template=params.template,
        labels=params.data.labels,
        label_order=list(params.data.labels) if params.data.labels else None,
        max_tokens=params.data.max_tokens,
        max_new_tokens=params.max_new_tokens,
        metrics=report.candidate.metrics,
        code=CodePin(version=distribution.version(), git_commit=git_commit(root)),
        libraries=libraries(),
        machine=machine,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        start=start,
    )


def from_elsewhere(said: Draft, imported: Imported) -> Draft:
    """The same of an adapter that was not trained here: no settings, seed, recipe and machine made it."""
    asked = {key: value for key, value in said.params.items() if key != said.method}
    brought = imported.model_dump(mode="json") | {"folder": sanitized(imported.folder.name)}
    return said.model_copy(
        update={
            "virtual_tokens": imported.virtual_tokens,
            "recipe": None,
            "seed": 0,
            "params": {**asked, "imported": brought},
            "machine": None,
        }
    )


def libraries() -> dict[str, str]:
    """The installed versions of what an adapter and its scores follow from."""
    return {name: version(name) for name in (*SHAPING, *SCORING)}


def _rows(said: Manifest) -> dict[str, Any]:
    """What a manifest says of the rows; of the address, what may be shown, since older ones kept it whole."""
    kept: dict[str, Any] = dict(said.params["data"])  # type: ignore[arg-type]  # or TypeError
    return kept | {"source": redact(str(kept["source"]))}


def settings(said: Manifest) -> TaskParams:
    """What ``draft`` wrote down of the task, as it was trained.

    A manifest does not say by which gate it was judged, nor the other method's settings: neither trains anything.

    Raises:
        ArtifactError: it does not say what it was trained by.
    """
    metric = leading_metric(said.labels)
    try:
        return TaskParams.model_validate(
            {
                "base": said.base.name,
                "data": _rows(said) | {"labels": said.labels},
                "instruction": said.params["instruction"],
                "template": said.template,
                "method": said.method,
                said.method: said.params[said.method],
                "max_new_tokens": said.max_new_tokens,
                "gate": [{"metric": metric, "direction": "higher", "threshold": 0.0}],
            }
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ArtifactError(
            f"the manifest of {said.task} does not say what it was trained by ({' '.join(str(error).split())}): it came"
            " from elsewhere, or from another version of Preface"
        ) from error
