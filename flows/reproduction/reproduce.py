"""Train a registered version again, from what the registry says of it alone, and say whether the same comes out.

The version's manifest is the only word on what was trained: params.yaml, dvc.lock and data/prepared may have moved on
and are not asked. Rows come back by their hash, the base by its own. Nothing is registered and nothing stays behind.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.base.base_model import bases_folder, find, load
from components.base.machine import Machine, machine_of
from components.config.params import TaskParams
from components.data.prepare import Examples, read_examples
from components.errors import ArtifactError, BaseError, DataError, PrefaceError
from components.provenance.fingerprint import RECIPE, fingerprint
from flows.dvc import by_hash
from flows.reproduction.result import Fact, Metric, Reproduction
from flows.run import candidate
from registry import queries
from registry.artifact import adapter_folder
from registry.artifact.manifest import Manifest
from registry.mlflow.store import Store
from registry.releases import checks
from registry.releases.lifecycle import git_commit

if TYPE_CHECKING:
    from torch import Tensor

    from components.base.base_model import Base


def run(root: Path, address: str, say: Callable[[str], None] = lambda line: None) -> Reproduction:
    """Reproduce one version.

    Args:
        root: the project whose DVC cache and remotes, and whose bases, are asked.
        address: TASK@7, TASK@staging or TASK@production.
        say: gets a line for each stage of it.

    Raises:
        ArtifactError: the version is not what was registered, or does not say all that it was trained from.
        PrefaceError: of what is needed something is not here; the message names it and what to do.
    """
    store = Store()  # its downloads go with it
    version = queries.find(store, address)
    stored = checks.verify(store, version)
    said = stored.manifest
    task = _settings(version.name, said, root)
    folder = _base_folder(root, version.name, said)
    # One file system with the project's: what DVC checks out is moved, not copied.
    (root / ".preface").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-", dir=root / ".preface") as room:
        examples = _examples(root, version.name, said, Path(room) / said.task)
    say(f"rows {said.data.hash[:12]}: {', '.join(f'{len(rows)} {split}' for split, rows in examples.splits.items())}")
    base, asked = _base(folder, said), said.machine
    with _threads(asked.threads if asked else None):
        here = machine_of(base)
        say(f"base {base.hash.value[:12]}, {here.dtype} on {here.processor}, {here.threads} threads: training")
        start = _start(store, said)
        return _trained_again(version.name, said, stored.tensor, task, base, examples, _facts(said, here), root, start)


def _settings(name: str, said: Manifest, root: Path) -> TaskParams:
    """The settings that it was trained by, once this code and these settings make its fingerprint."""
    if said.recipe is None or said.machine is None:
        raise ArtifactError(f"{name} was not trained by Preface, so it cannot be trained again")
    if said.recipe != RECIPE:
        raise PrefaceError(
            f"{name} was trained by recipe {said.recipe}, this code's is {RECIPE} and would train another adapter;"
            f" check out git commit {said.code.git_commit or '(none recorded)'} (preface {said.code.version}), here is"
            f" {git_commit(root) or 'none'}, install that, and reproduce there"
        )
    task = candidate.settings(said)
    made = fingerprint(task, said.method, said.base.hash, said.data.hash, said.start.digest if said.start else None)
    if made != said.fingerprint:
        raise ArtifactError(
            f"{name} has the fingerprint {said.fingerprint}; base, rows and settings of its manifest make {made}: it"
            " was trained from something more than its manifest says, so it cannot be trained again"
        )
    return task


def _base_folder(root: Path, name: str, said: Manifest) -> Path:
    """The base that it was trained on, whatever its folder is called here."""
    bases, pin = bases_folder(root), said.base
    folder = find(bases, pin.hash, pin.name)
    if folder is None:
        raise BaseError(
            f"{name} was trained on the base {pin.name} {pin.hash}, and nothing in {bases} has that hash; pin it under"
            f" bases: in params.yaml and run `preface prepare {said.task}`, or set PREFACE_BASES to where it is"
        )
    return folder


def _start(store: Store, said: Manifest) -> adapter_folder.Floats | None:
    """The tensor of the version that training went on from, if it did."""
    if said.start is None:
        return None
    version = store.version(said.start.task or said.task, said.start.version)
    stored = checks.verify(store, version)
    if stored.manifest.digest != said.start.digest:
        raise ArtifactError(
            f"{version.name} has the digest {stored.manifest.digest}, training went on from one of"
            f" {said.start.digest}; it cannot be trained again from that"
        )
    return stored.tensor


def _examples(root: Path, name: str, said: Manifest, to: Path) -> Examples:
    """The rows that it was trained on; DVC would hand out a damaged object without a word, so they are hashed."""
    by_hash.restore(root, said.task, said.data.lock, to)
    remedy = (
        "an object in DVC's cache or remote is damaged: delete the cache (`dvc cache dir` says where) and reproduce"
        " again, from the remote; if that says the same, delete the remote's copy and `dvc push` from where the rows"
        " were prepared"
    )
    try:
        examples = read_examples(to)
    except DataError as error:
        raise DataError(f"what DVC has as the rows of {name} cannot be trusted ({error}); {remedy}") from error
    if examples.content_hash != said.data.hash:
        raise DataError(
            f"{name} was trained on rows of hash {said.data.hash}, DVC has rows of hash {examples.content_hash} under"
            f" their name; {remedy}"
        )
    return examples


def _base(folder: Path, said: Manifest) -> Base:
    """The base on the device and in the precision that it was trained in, as far as this machine has them."""
    import torch

    assert said.machine is not None  # refused before
    device = said.machine.device if torch.cuda.is_available() else "cpu"
    return load(folder, said.base.hash, said.base.name, device, getattr(torch, said.machine.dtype))


def _facts(said: Manifest, here: Machine) -> list[Fact]:
    """All that could keep the same settings from making the same bits, then and now."""
    then = said.machine.model_dump(mode="json") if said.machine else {}
    machine = [
        Fact(name=name, then=str(then.get(name)), now=str(now), shapes=True) for name, now in here.model_dump().items()
    ]
    libraries = [
        Fact(name=name, then=said.libraries.get(name, "not recorded"), now=now, shapes=name in candidate.SHAPING)
        for name, now in candidate.libraries().items()
    ]
    return [*machine, *libraries]


def _trained_again(
    name: str,
    said: Manifest,
    before: adapter_folder.Floats,
    task: TaskParams,
    base: Base,
    examples: Examples,
    facts: list[Fact],
    root: Path,
    start: adapter_folder.Floats | None,
) -> Reproduction:
    """Train, compare the tensors, and where they differ the scores."""
    import numpy as np
    import torch

    from components.training.adapter_training import train_adapter

    begun = None if start is None else torch.from_numpy(start).clone()
    table = train_adapter(base, said.task, task, said.method, examples, table=begun).table
    after = table.numpy()
    # Bytes, for zero and minus zero are equal and not the same.
    identical = after.shape == before.shape and after.tobytes() == before.tobytes()
    return Reproduction(
        address=name,
        method=said.method,
        identical=identical,
        largest=0.0 if identical else float(np.abs(after - before).max()),
        facts=facts,
        metrics=[] if identical else _metrics(said, task, base, table, examples),
        test_rows=len(examples.of("test")),
        commits=(said.code.git_commit, git_commit(root)),
    )


def _metrics(said: Manifest, task: TaskParams, base: Base, table: Tensor, examples: Examples) -> list[Metric]:
    """The new adapter's scores on the test rows beside those of the manifest."""
    from components.data.template import Template
    from components.evaluation.metrics import score
    from components.evaluation.tolerance import tolerances
    from components.prefix.inference import answer, from_artifact

    test, labels = examples.of("test"), said.label_order
    targets = [row.target for row in test]
    prefix = from_artifact(base, said.method, table)
    answers = answer(base, prefix, Template.of(task), [row.text for row in test], said.max_new_tokens)
    scores, allowed = score(answers, targets, labels).metrics, tolerances(answers, targets, labels)
    return [
        Metric(name=name, then=then, now=scores.get(name, math.nan), tolerance=allowed.get(name, 0.0))
        for name, then in said.metrics.items()
    ]


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """Work with as many threads as it was trained with, if there are as many cores: sums are split up by them."""
    import torch

    before = torch.get_num_threads()
    if wanted and wanted <= (os.cpu_count() or 1):
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
