"""The command `preface`: reads the arguments, asks the house, shows the answer. It decides nothing.

Commands import what they need when they run, once the environment is set: promotion and rollback need neither torch
nor prefect. Each returns what it did, for `preface demo`. Exit status: 0 done, 1 refused or failed (one line on stderr
says why), 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components import params as params_file
from components.errors import NotFound, PrefaceError, PromotionRefused
from components.params import MethodName
from flows import places, tables

if TYPE_CHECKING:
    from flows.job import Outcome
    from registry.lifecycle import Moved

as_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def _said(_context: click.Context, _option: click.Parameter, reason: str) -> str:
    if not reason.strip():
        raise click.BadParameter("say why; the history keeps it")
    return reason


reason_option = click.option("--reason", required=True, callback=_said, help="Why; the history keeps it.")


class _InOrder(click.Group):
    """Lists the commands as they stand here, in the order of an adapter's life, and not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="preface")
def preface() -> None:
    """Keeps language-model adapters alive in production: prepare, retrain, promote, roll back.

    \b
    Example:
        preface demo movie-sentiment
    """


@preface.command()
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@as_json_option
def prepare(tasks: tuple[str, ...], as_json: bool) -> None:
    """Bring base and data of the tasks (all) up to date.

    \b
    Example:
        preface prepare movie-sentiment
    """
    root = places.enter()
    from components.data import read_report
    from flows import data_step, views

    done = data_step.prepare(root, list(tasks) or None, say=lambda line: click.echo(line, err=True))
    tables.show([views.data_row(read_report(root / "data" / "prepared" / task)) for task in done], as_json=as_json)
    if not as_json:
        _next(f"preface retrain {next(iter(done))}")


@preface.command()
@click.argument("task")
@click.option("--method", type=click.Choice(["prompt", "prefix"]), help="Another than the one in params.yaml.")
@click.option("--force", is_flag=True, help="Train although nothing changed.")
def retrain(task: str, method: MethodName | None, force: bool) -> Outcome:
    """Train, gate and register, if anything changed.

    \b
    Example:
        preface retrain movie-sentiment --method prefix
    """
    root = places.enter()
    params_file.load(root / "params.yaml").task(task)  # a misspelt name is told before anything slow
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect itself makes the last folder alone
    from flows import evidence, run_log
    from flows import retrain as flow
    from registry.store import Store

    run_log.shorten()
    outcome = flow.run(root, task, method, force)
    store = Store()
    tables.show(evidence.scores(store, store.version(task, outcome.version)))
    if outcome.refused:
        raise PromotionRefused(f"{outcome.message}; see `preface show {task}@{outcome.version}`")
    click.echo(outcome.message)
    _next(f'preface promote {task} --reason "..."' if outcome.result == "Staged" else f"preface status {task}")
    return outcome


@preface.command()
@click.argument("task", required=False)
@as_json_option
def status(task: str | None, as_json: bool) -> None:
    """What is in Production and in Staging.

    \b
    Example:
        preface status movie-sentiment
    """
    declared = params_file.load(places.enter() / "params.yaml").tasks
    from flows import views
    from registry import lifecycle
    from registry.store import Store

    store = Store()
    known = store.tasks()
    if task is not None and task not in {*declared, *known}:
        raise NotFound(f"no task {task!r}, neither in params.yaml {sorted(declared)} nor in the registry {known}")
    rows = []
    for name in [task] if task else sorted({*declared, *known}):
        metric = declared[name].gate[0].metric if name in declared else None
        found = views.status_row(lifecycle.status(store, name), metric) if name in known else views.untrained_row(name)
        rows.append(found)
    tables.show(rows, as_json=as_json, empty="params.yaml has no task")


@preface.command()
@click.argument("task")
@as_json_option
def history(task: str, as_json: bool) -> None:
    """Every promotion and rollback: when, who, why.

    \b
    Example:
        preface history movie-sentiment
    """
    places.enter()
    from flows import views
    from registry import lifecycle
    from registry.store import Store

    store = Store()
    store.versions(task)  # a task that the registry does not know is an error, one never promoted is not
    entries = lifecycle.history(store, task)
    head = max((entry.release.number for entry in entries if not entry.void), default=None)
    rows = [views.history_row(entry, live=entry.release.number == head) for entry in entries]
    tables.show(rows, as_json=as_json, empty=f"{task} was never in Production")


@preface.command()
@click.argument("address", metavar="TASK@VERSION")
@as_json_option
def show(address: str, as_json: bool) -> None:
    """All that is recorded of a version.

    TASK@7, TASK@staging or TASK@production.

    \b
    Example:
        preface show movie-sentiment@production
    """
    places.enter()
    from flows import evidence, views
    from registry import lifecycle
    from registry.store import Store

    store = Store()
    version = lifecycle.find(store, address)
    tables.show_one(views.version_record(version, evidence.decision(store, version)), as_json=as_json)


@preface.command()
@click.argument("task")
@click.option("--version", "number", type=click.IntRange(1), help="Another than the one in Staging.")
@reason_option
def promote(task: str, number: int | None, reason: str) -> Moved:
    """Put a version that passed its gate into Production.

    \b
    Example:
        preface promote movie-sentiment --reason "better on short reviews"
    """
    declared = _base_hash(places.enter(), task)
    from registry import lifecycle
    from registry.store import Store

    moved = lifecycle.promote(Store(), task, number, reason=reason, base_hash=declared)
    return _tell(moved, f'preface rollback {task} --reason "..."')


@preface.command()
@click.argument("task")
@click.option("--to", type=click.IntRange(1), help="Another than the last good version.")
@reason_option
def rollback(task: str, to: int | None, reason: str) -> Moved:
    """Put back the version that was last good in Production.

    \b
    Example:
        preface rollback movie-sentiment --reason "complaints about sarcasm"
    """
    declared = _base_hash(places.enter(), task)
    from registry import lifecycle
    from registry.store import Store

    moved = lifecycle.rollback(Store(), task, to, reason=reason, base_hash=declared)
    return _tell(moved, f"preface history {task}")


@preface.command()
@click.argument("task")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--stage", type=click.Choice(["production", "staging"]), default="production", show_default=True)
@as_json_option
def predict(task: str, texts: tuple[str, ...], stage: str, as_json: bool) -> list[str]:
    """Answer texts with whatever is in Production.

    \b
    Example:
        preface predict movie-sentiment "A warm and funny film."
    """
    places.enter()
    from flows import answers

    version, rows = answers.ask(f"{task}@{stage}", list(texts))
    if not as_json:
        click.echo(f"{version.name}, {version.tag('method')} tuning, in {stage.capitalize()}")
        rows = [{**row, "text": tables.shortened(str(row["text"]), 60)} for row in rows]
    tables.show(rows, as_json=as_json)
    return [str(row["answer"]) for row in rows]


@preface.command()
@as_json_option
def doctor(as_json: bool) -> None:
    """Check the installation and say what to mend.

    \b
    Example:
        preface doctor
    """
    root = places.enter()
    from flows import doctor as checks

    found = list(checks.examine(root))
    tables.show([asdict(check) for check in found], as_json=as_json)
    if any(check.result == "fail" for check in found):
        click.get_current_context().exit(1)


@preface.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
def demo(tasks: tuple[str, ...]) -> None:
    """The whole life of an adapter, step by step.

    \b
    Example:
        preface demo movie-sentiment
    """
    root = places.enter()
    from flows import demo as story

    declared = params_file.load(root / "params.yaml")
    for task in tasks:
        declared.task(task)
    story.play(root, tasks, lambda arguments: preface.main(arguments, prog_name="preface", standalone_mode=False))


def _base_hash(root: Path, task: str) -> str:
    """The hash that params.yaml declares for the task's base."""
    declared = params_file.load(root / "params.yaml")
    return declared.bases[declared.task(task).base].hash


def _tell(moved: Moved, then: str) -> Moved:
    instead = f", in place of version {moved.previous}" if moved.previous else ""
    if moved.changed:
        click.echo(f"{moved.version.name} is in Production{instead} (release {moved.entry.number})")
    else:
        click.echo(f"{moved.version.name} was in Production already, since {moved.entry.when}; nothing to do")
    _next(then)
    return moved


def _next(command: str) -> None:
    click.echo(f"next: {command}")


def main(arguments: list[str] | None = None) -> Any:
    """The entry of the console script."""
    try:
        return preface.main(arguments, prog_name="preface")
    except PrefaceError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
