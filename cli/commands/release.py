"""Commands that move Production: promote, rollback, reconcile. They need neither torch nor prefect."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import render
from cli.options import Moment, Number, as_json_option, declared_base, override_option, reason_option, suggest
from components.errors import PrefaceError, RegistryError, StoreUnavailable
from flows.orchestration import events
from flows.process import local_project
from flows.process.terminal import say

if TYPE_CHECKING:
    from registry.releases.lifecycle import ReleaseResult


@click.command()
@click.argument("task")
@click.option("--version", "number", type=Number(), help="Version to promote; default: the one in Staging.")
@reason_option
@override_option
def promote(task: str, number: int | None, reason: str, override: bool) -> ReleaseResult:
    """Move a version that passed its gate to Production.

    \b
    Example:
        preface promote movie-sentiment --reason "better on short reviews"
    """
    declared = declared_base(local_project.enter(), task)
    from registry.mlflow.store import Store
    from registry.releases import lifecycle

    moved = lifecycle.promote(Store(), task, number, reason=reason, base_hash=declared, override=override)
    return _tell(moved, f'preface rollback {task} --reason "..."')


@click.command()
@click.argument("task", required=False)
@click.option("--to", type=Number(), help="Version to restore; default: the last good one.")
@reason_option
@override_option
@click.option("--all", "everything", is_flag=True, help="All tasks whose Production changed since --since.")
@click.option("--since", type=Moment(), help="A time or a duration: 22:00, 8h or 2026-11-23T22:00.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def rollback(
    task: str | None,
    to: int | None,
    reason: str,
    override: bool,
    everything: bool,
    since: datetime | None,
    yes: bool,
) -> ReleaseResult | None:
    """Restore the last good version to Production.

    After a bad night, all tasks at once: a preview first, then each task by itself.

    \b
    Example:
        preface rollback movie-sentiment --reason "complaints about sarcasm"
        preface rollback --all --since 22:00 --reason "the night's retraining saw broken data"
    """
    if everything != (since is not None) or everything == (task is not None) or (everything and (to or override)):
        raise click.UsageError("write TASK [--to N] [--override], or --all --since TIME")
    root = local_project.enter()
    if task is None:
        assert since is not None  # as checked above
        _night(root, since, reason, yes)
        return None
    declared = declared_base(root, task)
    from registry.mlflow.store import Store
    from registry.releases import lifecycle

    moved = lifecycle.rollback(Store(), task, to, reason=reason, base_hash=declared, override=override)
    return _tell(moved, f"preface history {task}")


def _night(root: Path, since: datetime, reason: str, yes: bool) -> None:
    from cli import views
    from registry.mlflow.store import Store
    from registry.releases import bulk_rollback

    store = Store()
    steps = bulk_rollback.plan(store, store.tasks(), since)
    render.show([views.night_row(step) for step in steps], empty=f"no task changed since {since.isoformat()}")
    if not steps:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("that was the preview; add --yes to do it where nobody can be asked")
        click.confirm("Roll these back?", abort=True)
    failed = 0
    for step, came in bulk_rollback.run(store, steps, reason=reason, base_hash=lambda task: declared_base(root, task)):
        if isinstance(came, PrefaceError):
            failed += 1
            now = f"NOT rolled back, version {step.upon.version} is still in Production"
            if isinstance(came, StoreUnavailable):  # it may have happened before the answer was lost
                now = f"NOT KNOWN whether rolled back from version {step.upon.version}; the same command finishes it"
            say(f"{step.task}: {now}: {came}")
        else:
            say(f"{step.task}: version {came.version.number} is in Production (release {came.entry.number})")
            events.moved(came)
    if failed:
        raise RegistryError(f"{failed} of {len(steps)} tasks were not rolled back; each says why above")
    suggest("preface status")


@click.command()
@click.argument("task")
@click.option("--adopt", is_flag=True, help="Record the change made by hand in the release log.")
@click.option("--restore", is_flag=True, help="Reset MLflow's stages and aliases to the release log.")
@click.option("--reason", default="", help="Why it is adopted; recorded in the history.")
@override_option
@as_json_option
def reconcile(task: str, adopt: bool, restore: bool, reason: str, override: bool, as_json: bool) -> None:
    """Resolve a change that was made by hand in MLflow.

    Without an option it mends what an interrupted command left, and says whether anything else disagrees.

    \b
    Example:
        preface reconcile movie-sentiment --restore
    """
    if adopt and restore:
        raise click.UsageError("--adopt and --restore exclude each other")
    if adopt and not reason.strip():
        raise click.UsageError("--adopt needs --reason: it writes an entry, and the history keeps why")
    root = local_project.enter()
    from cli import views
    from registry import queries
    from registry.mlflow.store import Store
    from registry.releases import lifecycle

    store = Store()
    if adopt:
        declared = declared_base(root, task)  # the others need none: a task may be gone from params.yaml
        events.moved(lifecycle.adopt(store, task, reason=reason, base_hash=declared, override=override))
    elif restore:
        lifecycle.restore(store, task)
    after = queries.status(store, task)
    render.show([views.status_row(after, None)], as_json=as_json)
    if after.drift:
        raise RegistryError(f"{task}: {after.drift}; {after.remedy}")


def _tell(moved: ReleaseResult, then: str) -> ReleaseResult:
    instead = f", in place of version {moved.previous}" if moved.previous else ""
    if moved.changed:
        say(f"{moved.version.name} is in Production{instead} (release {moved.entry.number})")
        if moved.entry.override:
            say(f"OVERRIDDEN: {moved.entry.override}")
        if moved.entry.drift:
            say(f"before: {moved.entry.drift}")
    else:
        say(f"{moved.version.name} was in Production already, since {moved.entry.when}; nothing to do")
    suggest(then)
    events.moved(moved)  # last: whoever types waits for no server
    return moved
