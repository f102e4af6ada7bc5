"""What the commands share: options that mean the same everywhere, a task's declared base, what to type next."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from components.config import params as params_file
from components.redaction import redact
from flows.process import local_project
from flows.process.terminal import say
from registry.audit.local_environment import LocalEnvironment

LARGEST = 2**31 - 1  # of what MLflow's databases can number

as_json_option = click.option("--json", "as_json", is_flag=True, help="Output JSON.")
override_option = click.option(
    "--override", is_flag=True, help="Proceed despite failed checks; recorded in the history."
)

pool_option = click.option("--pool", default="preface", show_default=True, help="Prefect work pool to use.")


def _said(_context: click.Context, _option: click.Parameter, reason: str) -> str:
    if not reason.strip():
        raise click.BadParameter("say why; the history keeps it")
    # Nobody can take a password out of the history again.
    return redact(reason)


reason_option = click.option("--reason", required=True, callback=_said, help="Why; recorded in the history.")


class Number(click.ParamType[int]):
    """A whole number between two bounds, in the digits 0 to 9: any other spelling is a slip or a trick."""

    name = "number"

    def __init__(self, least: int = 1, most: int = LARGEST) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """``7``; 7 itself where it is a default."""
        text = str(value)
        # Python refuses to read more than 4300 digits, so a long text is never read at all.
        legible = text.isascii() and text.isdecimal() and len(text) <= len(str(self.most))
        if not legible or not self.least <= int(text) <= self.most:
            self.fail(f"{text[:40]!r} is no whole number from {self.least} to {self.most}", param, ctx)
        return int(text)


at_once_option = click.option(
    "--at-once",
    type=Number(1, 1000),
    default=1,
    show_default=True,
    help="Maximum number of concurrent runs, if no work pool exists yet.",
)

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[datetime]):
    """A moment that is past: an ISO time, an hour of the last day, or how long ago. Without a time zone it is this
    machine's."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """``2026-11-23T22:00``, ``22:00`` or ``8h``."""
        if isinstance(value, datetime):
            return value
        now = datetime.now().astimezone()
        if value.isascii() and value[:-1].isdecimal() and value[-1] in _UNITS and len(value) < 6:
            return now - timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        hour = ":" in value and "-" not in value
        try:
            moment = datetime.fromisoformat(f"{now.date()}T{value}" if hour else value)
            if hour and moment.astimezone() > now:  # who types 22:00 at four in the morning means last night
                moment -= timedelta(days=1)
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):  # the latter for the year 1 or 9999
            self.fail(f"{value!r} is no time; write 2026-11-23T22:00, 22:00 or 8h (ago)", param, ctx)
        if moment > now:
            self.fail(f"{value!r} is {moment.isoformat()}, in the future", param, ctx)
        return moment


def declared_base(root: Path, task: str) -> str:
    """The hash that params.yaml declares for the task's base."""
    declared = params_file.load(root / "params.yaml")
    return declared.bases[declared.task(task).base].hash


def here(root: Path) -> LocalEnvironment:
    """What this machine can say of versions beside the registry."""
    return LocalEnvironment(
        root, {name: base.hash for name, base in params_file.load(root / "params.yaml").bases.items()}
    )


def prefect_home() -> None:
    """See that Prefect's folder is there, and its owner's alone where it is the project's."""
    local_project.keep_private(Path(os.environ["PREFECT_HOME"]))


def suggest(command: str) -> None:
    """Say what one types next."""
    say(f"next: {command}")
