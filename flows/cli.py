"""The command `preface`: the list of its commands, and the edge at which errors become exit statuses.

Commands read the arguments, ask the house and show the answer; they decide nothing. They import what they need when
they run, once the environment is set. Each returns what it did, for `preface demo`. Exit status: 0 done, 1 refused or
failed (one line on stderr says why), 2 wrong usage.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from components.errors import PrefaceError
from flows import cli_check, cli_look, cli_make, cli_move, cli_run, collector


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


for _command in (
    cli_make.prepare,
    cli_make.retrain,
    cli_make.evaluate,
    cli_make.compare,
    cli_make.import_,
    cli_look.status,
    cli_look.history,
    cli_look.show,
    cli_move.promote,
    cli_move.rollback,
    cli_move.reconcile,
    cli_check.verify,
    cli_check.drill,
    cli_check.reproduce,
    cli_run.schedule,
    cli_run.deploy,
    cli_run.rebase,
    cli_run.notify,
    cli_look.predict,
    cli_make.doctor,
    cli_make.demo,
):
    preface.add_command(_command)


def main(arguments: list[str] | None = None) -> Any:
    """The entry of the console script."""
    collector.spare()
    try:
        return preface.main(arguments, prog_name="preface")
    except PrefaceError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
