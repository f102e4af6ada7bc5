"""Commands that look: status, history, show, predict. They mend what a crash left and move nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cli import render
from cli.options import as_json_option, here
from components.config import params as params_file
from components.errors import NotFound
from flows.process import local_project
from flows.process.terminal import say


@click.command()
@click.argument("task", required=False)
@as_json_option
def status(task: str | None, as_json: bool) -> None:
    """Show what is in Production and in Staging.

    \b
    Example:
        preface status movie-sentiment
    """
    declared = params_file.load(local_project.enter() / "params.yaml").tasks
    from cli import views
    from registry import queries
    from registry.mlflow.store import Store

    store = Store()
    try:
        found = {
            each.task: each for each in (queries.statuses(store) if task is None else [queries.status(store, task)])
        }
    except NotFound:
        if task not in declared:
            known = f"neither in params.yaml {sorted(declared)} nor in the registry {store.tasks()}"
            raise NotFound(f"no task {task!r}, {known}") from None
        found = {}
    rows, failures, now = [], store.failures() if as_json else {}, datetime.now(UTC)
    for name in [task] if task else sorted({*declared, *found}):
        metric = declared[name].gate[0].metric if name in declared else None
        row = views.status_row(found[name], metric) if name in found else views.untrained_row(name)
        if as_json:
            row = views.status_record(found.get(name, views.untrained(name)), row, failures.get(name), now)
        rows.append(row)
    render.show(rows, as_json=as_json, empty="params.yaml has no task")


@click.command()
@click.argument("task")
@as_json_option
def history(task: str, as_json: bool) -> None:
    """Show every change of Production: when, who and why.

    \b
    Example:
        preface history movie-sentiment
    """
    local_project.enter()
    from cli import views
    from registry import queries
    from registry.mlflow.store import Store

    store = Store()
    store.task_tags(task)  # a task that the registry does not know is an error, one never promoted is not
    entries = queries.history(store, task)
    head = max((entry.release.number for entry in entries if not entry.void), default=None)
    row = views.history_record if as_json else views.history_row
    rows = [row(entry, live=entry.release.number == head) for entry in entries]
    render.show(rows, as_json=as_json, empty=f"{task} was never in Production")


@click.command()
@click.argument("address", metavar="TASK@VERSION")
@as_json_option
def show(address: str, as_json: bool) -> None:
    """Show all that is recorded about a version, and its integrity.

    TASK@7, TASK@staging or TASK@production.

    \b
    Example:
        preface show movie-sentiment@production
    """
    root = local_project.enter()
    from cli import views
    from flows.pages import evidence
    from registry import queries
    from registry.audit import version_chain
    from registry.mlflow.store import Store
    from registry.releases import state

    store = Store()
    version = queries.find(store, address)
    links = version_chain.links(store, version, state.read(store, version.task), here(root))
    rows = [views.chain_row(link) for link in links]
    record = views.version_record(version, evidence.decision(store, version))
    render.show_one({**record, "chain": rows} if as_json else record, as_json=as_json)
    if not as_json:
        say()
        render.show(rows)


@click.command()
@click.argument("task")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--stage", type=click.Choice(["production", "staging"]), default="production", show_default=True)
@as_json_option
def predict(task: str, texts: tuple[str, ...], stage: str, as_json: bool) -> list[str]:
    """Answer texts with the version in Production.

    \b
    Example:
        preface predict movie-sentiment "A warm and funny film."
    """
    local_project.enter()
    from cli import answers

    version, rows = answers.ask(f"{task}@{stage}", list(texts))
    if not as_json:
        say(f"{version.name}, {version.tag('method')} tuning, in {stage.capitalize()}")
        rows = [{**row, "text": render.shortened(str(row["text"]), 60)} for row in rows]
    render.show(rows, as_json=as_json)
    return [str(row["answer"]) for row in rows]
