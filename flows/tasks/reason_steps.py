"""The steps in which a run asks whether there is reason to train, beside those of ``steps.py``.

Which facts are reason enough is decided in ``provenance/triggers.py``; here they are brought: what the newest version
was trained from, how old the one in Production is, and what it scores on today's rows where a floor asks for it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from prefect.logging import get_run_logger

from components.data.prepare import read_examples
from components.errors import NotFound, SourceError
from components.provenance import triggers
from components.provenance.fingerprint import settings_fingerprint
from components.provenance.triggers import Origin, Verdict, Watched
from flows.orchestration import concurrency
from flows.orchestration.step import network_step
from flows.run import bases, fetch
from flows.run.job import Job, Registered
from flows.tasks import steps
from registry import queries
from registry.mlflow.store import Store
from registry.protocol import Version
from registry.releases import scored

Cause = Literal["hand", "schedule", "event", "fleet", "rebase"]
# Nobody asked for such a run by name: what speaks for it must be reason enough by retrain.when, a floor or max_age.
UNASKED: tuple[Cause, ...] = ("schedule", "event")


def weigh(job: Job, cause: Cause, known: Registered | None) -> Verdict:
    """What this run should do, and why."""
    if known and job.forced and not known.own:
        return Verdict(action="train", reasons=("--force",))
    before, today = origins(job)
    if cause not in UNASKED:
        if known:
            return Verdict(action="rest", reasons=(job.why_unchanged(known),))
        changed = triggers.changes(before, today).values() if before else ("it was never trained",)
        return Verdict(action="train", reasons=(f"asked for ({cause})", *changed))
    champion = watched(job) if job.params.retrain.watches else None
    unchanged = job.why_unchanged(known) if known else ""
    return triggers.decide(job.params.retrain, before, today, champion, datetime.now(UTC), known=unchanged)


@network_step("look for reasons")
def origins(job: Job) -> tuple[Origin | None, Origin]:
    """What the newest version of the job's method was trained from (of any method if there is none), and today's."""
    today = Origin(data=job.data.dvc_md5, base=job.base.hash, settings=settings_fingerprint(job.params, job.method))
    try:
        made = [version for version in Store().versions(job.task) if version.ready]
    except NotFound:
        return None, today
    alike = [version for version in made if version.tag("method") == job.method] or made
    return (_origin(alike[-1]) if alike else None), today


def _origin(version: Version) -> Origin:
    facts = {"data": "dvc_md5", "base": "base_hash", "settings": "settings"}
    return Origin(version=version.number, **{name: version.tag(tag) for name, tag in facts.items()})


@network_step("watch the champion", seconds=None)
def watched(job: Job) -> Watched | None:
    """The version in Production: its age and, where the task has a floor, its scores on today's test rows.

    It is asked once for the same rows: the scores are kept with the version.
    """
    store = Store()
    live = queries.current(store, job.task, "Production")
    if live is None:
        return None
    found = scored.on(live, job.data.content_hash) if job.params.retrain.floor else {}
    return Watched(version=live.number, made=live.created, scores=_ask(job, live) if found is None else found)


def _ask(job: Job, version: Version) -> dict[str, float]:
    """The version's scores on today's test rows; none where it cannot be asked, which is told and is no reason."""
    from components.evaluation.report import scores  # torch comes with them: a run that only looks needs none
    from flows.run import contestants

    store = Store()
    with concurrency.training_slot():
        steps.place_rows.fn(job)
        stored = fetch.adapter_of(fetch.fetched(store, version, job.folder / "champion"))
        said = stored.manifest
        why = contestants.other_labels(said, job.params) or f"its base {said.base.name} is not here"
        with suppress(SourceError):
            bases.obtain(job.root, said.base.hash)
        base = bases.by_hash(job.root, said.base.hash, said.base.name)
        if base is None or contestants.other_labels(said, job.params):
            get_run_logger().warning("%s cannot be scored on today's rows: %s", version.name, why)
            return {}
        examples = read_examples(job.examples_folder)
        found = scores(job.params, examples, contestants.in_its_words(base, stored))
    scored.note(store, version, examples.content_hash, datetime.now(UTC).isoformat(timespec="seconds"), found)
    return found
