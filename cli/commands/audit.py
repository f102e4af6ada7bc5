"""Commands that try what is registered: verify walks it, drill loads where rollbacks land, reproduce trains anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cli import render
from cli.options import Number, as_json_option, here, prefect_home
from components.errors import NotFound, PrefaceError, RegistryError
from flows.process import local_project
from flows.process.terminal import say

if TYPE_CHECKING:
    from flows.reproduction.result import Reproduction


@click.command()
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--all", "everything", is_flag=True, help="All tasks of the registry.")
@as_json_option
def verify(tasks: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Verify all versions and release logs, and list every error.

    From the bytes over run, rows, base and git commit to the releases. It changes nothing, mends nothing, and exits
    with 1 if anything is broken.

    \b
    Example:
        preface verify --all
    """
    if bool(tasks) == everything:
        raise click.UsageError("write TASK..., or --all")
    root = local_project.enter()
    from tqdm import tqdm

    from registry.audit.verify import verify_registry
    from registry.mlflow.store import Store

    chosen = _known(Store().tasks(), tasks)
    breaks, versions, seen = [], 0, set()
    with tqdm(desc="verify", unit=" versions", disable=None, leave=False) as bar:
        for walked in verify_registry(Store, chosen, here(root)):
            breaks += [asdict(broken) for broken in walked.breaks]
            seen.add(walked.task)
            if walked.version is not None:
                versions += 1
                bar.set_postfix_str(f"{walked.task}, {len(breaks)} errors", refresh=False)
                bar.update()
    counted = {"versions": versions, "tasks": len(seen & {*chosen})}
    if as_json:
        render.show_one({**counted, "breaks": breaks}, as_json=True)
    else:
        render.show(breaks, empty="no integrity errors")
        say(f"{versions} versions of {counted['tasks']} tasks verified, {len(breaks)} errors")
    if breaks:
        click.get_current_context().exit(1)


@click.command()
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--rows", type=Number(), default=16, show_default=True, help="Number of test rows to answer.")
@as_json_option
def drill(tasks: tuple[str, ...], rows: int, as_json: bool) -> None:
    """Load and query what a rollback would restore.

    Each is fetched, verified, loaded and asked a few test rows. It leaves a receipt: with that a rollback can be made,
    for two days, while the artifact store is down.

    \b
    Example:
        preface drill
    """
    local_project.enter()
    from registry.mlflow.store import Store

    chosen = _known(Store().tasks(), tasks)
    if not chosen:
        render.show([], as_json=as_json, empty="the registry has no task")
        return
    prefect_home()
    from flows import drill as flow
    from flows.orchestration import run_logging

    run_logging.shorten()
    done = flow.run(local_project.enter(), chosen, rows)
    render.show([each.model_dump() if as_json else each.row() for each in done], as_json=as_json)
    failed = [each for each in done if each.fault]
    if failed:
        tried = sum(each.version is not None for each in done)
        raise RegistryError(
            f"{len(failed)} of {tried} landing versions FAILED the drill, a rollback there would not do: "
            + "; ".join(f"{each.name}: {each.fault}" for each in failed)
        )


@click.command()
@click.argument("address", metavar="TASK@VERSION")
@as_json_option
def reproduce(address: str, as_json: bool) -> Reproduction:
    """Train a version again from its records, and compare.

    Its rows come back by their hash, from DVC. It exits with 1 if another adapter comes out although processor,
    threads and libraries are the same, or where they are not, if it scores otherwise than chance explains.

    \b
    Example:
        preface reproduce movie-sentiment@production
    """
    root = local_project.enter()
    from flows.reproduction import reproduce as again
    from flows.reproduction.result import rows

    found = again.run(root, address, say=lambda line: say(line, err=True))
    if as_json:
        render.show_one({**found.model_dump(mode="json"), "holds": found.holds}, as_json=True)
    else:
        render.show(rows(found))
    if not found.holds:
        raise PrefaceError(found.message)
    if not as_json:
        say(found.message)
    return found


def _known(known: list[str], asked: Sequence[str]) -> list[str]:
    """What was asked for, everything if nothing was; a name that the registry does not have is an error."""
    unknown = sorted({*asked} - {*known})
    if unknown:
        raise NotFound(f"the registry has no task {', '.join(map(repr, unknown))}; it has {known}")
    return list(dict.fromkeys(asked)) or known
