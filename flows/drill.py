"""The drill: fetch what a rollback would land on, verify it, load it, ask it, time all of that, and leave a receipt.

One version that fails is told loudly and keeps no other from being drilled. Nothing is moved: what a receipt is good
for is said in ``registry/releases/drill_receipts.py``, and where a rollback lands in ``lifecycle.py`` beside it.
"""

# No `from __future__ import annotations` here: Prefect's runner pickles a served flow, and names that stand in
# annotations alone would not travel with it.

import logging
import math
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from components.base.base_model import bases_folder, find
from components.config import params as params_file
from components.data.prepare import read_examples, read_report
from components.errors import ArtifactError, DataError, NothingToRollBackTo, PrefaceError, StoreUnavailable
from flows.local_stack import temporary_server
from flows.orchestration import run_logging
from flows.orchestration.step import network_step, step
from flows.pages.drill_page import Drilled, Landing
from flows.run import bases
from registry.artifact.manifest import Manifest
from registry.mlflow.store import Store
from registry.protocol import Version
from registry.releases import checks, drill_receipts, lifecycle
from registry.releases.projection import now, user
from registry.releases.state import read

if TYPE_CHECKING:
    from components.base.base_model import Base
    from components.prefix.kv_prefix import KVPrefix

ROWS = 16
_log = logging.getLogger("preface.drill")
# For whoever drills where the task's rows are not prepared: something to answer, in any language and of any length.
TEXTS = (
    "It is.",
    "A gripping, funny and moving film from the first scene to the last.",
    "Shares fell on Tuesday after the bank had reported a loss of 12 % for the third quarter.",
    "Wir stellen ein Verfahren vor, das Texte schneller und genauer zusammenfasst als die bisherigen.",
)


@network_step("find landings")
def landings(tasks: Sequence[str] | None) -> list[Landing]:
    """Where rollbacks of the tasks would land; those of one base behind one another, so that it is loaded once."""
    store, found = Store(), []
    for task in tasks if tasks is not None else store.tasks():
        try:
            state = read(store, task)
            version = store.version(task, lifecycle.destination(state))
            found.append(Landing(task=task, version=version.number, base_hash=version.tag("base_hash")))
        except NothingToRollBackTo as error:
            found.append(Landing(task=task, version=None, note=str(error)))
        except StoreUnavailable:
            raise
        except PrefaceError as error:
            found.append(Landing(task=task, version=None, fault=str(error)))
    return sorted(found, key=lambda landing: landing.base_hash)


@network_step("drill a version", seconds=None)  # it runs a model: how long that takes is no fault of a store's
def drill_version(root: str, task: str, number: int, rows: int) -> Drilled:
    """Everything that serving it would do, once, and the receipt of that."""
    import torch

    from components.prefix.inference import from_artifact

    store, seconds = Store(), dict[str, float]()
    version = store.version(task, number)
    with _timed(seconds, "fetch"):
        folder = store.download(version)
    with _timed(seconds, "verify"):
        adapter = checks.compare(folder, version)
    said, folders = adapter.manifest, bases_folder(Path(root))
    with _timed(seconds, "base"):
        base = bases.load(find(folders, said.base.hash, said.base.name) or folders / said.base.name, said.base.hash, "")
    with _timed(seconds, "load"):
        prefix = from_artifact(base, said.method, torch.from_numpy(adapter.tensor))
    texts, targets, unfit = _questions(Path(root), said, rows)
    with _timed(seconds, "answer"):
        answers = _answers(version.name, said, base, prefix, texts)
    metric, score = _score(said, answers, targets)
    receipt = drill_receipts.Receipt(
        when=now(), who=user(), host=socket.gethostname(), digest=said.digest, base_hash=base.hash.value,
        seconds=seconds, metric=metric, score=score, rows=len(texts),
    )  # fmt: skip
    drill_receipts.leave(store, version, receipt)
    return Drilled(
        task=task, version=number, metric=metric, score=score, registered=said.metrics.get(metric), rows=len(texts),
        seconds=seconds, note="; ".join(filter(None, [_refusal(Path(root), version), unfit])),
    )  # fmt: skip


@step(name="show the results")
def page(done: Sequence[Drilled]) -> None:
    """The table on the run's page."""
    create_table_artifact([each.row() for each in done], key="drill", description="What rollbacks would land on")


@flow(name="drill", flow_run_name="drill", persist_result=False)
def drill(root: str, tasks: list[str] | None = None, rows: int = ROWS) -> State[Any]:
    """Drill the versions that rollbacks would land on.

    Args:
        root: the folder of params.yaml.
        tasks: of the registry; all of it if None.
        rows: how many test rows each is asked.
    """
    run_logging.begin()
    done = []
    for landing in landings(tasks):
        run_logging.about(task=landing.task, version=landing.version or "")
        if landing.version is None:
            done.append(Drilled(task=landing.task, version=None, note=landing.note, fault=landing.fault))
        else:
            came = drill_version(root, landing.task, landing.version, rows, return_state=True)
            done.append(_came(landing, came))
        _log.info("%s: %s", done[-1].name, done[-1].fault or done[-1].result)
    page(done)
    failed = [each for each in done if each.fault]
    if failed:
        return Failed(name="DrillFailed", message=f"FAILED: {', '.join(each.name for each in failed)}", data=done)
    drilled = sum(each.version is not None for each in done)
    return Completed(name="Drilled", message=f"{drilled} of {len(done)} tasks can be rolled back", data=done)


def run(root: Path, tasks: Sequence[str] | None = None, rows: int = ROWS) -> list[Drilled]:
    """Run the flow in this process; a version that fails is a result, everything else that fails raises.

    Raises:
        PrefaceError: what stopped the run.
    """
    with temporary_server.at_hand(root):
        state: State[Any] = drill(str(root), None if tasks is None else list(tasks), rows, return_state=True)
    result = state.data if isinstance(state.data, list) else state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    if not isinstance(result, list):
        raise PrefaceError(f"the drill ended as {state.name}: {state.message}")
    return result


def _came(landing: Landing, state: State[Any]) -> Drilled:
    """What came of one version, whatever its step raised."""
    result = state.result(raise_on_failure=False)
    if isinstance(result, Drilled):
        return result
    fault = str(result) if isinstance(result, PrefaceError) else f"{state.name}: {result!r}"
    return Drilled(task=landing.task, version=landing.version, fault=fault)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - began, 4)


def _refusal(root: Path, version: Version) -> str:
    """Why a rollback would want --override although the version does well."""
    declared = params_file.load(root / "params.yaml")
    if version.task not in declared.tasks:
        return f"params.yaml has no task {version.task!r} any more, without which no rollback is made"
    fault = checks.base_fault(version, declared.bases[declared.tasks[version.task].base].hash)
    return f"a rollback there would want --override: {fault}" if fault else ""


def _questions(root: Path, said: Manifest, rows: int) -> tuple[list[str], list[str] | None, str]:
    """Texts to answer, and their targets if they are the task's test rows; and why they are not."""
    folder = root / "data" / "prepared" / said.task
    try:
        here = set(read_report(folder)["splits"]["test"].get("labels", ()))
        if here == set(said.labels or ()):
            test = read_examples(folder).of("test")[:rows]
            return [row.text for row in test], [row.target for row in test], ""
        why = f"the rows here have the labels {sorted(here)}, it answers {sorted(said.labels or ())}"
    except (DataError, KeyError, TypeError) as error:
        why = str(error)
    return list(TEXTS[:rows]), None, f"asked texts of no task: {why}"


def _answers(name: str, said: Manifest, base: "Base", prefix: "KVPrefix", texts: list[str]) -> list[str]:
    """What it answers; a label's score that is no number is a failure."""
    from components.data.template import Template
    from components.prefix.inference import classify, generate

    template = Template.of(said)
    if template.labels is None:
        return generate(base, prefix, template, texts, said.max_new_tokens)
    scores = classify(base, prefix, template, texts)
    wrong = [value for row in scores for value in row.values() if not math.isfinite(value)]
    if wrong:
        raise ArtifactError(
            f"{name} scores labels with {wrong[0]} ({len(wrong)} of {len(texts) * len(scores[0])} scores); it cannot"
            " answer on this machine: drill it on another, or name another version with `preface rollback --to`"
        )
    return [max(row, key=row.__getitem__) for row in scores]


def _score(said: Manifest, answers: list[str], targets: list[str] | None) -> tuple[str, float]:
    """The task's leading metric where the right answers are known, else the share of texts that got one."""
    from components.evaluation.metrics import leading_metric, score

    if targets is None:
        return "answered", sum(map(bool, answers)) / len(answers)
    metric = leading_metric(said.labels)
    return metric, score(answers, targets, said.label_order).metrics[metric]
