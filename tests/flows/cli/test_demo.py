"""The demonstration tells what really happened, in the words that a user would type, the second time too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli import demo
from components.data.examples import Example
from components.errors import NothingToRollBackTo, PrefaceError, PromotionRefused, StoreUnavailable
from flows.run.job import Outcome
from registry.protocol import Version
from registry.release_log import Release
from registry.releases.lifecycle import ReleaseResult

TEST_ROWS = [Example("1", "long " * 100, "negative"), Example("2", 'a "short" one', "positive")]
Play = Callable[..., None]


class Commands:
    """Stands for the command line: remembers what was typed, answers as it was told to."""

    def __init__(self, trained: str = "Staged", refuse: dict[str, Exception] | None = None) -> None:
        self.trained, self.refuse = trained, refuse or {}
        self.typed: list[list[str]] = []

    def __call__(self, arguments: list[str]) -> Any:
        self.typed.append(arguments)
        if arguments[0] in self.refuse:
            raise self.refuse[arguments[0]]
        number = 2 if "prefix" in " ".join(arguments) else 1
        match arguments[0]:
            case "retrain":
                method: Any = arguments[-1]
                return Outcome(task="reviews", method=method, result=self.trained, version=number, message="")
            case "promote" | "rollback":
                return moved(number)
            case "predict":
                return ["positive"]
        return None

    @property
    def verbs(self) -> list[str]:
        return [arguments[0] for arguments in self.typed]


def moved(number: int) -> ReleaseResult:
    version = Version("reviews", number, "Production", {}, "run", "", datetime.now(UTC), ready=True, aliases=())
    return ReleaseResult(
        version, None, Release("promote", number, 0, "", "ada", "host", "now", "why", ""), changed=True
    )


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play it for the task reviews: ``play(commands, fresh=False)``."""

    def run(commands: Commands, fresh: bool = True) -> None:
        store = SimpleNamespace(releases=lambda task: [] if fresh else ["an entry"])
        monkeypatch.setitem(sys.modules, "registry.mlflow.store", SimpleNamespace(Store=lambda: store))  # type: ignore[arg-type]
        examples = SimpleNamespace(of={"test": TEST_ROWS}.__getitem__)
        monkeypatch.setattr("components.data.prepare.read_examples", lambda folder: examples)
        demo.play(tmp_path, ["reviews"], commands)

    return run


LIFE = ["prepare", "retrain", "promote", "retrain", "promote", "status", "rollback", "predict", "history"]


def test_the_first_time_tells_the_whole_life(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    commands = Commands()

    play(commands)

    assert commands.verbs == LIFE
    assert commands.typed[2] == ["promote", "reviews", "--reason", "prompt tuning passed its gate"]
    said = capsys.readouterr().out
    assert '$ preface promote reviews --reason "prompt tuning passed its gate"\n' in said
    assert "$ preface predict reviews 'a \"short\" one'\n" in said, "what is shown can be typed as it stands"
    assert "their own labels: positive\n" in said
    assert said.count("$ preface ") == len(LIFE)
    summary, following = said.split("# All of it took")[1].split("What to type next:")
    assert [line.split()[1] for line in summary.splitlines() if line.startswith("preface ")] == LIFE
    assert "version 2 in Production" in summary
    assert "make ui" in following


def test_the_second_time_calls_versions_by_number_and_takes_refusals_for_what_they_are(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse: dict[str, Exception] = {
        "promote": PromotionRefused("it was rolled away from"),
        "rollback": NothingToRollBackTo("there is no earlier good version"),
    }
    commands = Commands("Unchanged", refuse)

    play(commands, fresh=False)

    assert commands.verbs == LIFE
    assert commands.typed[2][2:4] == ["--version", "1"]
    assert commands.typed[4][2:4] == ["--version", "2"]
    said = capsys.readouterr().out
    assert said.count("error: it was rolled away from") == 2
    assert "reviews has a history already" in said


def test_a_refusal_of_the_first_time_ends_in_an_error_after_the_whole_story(play: Play) -> None:
    commands = Commands(refuse={"retrain": PromotionRefused("its gate refuses it")})

    with pytest.raises(PrefaceError, match="2 step"):
        play(commands)

    assert commands.verbs == [verb for verb in LIFE if verb != "promote"], "what was not trained is not promoted"


def test_a_store_that_is_down_ends_it_at_once(play: Play) -> None:
    commands = Commands(refuse={"promote": StoreUnavailable("it does not answer")})

    with pytest.raises(StoreUnavailable):
        play(commands)

    assert commands.verbs == ["prepare", "retrain", "promote"]
