"""The contest on the test rows: who is asked, each in its own wording, and who cannot be compared. Knows no Prefect.

How answers are scored: components/evaluation/report.py; what follows from the scores: components/gates/decide.py.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from components.base.base_model import Base, bases_folder
from components.config.params import MethodName, TaskParams
from components.data.prepare import read_examples
from components.data.template import Template
from components.evaluation.baselines import Answers
from components.evaluation.report import PredictFn, Report, evaluate
from components.prefix.inference import answer, from_artifact
from flows.run import bases, fetch
from flows.run.job import Fetched, Job
from registry.artifact import adapter_folder
from registry.artifact.manifest import Manifest


def in_words_of(base: Base, task: TaskParams, method: MethodName, table: Tensor) -> PredictFn:
    """An adapter that is no version yet, asked in the wording of params.yaml.

    Args:
        table: [P, H] or [P, L*2*Hkv*D].
    """
    prefix = from_artifact(base, method, table)
    return partial(answer, base, prefix, Template.of(task), max_new_tokens=task.max_new_tokens)


def in_its_words(base: Base, adapter: adapter_folder.Adapter) -> PredictFn:
    """A registered adapter, asked in the wording that it was trained for: params.yaml may have changed since."""
    said = adapter.manifest
    prefix = from_artifact(base, said.method, torch.from_numpy(adapter.tensor))
    template = Template.of(said)
    return partial(answer, base, prefix, template, max_new_tokens=said.max_new_tokens)


def other_labels(said: Manifest, task: TaskParams) -> str:
    """How an adapter's labels differ from today's, so that its answers cannot be scored; empty if they do not."""
    then, today = set(said.labels or ()), set(task.data.labels or ())
    return "" if then == today else f"it answers with the labels {sorted(then)}, params.yaml has {sorted(today)}"


def report(
    base: Base,
    job: Job,
    candidate: PredictFn,
    baselines: Path,
    rival: Fetched | None,
    unopposed: str = "",
) -> Report:
    """The candidate, the baselines and the champion on the held-out test split.

    Args:
        baselines: the file of what they answered.
        rival: the version in Production; ``unopposed`` says why there is none, if not because nothing is there.
    """
    champion, reason = _champion(base, job, rival) if rival else (None, unopposed)
    measured = json.loads(baselines.read_text(encoding="utf-8"))
    return evaluate(
        base.hash.value,
        job.task,
        job.params,
        job.method,
        read_examples(job.examples_folder),
        candidate,
        {name: Answers(**given) for name, given in measured.items()},
        champion,
        rival.number if rival else None,
        reason,
    )


def _champion(base: Base, job: Job, rival: Fetched) -> tuple[PredictFn | None, str]:
    """The champion to be asked, or why it cannot be compared."""
    stored = fetch.adapter_of(rival)
    said = stored.manifest
    if said.base.hash != job.base.hash:
        # The same rows, each contestant on its own base: what counts is what people get.
        found = bases.by_hash(job.root, said.base.hash, said.base.name)
        if found is None:
            return None, (
                f"it needs the base {said.base.name} ({said.base.hash}), which is not in {bases_folder(job.root)}; keep"
                " it under bases in params.yaml until no version in Production needs it, and run `preface prepare`"
            )
        base = found
    difference = other_labels(said, job.params)
    return (None, difference) if difference else (in_its_words(base, stored), "")
