"""The benchmark of quality goes on where it was, and reckons its differences row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.quality import Found, ahead, gathered, kept, known_by
from components.config.params import DataParams, GateRule, TaskParams


def wanted(arm: str, *splits: str) -> list[Found]:
    return [{"task": "mood", "arm": arm, "seed": 0, "split": split} for split in splits]


def test_what_is_there_is_not_trained_again(tmp_path: Path) -> None:
    file, asked = tmp_path / "quality.json", list[list[str]]()

    def make(missing: Sequence[Found]) -> list[Found]:
        asked.append([f"{one['arm']} {one['split']}" for one in missing])
        if missing[0]["arm"] == "two":
            raise KeyboardInterrupt
        return [{"score": 0.5} for _ in missing]

    with pytest.raises(KeyboardInterrupt):
        gathered(file, {}, [wanted("one", "test"), wanted("two", "test")], make)
    found = gathered(file, {}, [wanted("one", "validation", "test"), wanted("three", "test")], make)

    assert asked == [["one test"], ["two test"], ["one validation"], ["three test"]]
    assert [(one["arm"], one["split"]) for one in found] == [("one", "test"), ("one", "validation"), ("three", "test")]
    assert found == kept(file)
    assert gathered(file, {}, [wanted("three", "test")], make) == found[2:]


def test_what_other_settings_or_rows_came_to_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "quality.json"

    def scoring(score: float) -> Callable[[Sequence[Found]], list[Found]]:
        return lambda missing: [{"score": score} for _ in missing]

    before, now = ([[one | {"fingerprint": digits} for one in wanted("one", "test")]] for digits in ("abc", "def"))
    gathered(file, {}, [*before, wanted("two", "test")], scoring(0.5))
    found = gathered(file, {}, now, scoring(0.75))

    assert [(one["fingerprint"], one["score"]) for one in found] == [("def", 0.75)]
    assert [(one["arm"], one["score"]) for one in kept(file)] == [("two", 0.5), ("one", 0.75)]


def test_a_fingerprint_follows_from_settings_rows_and_seed() -> None:
    task = TaskParams(
        base="tiny",
        data=DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
        instruction="Say a or b.",
        gate=[GateRule(metric="accuracy", direction="higher", threshold=0.5)],
    )
    shorter = task.with_settings("prefix", {"training.steps": 7})
    known = known_by(task, "base", "rows", "ours:prefix", 0)

    assert known == known_by(task, "base", "rows", "ours:prefix,virtual_tokens=20", 0), "which is the default"
    assert known not in {
        known_by(shorter, "base", "rows", "ours:prefix", 0),
        known_by(task, "base", "others", "ours:prefix", 0),
        known_by(task, "base", "rows", "ours:prefix", 1),
        known_by(task, "base", "rows", "ours:prefix,virtual_tokens=64", 0),
        known_by(task, "base", "rows", "ours:prompt", 0),
    }
    peft = known_by(task, "base", "rows", "peft:prefix", 0)
    examples = task.with_settings("prefix", {"init": "examples"})
    assert peft == known_by(examples, "base", "rows", "peft:prefix", 0), "PEFT's start is its own"


def row(arm: str, seed: int, rows: str) -> Found:
    values = [float(value) for value in rows.split()]
    known = {"task": "mood", "split": "test", "validation loss": 0.25}
    return known | {"arm": arm, "seed": seed, "score": sum(values) / len(values), "rows": rows}


def test_a_lead_is_that_of_the_rows_averaged_over_the_seeds_of_both() -> None:
    ours = [row("ours:prompt", 0, "1 1 0 1"), row("ours:prompt", 1, "1 1 1 1"), row("ours:prompt", 2, "0 0 0 0")]
    theirs = [row("peft:prompt", 1, "1 0 1 1"), row("peft:prompt", 0, "1 0 0 1"), row("peft:prompt", 3, "1 1 1 1")]

    assert ahead(ours, ours) == "+0.0000 [+0.0000, +0.0000]"
    assert ahead(ours, theirs).startswith("+0.2500 [")
    assert ahead(theirs, ours).startswith("-0.2500 [")
    assert ahead(ours[2:], theirs) == ""


def test_each_of_ours_stands_beside_the_same_method_of_peft_and_full_fine_tuning() -> None:
    lines = quality.table(
        [
            row("ours:prefix", 0, "1 1"),
            row('ours:prefix,init="text"', 0, "0 1"),
            row("peft:prefix", 0, "1 0"),
            row("peft:prompt", 0, "0 0"),
            row("full", 0, "1 1"),
        ]
    ).splitlines()

    ours, other = (line for line in lines if "ours:prefix" in line)
    assert "| +0.5000 [" in ours
    assert "| +0.0000 [" in ours
    assert "| +0.0000 [" in other
    assert "| -0.5000 [" in other
    assert not any("[" in line for line in lines if "peft" in line)
