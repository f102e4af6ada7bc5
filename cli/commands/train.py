"""Commands that make and judge versions: prepare, retrain, evaluate, import; init, doctor and demo for the whole."""

from __future__ import annotations

import fnmatch
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import render
from cli.options import as_json_option, at_once_option, pool_option, prefect_home, suggest
from components.config import params as params_file
from components.config.params import MethodName
from components.errors import PrefaceError, PromotionRefused
from flows.process import local_project
from flows.process.terminal import say

if TYPE_CHECKING:
    from flows.fleet import Ended
    from flows.run.job import Outcome


@click.command()
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@as_json_option
def prepare(tasks: tuple[str, ...], as_json: bool) -> None:
    """Fetch and prepare the bases and data of tasks (default: all).

    \b
    Example:
        preface prepare movie-sentiment
    """
    root = local_project.enter()
    from cli import views
    from components.data.prepare import read_report
    from flows.dvc import repro

    done = repro.prepare(root, list(tasks) or None, say=lambda line: say(line, err=True))
    reports = [read_report(root / "data" / "prepared" / task) for task in done]
    for report in reports:
        for line in views.dialect_lines(report):
            say(line, err=True)
    render.show([views.data_row(report) for report in reports], as_json=as_json)
    if not as_json:
        suggest(f"preface retrain {next(iter(done))}")


@click.command()
@click.argument("task", required=False)
@click.option(
    "--method", type=click.Choice(["prompt", "prefix"]), help="Method to train; default: the one in params.yaml."
)
@click.option("--force", is_flag=True, help="Train even if nothing changed.")
@click.option("--sweep", is_flag=True, help="First search for better settings, as params.yaml's sweep says.")
@click.option("--all", "everything", is_flag=True, help="All tasks, on the workers of the pool.")
@click.option("--tasks", "pattern", help="With --all: only tasks whose name matches, as in 'shop-*'.")
@pool_option
@at_once_option
def retrain(
    task: str | None,
    method: MethodName | None,
    force: bool,
    sweep: bool,
    everything: bool,
    pattern: str | None,
    pool: str,
    at_once: int,
) -> Outcome | None:
    """Train, gate and register a new version if anything changed.

    \b
    Example:
        preface retrain movie-sentiment --method prefix
        preface retrain movie-sentiment --sweep
        preface retrain --all --tasks "shop-*"
    """
    if everything == (task is not None) or (pattern and not everything) or ((method or sweep) and everything):
        raise click.UsageError("write TASK [--method METHOD] [--sweep], or --all [--tasks GLOB]")
    if task is None:
        _fleet(pattern or "*", force, pool, at_once)
        return None
    root = _ready(task)
    from flows import retrain as flow

    return _tell(flow.run(root, task, method, force, sweep))


def _fleet(pattern: str, force: bool, pool: str, at_once: int) -> None:
    """Many tasks, by the workers of a server that runs, or by one that runs as long as this takes."""
    root = local_project.enter()
    tasks = fnmatch.filter(params_file.load(root / "params.yaml").tasks, pattern)
    if not tasks:
        raise click.UsageError(f"no task of params.yaml fits {pattern!r}")
    prefect_home()
    from flows.local_stack import station

    ended = station.around(root, pool, at_once, lambda: _run_fleet(root, tasks, force, pool))
    render.show([each.row() for each in ended])
    if bad := [each.task for each in ended if each.failed]:
        raise PrefaceError(f"{len(bad)} of {len(ended)} tasks did not end well: {', '.join(bad)}")
    suggest("preface status")


def _run_fleet(root: Path, tasks: list[str], force: bool, pool: str) -> list[Ended]:
    # Not before there is a server: Prefect reads where it is when it is imported.
    from flows import fleet
    from flows.orchestration import run_logging

    run_logging.shorten()
    return fleet.run(root, tasks, force, pool)


@click.command()
@click.argument("address", metavar="TASK@VERSION")
def evaluate(address: str) -> Outcome:
    """Evaluate a registered version again, as things are today.

    TASK@7, TASK@staging or TASK@production: its own bytes and wording, today's rows, rules and champion.

    \b
    Example:
        preface evaluate movie-sentiment@7
    """
    root = _ready(address.partition("@")[0])
    from flows import evaluate_version as flow

    return _tell(flow.run(root, address))


@click.command()
@click.argument("task")
@click.option("--arm", "arms", multiple=True, help="Run only this arm; may be repeated. Default: all.")
@as_json_option
def compare(task: str, arms: tuple[str, ...], as_json: bool) -> None:
    """Compare all ways to adapt the base on one task.

    Baselines, prompt, prefix, LoRA, IA3, bottleneck adapters and full fine-tuning on the same rows and budget: what
    each trains, stores, costs and reaches. Nothing is registered.

    \b
    Example:
        preface compare movie-sentiment --arm prefix --arm lora
    """
    root = _ready(task)
    from flows import compare_methods as flow

    shown = flow.run(root, task, arms)
    render.show(shown.rows, as_json=as_json)
    if not as_json:
        say(f"written to {shown.page.parent}")
        suggest("make ui")


@click.command(name="import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="Task whose data, template and gate are used to evaluate it.")
@click.option("--declare-base", is_flag=True, help="Confirm its base where no hash proves it; recorded in the history.")
@click.option("--force", is_flag=True, help="Import it even if the same adapter was imported before.")
def import_(folder: Path, task: str, declare_base: bool, force: bool) -> Outcome:
    """Import a PEFT adapter: evaluate, gate and register it.

    \b
    Example:
        preface import ../their-adapter --task movie-sentiment
    """
    root = _ready(task)
    from flows import import_adapter as flow

    return _tell(flow.run(root, task, folder, declare_base, force))


def _ready(task: str) -> Path:
    """The project's root, with everything set for a flow to run in this process."""
    root = local_project.enter()
    params_file.load(root / "params.yaml").task(task)  # a misspelt name is told before anything slow
    prefect_home()
    from flows.orchestration import run_logging

    run_logging.shorten()
    return root


def _tell(outcome: Outcome) -> Outcome:
    """How a run ended: its scores, what became of the version, and what one types next."""
    from flows.pages import evidence
    from registry.mlflow.store import Store

    store, task, version = Store(), outcome.task, outcome.version
    render.show(evidence.scores(store, store.version(task, version)))
    if outcome.refused:
        raise PromotionRefused(f"{outcome.message}; see `preface show {task}@{version}`")
    say(outcome.message)
    then = {"Staged": f'promote {task} --reason "..."', "Passed": f'promote {task} --version {version} --reason "..."'}
    suggest(f"preface {then.get(outcome.result, f'status {task}')}")
    return outcome


@click.command()
@click.argument("folder", default=".", metavar="[FOLDER]", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Make a folder of a git repository a project.

    \b
    Example:
        preface init
    """
    from cli import new_project

    for name in new_project.write(folder):
        say(f"wrote {folder / name}")
    suggest(f"describe a task in {folder / 'params.yaml'}, then `preface retrain TASK`")


@click.command()
@as_json_option
def doctor(as_json: bool) -> None:
    """Check the installation and say what to repair.

    \b
    Example:
        preface doctor
    """
    root = local_project.enter()
    from cli import doctor as checks

    found = list(checks.examine(root))
    render.show([asdict(check) for check in found], as_json=as_json)
    if any(check.result == "fail" for check in found):
        click.get_current_context().exit(1)


@click.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
def demo(tasks: tuple[str, ...]) -> None:
    """Run the whole life of an adapter, step by step.

    \b
    Example:
        preface demo movie-sentiment
    """
    root = local_project.enter()
    from cli import demo as story

    declared = params_file.load(root / "params.yaml")
    for task in tasks:
        declared.task(task)
    preface = click.get_current_context().find_root().command
    story.play(root, tasks, lambda arguments: preface.main(arguments, prog_name="preface", standalone_mode=False))
