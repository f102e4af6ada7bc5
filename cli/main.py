"""The command `preface`: the list of its commands.

Commands read the arguments, ask the house and show the answer; they decide nothing. They import what they need when
they run, once the environment is set. Each returns what it did, for `preface demo`. What they raise becomes one line
and an exit status in ``edge.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cli.commands import audit, inspect, release, schedule, train
from components import distribution
from components.errors import sanitized
from flows.process import edge


@contextmanager
def _printable_faults() -> Iterator[None]:
    """What click says of wrong usage repeats what was typed, however long it is and whatever it holds."""
    try:
        yield
    except click.ClickException as error:
        error.message = sanitized(error.message)  # type: ignore[misc]  # there is no other place for it
        raise


class _InOrder(click.Group):
    """Lists the commands as they stand here, in the order of an adapter's life, and not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _printable_faults():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _printable_faults():
            return super().invoke(ctx)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=distribution.NAME, prog_name="preface")
def preface() -> None:
    """Keeps language-model adapters alive in production: prepare, retrain, promote, roll back.

    \b
    Example:
        preface demo movie-sentiment
    """


for _command in (
    train.init,
    train.prepare,
    train.retrain,
    train.evaluate,
    train.compare,
    train.import_,
    inspect.status,
    inspect.history,
    inspect.show,
    release.promote,
    release.rollback,
    release.reconcile,
    audit.verify,
    audit.drill,
    audit.reproduce,
    schedule.schedule,
    schedule.deploy,
    schedule.rebase,
    schedule.notify,
    inspect.predict,
    train.doctor,
    train.demo,
):
    preface.add_command(_command)


def main(arguments: list[str] | None = None) -> Any:
    """The entry of the console script."""
    given = sys.argv[1:] if arguments is None else arguments
    with edge.guarded(["preface", *given]):
        return preface.main(given, prog_name="preface")


if __name__ == "__main__":
    main()
