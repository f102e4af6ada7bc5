"""The benchmark of quality goes on where it was, and reckons its differences row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.quality import Found, ahead, gathered, kept


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
