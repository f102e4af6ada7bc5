"""What a trained candidate's manifest will say: gathered from the job, the report and this installation.

Pure but for asking git and the installed distributions who they are. Writes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from components.base_hash import BaseHash
from components.base_support import KVShape
from components.params import MethodName, TaskParams
from components.report import Report
from flows.data_step import DataVersion
from registry.lifecycle import git_commit
from registry.manifest import BasePin, CodePin, DataPin, Draft, Shape

# Those whose version can change an adapter or its scores.
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn", "sacrebleu", "rouge-score")


def draft(
    task: str,
    params: TaskParams,
    method: MethodName,
    base: BaseHash,
    shape: KVShape,
    data: DataVersion,
    fingerprint: str,
    report: Report,
    root: Path,
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
        seed=settings.training.seed,
        params={
            "instruction": params.instruction,
            "data": params.data.model_dump(mode="json"),
            method: settings.model_dump(mode="json"),
        },
        template=params.template,
        labels=params.data.labels,
        max_tokens=params.data.max_tokens,
        max_new_tokens=params.max_new_tokens,
        metrics=report.candidate.metrics,
        code=CodePin(version=version("preface"), git_commit=git_commit(root)),
        libraries={name: version(name) for name in LIBRARIES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
