"""The demonstration: one task's whole life, step by step, each the command that a user would type, with its own output.

It calls the commands and looks at what they return; whatever it shows is real. It knows nothing of how they work.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import render
from components.errors import PrefaceError, RegistryError, StoreUnavailable
from flows.process.terminal import say

if TYPE_CHECKING:
    from components.data.examples import Example
    from flows.run.job import Outcome
    from registry.releases.lifecycle import ReleaseResult

Command = Callable[[list[str]], Any]
SHORT = 160  # characters of a text that reads well on a command line
ASKED = 3


@dataclass
class Story:
    """Steps taken so far, and how each ended."""

    command: Command
    steps: list[dict[str, object]] = field(default_factory=list)
    refused: int = 0

    def tell(self, why: str, *arguments: str) -> Any:
        """Say why, run one command as if it had been typed, and keep its time. None if the registry refused it."""
        line = " ".join(["preface", *map(_quoted, arguments)])
        say(f"\n# {why}", bold=True)
        say(f"$ {line}")
        start, result = time.perf_counter(), None
        try:
            result = self.command(list(arguments))
            ending = _ending(result)
        except RegistryError as error:
            if isinstance(error, StoreUnavailable):
                raise
            say(f"error: {error}")
            ending = "refused"
            self.refused += 1
        seconds = time.perf_counter() - start
        say(f"({seconds:.1f} s)")
        shown = render.shortened(line, SHORT // 2)
        self.steps.append({"step": shown, "seconds": f"{seconds:.1f}", "ending": ending})
        return result


def play(root: Path, tasks: Sequence[str], command: Command) -> None:
    """Tell the story of each task, then sum up.

    Raises:
        PrefaceError: something was refused although the task began from nothing.
    """
    story, start = Story(command), time.perf_counter()
    unexpected = 0
    for task in tasks:
        before = story.refused
        fresh = _is_fresh(task)
        if not fresh:
            say(f"{task} has a history already: steps that were taken before are refused or leave things alone.")
        _life(story, root, task)
        unexpected += (story.refused - before) if fresh else 0
    say(f"\n# All of it took {time.perf_counter() - start:.0f} s", bold=True)
    render.show(story.steps)
    if unexpected:
        raise PrefaceError(
            f"{unexpected} step(s) were refused although the demonstration began from nothing; see above"
        )
    say("\nWhat to type next:")
    for line, why in (
        (f"preface show {tasks[0]}@production", "all that is recorded of the version that answers"),
        (f"preface history {tasks[0]}", "who put what into Production, when and why"),
        ("preface status", "every task at a glance"),
        ("make ui", "runs, metrics, versions and gate reports in the browser"),
    ):
        say(f"  {line:44} {why}")


def _life(story: Story, root: Path, task: str) -> None:
    """From raw data to a version that answers, a better one, and back again."""
    story.tell("Fetch the base model and the data, check both, split the rows", "prepare", task)
    for method, why in (
        ("prompt", "Train a first adapter, measure it beside its baselines, and let the gate decide"),
        ("prefix", "Train another kind of adapter; now it must also hold its own against the one in Production"),
    ):
        trained = story.tell(why, "retrain", task, "--method", method)
        if trained is not None:
            # What was trained on an earlier day stands in Staging no more, and is called by its number.
            number = ["--version", str(trained.version)] if trained.result == "Unchanged" else []
            reason = f"{method} tuning passed its gate"
            story.tell("Its gate let it pass: into Production", "promote", task, *number, "--reason", reason)
    story.tell("What is where", "status", task)
    story.tell(
        "Suppose that users complain: back to the version before", "rollback", task, "--reason", "users complain"
    )
    rows = _questions(root, task)
    story.tell(
        "Ask whatever is in Production; these rows were in no training", "predict", task, *(r.text for r in rows)
    )
    say("their own labels: " + ", ".join(row.target for row in rows))
    story.tell("Nothing of this is forgotten", "history", task)


def _ending(result: Outcome | ReleaseResult | list[str] | None) -> str:
    """What a command returned, in a few words."""
    from registry.releases.lifecycle import ReleaseResult

    if result is None:
        return "done"
    if isinstance(result, list):
        return ", ".join(answer[:20] for answer in result)
    if isinstance(result, ReleaseResult):
        return f"version {result.version.number} in Production"
    return f"version {result.version} {result.result.lower()}"


def _quoted(argument: str) -> str:
    """As people quote: double where nothing in it means anything to a shell."""
    plain = " " in argument and not set(argument) & set('"$`\\!')
    return f'"{argument}"' if plain else shlex.quote(argument)


def _is_fresh(task: str) -> bool:
    """Whether nothing of the task was ever in Production."""
    from registry.mlflow.store import Store

    return not Store().releases(task)


def _questions(root: Path, task: str) -> list[Example]:
    """A few rows of the test split, short ones where there are such."""
    from components.data.prepare import read_examples

    rows = read_examples(root / "data" / "prepared" / task).of("test")
    return [row for row in rows if len(row.text) <= SHORT][:ASKED] or sorted(rows, key=lambda row: len(row.text))[:1]
