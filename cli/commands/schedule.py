"""Commands that let retraining run by itself: schedule and deploy; and notify, which says who is told."""

from __future__ import annotations

import fnmatch
import os
from typing import TYPE_CHECKING

import click

from cli import render
from cli.options import Number, as_json_option, at_once_option, pool_option, prefect_home, suggest
from components.config import params as params_file
from components.errors import PrefaceError, SetupError
from flows.process import local_project

if TYPE_CHECKING:
    from flows.fleet import Ended


@click.command()
@click.option(
    "--list", "only_list", is_flag=True, help="Show each task's next run, last result and Production version."
)
@pool_option
@click.option(
    "--at-once", type=Number(1, 1000), default=1, show_default=True, help="Maximum number of concurrent runs."
)
@click.option("--port", type=Number(1, 65535), default=4200, show_default=True, help="Port of the Prefect server.")
@click.option("--pages", is_flag=True, help="Also serve the MLflow page.")
@as_json_option
def schedule(only_list: bool, pool: str, at_once: int, port: int, pages: bool, as_json: bool) -> None:
    """Run the schedules of params.yaml until Ctrl-C.

    With PREFECT_API_URL set that server is used; otherwise Prefect's own is started here.

    \b
    Example:
        preface schedule --list
    """
    root = local_project.enter()
    declared = params_file.load(root / "params.yaml")
    if only_list:
        _server("preface schedule")
        from flows.orchestration import timetable

        render.show(timetable.rows(declared), as_json=as_json, empty="params.yaml has no task")
        return
    prefect_home()
    from flows.local_stack import station

    station.run(root, pool, at_once, port, pages)


@click.command()
@pool_option
@as_json_option
def deploy(pool: str, as_json: bool) -> None:
    """Create or update every task's deployment on the Prefect server.

    prefect.yaml is written anew too, for `prefect deploy --all`.

    \b
    Example:
        preface deploy --pool preface-gpu
    """
    root = local_project.enter()
    declared = params_file.load(root / "params.yaml")
    _server("preface schedule")
    from components.io.atomic import write_text
    from flows.orchestration import deployments

    done = deployments.sync(declared, pool)
    write_text(root / "prefect.yaml", deployments.prefect_yaml(declared, pool))
    render.show([change.model_dump() for change in done], as_json=as_json, empty="params.yaml has no task")
    if not as_json:
        suggest("preface schedule --list")


@click.command()
@click.option("--to", "base", help="Target base, as named in params.yaml.")
@click.option("--undo", is_flag=True, help="Return tasks to their previous version and its base.")
@click.option("--tasks", "pattern", default="*", show_default=True, help="Only tasks whose name matches this pattern.")
@click.option("--reason", default="", help="With --undo: why; recorded in the history.")
@pool_option
@at_once_option
def rebase(base: str | None, undo: bool, pattern: str, reason: str, pool: str, at_once: int) -> None:
    """Move every task to another base model, one by one.

    Each is trained on the new base, judged against its champion on the old one, and promoted if it passes; its line in
    params.yaml follows. Stop it and type it again: it goes on where it was.

    \b
    Example:
        preface rebase --to qwen3-06b --tasks "shop-*"
        preface rebase --undo --tasks shop-reviews --reason "worse on short reviews"
    """
    if undo == (base is not None) or undo != bool(reason.strip()):
        raise click.UsageError("write --to BASE, or --undo --reason WHY")
    root = local_project.enter()
    declared = params_file.load(root / "params.yaml")
    tasks = fnmatch.filter(declared.tasks, pattern)
    if not tasks:
        raise click.UsageError(f"no task of params.yaml fits {pattern!r}")
    if base is not None:
        declared.base(base)
    prefect_home()
    from flows.local_stack import station

    def work() -> list[Ended]:
        # Not before there is a server: Prefect reads where it is when it is imported.
        from flows import rebase as campaign
        from flows.orchestration import run_logging

        run_logging.shorten()
        if base is None:
            return campaign.undo(root, tasks, reason)
        return campaign.run(root, base, tasks, pool, lambda found: render.show([each.row() for each in found]))

    ended = work() if undo else station.around(root, pool, at_once, work)
    render.show([each.row() for each in ended], empty=f"every task is on {base} already")
    if bad := [each.task for each in ended if each.failed]:
        raise PrefaceError(f"{len(bad)} of {len(ended)} tasks are where they were: {', '.join(bad)}")
    suggest("preface status")


@click.command()
@click.argument("block", metavar="TYPE/NAME")
@as_json_option
def notify(block: str, as_json: bool) -> None:
    """Send important events to a Prefect notification block.

    A refused gate, a run that failed or was given up, a promotion, a rollback. Make the block first, by Prefect's own
    means.

    \b
    Example:
        preface notify slack-webhook/on-call
    """
    local_project.enter()
    _server("preface schedule")
    from flows.orchestration import notifications

    render.show(notifications.sync(block), as_json=as_json)


def _server(remedy: str) -> None:
    """What talks to a Prefect server that lasts needs one."""
    prefect_home()
    if "PREFECT_API_URL" not in os.environ:
        raise SetupError(
            f"no Prefect server is running here and PREFECT_API_URL names none; start one with `{remedy}` or `make up`"
        )
