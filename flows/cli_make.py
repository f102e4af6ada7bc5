"""Commands that make and judge versions: prepare, retrain, evaluate, import; and doctor and demo, for the whole."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components import params as params_file
from components.errors import PromotionRefused
from components.params import MethodName
from flows import places, tables
from flows.cli_options import as_json_option, suggest

if TYPE_CHECKING:
    from flows.job import Outcome


@click.command()
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
        suggest(f"preface retrain {next(iter(done))}")


@click.command()
@click.argument("task")
@click.option("--method", type=click.Choice(["prompt", "prefix"]), help="Another than the one in params.yaml.")
@click.option("--force", is_flag=True, help="Train although nothing changed.")
def retrain(task: str, method: MethodName | None, force: bool) -> Outcome:
    """Train, gate and register, if anything changed.

    \b
    Example:
        preface retrain movie-sentiment --method prefix
    """
    root = _ready(task)
    from flows import retrain as flow

    return _tell(flow.run(root, task, method, force))


@click.command()
@click.argument("address", metavar="TASK@VERSION")
def evaluate(address: str) -> Outcome:
    """Judge a registered version again, as things are today.

    TASK@7, TASK@staging or TASK@production: its own bytes and wording, today's rows, rules and champion.

    \b
    Example:
        preface evaluate movie-sentiment@7
    """
    root = _ready(address.partition("@")[0])
    from flows import evaluating as flow

    return _tell(flow.run(root, address))


@click.command(name="import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="Whose rows, wording and gate it is judged by.")
@click.option("--declare-base", is_flag=True, help="Answer for its base where nothing proves it; the history says who.")
@click.option("--force", is_flag=True, help="Import it although the same was imported.")
def import_(folder: Path, task: str, declare_base: bool, force: bool) -> Outcome:
    """Take in a PEFT prompt or prefix adapter, by evaluation and gate.

    \b
    Example:
        preface import ../their-adapter --task movie-sentiment
    """
    root = _ready(task)
    from flows import importing as flow

    return _tell(flow.run(root, task, folder, declare_base, force))


def _ready(task: str) -> Path:
    """The project's root, with everything set for a flow to run in this process."""
    root = places.enter()
    params_file.load(root / "params.yaml").task(task)  # a misspelt name is told before anything slow
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect itself makes the last folder alone
    from flows import run_log

    run_log.shorten()
    return root


def _tell(outcome: Outcome) -> Outcome:
    """How a run ended: its scores, what became of the version, and what one types next."""
    from flows import evidence
    from registry.store import Store

    store, task, version = Store(), outcome.task, outcome.version
    tables.show(evidence.scores(store, store.version(task, version)))
    if outcome.refused:
        raise PromotionRefused(f"{outcome.message}; see `preface show {task}@{version}`")
    click.echo(outcome.message)
    then = {"Staged": f'promote {task} --reason "..."', "Passed": f'promote {task} --version {version} --reason "..."'}
    suggest(f"preface {then.get(outcome.result, f'status {task}')}")
    return outcome


@click.command()
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


@click.command()
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
    preface = click.get_current_context().find_root().command
    story.play(root, tasks, lambda arguments: preface.main(arguments, prog_name="preface", standalone_mode=False))
