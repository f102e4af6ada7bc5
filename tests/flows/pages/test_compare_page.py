"""What a comparison says of the field's claims is reckoned from its own arms."""

from __future__ import annotations

from typing import Any

import pytest

from components.config.params import TaskParams
from components.evaluation.arms import Compared, Failed
from components.evaluation.metrics import score
from flows.pages import compare_page


def arm(name: str, **own: Any) -> Compared:
    given: dict[str, Any] = {
        "arm": name, "where": "somewhere", "trained": 100, "share": 0.001, "stored": 400, "seconds": 10.0, "peak": None,
        "base_unchanged": True, "steps": 10, "validation_loss": 0.3, "latency": 1.0,
        "scored": score(["a", "b"], ["a", "a"], ["a", "b"]), "interval": (0.0, 1.0),
    }  # fmt: skip
    return Compared(**given | own)


@pytest.fixture
def asked() -> TaskParams:
    return TaskParams.model_validate({
        "base": "tiny", "data": {"source": "x.csv", "format": "csv", "labels": ["a", "b"]}, "instruction": "Say it.",
        "prompt": {"virtual_tokens": 20}, "prefix": {"virtual_tokens": 30},
        "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.3}],
    })  # fmt: skip


def test_each_claim_has_the_figures_of_its_arms(asked: TaskParams) -> None:
    compared = [
        arm("prompt", trained=11520, stored=46080, seconds=60.0, steps=30),
        arm("prefix", share=0.0017, stored=921600, seconds=50.0, steps=40),
        arm("full", base_unchanged=False),
    ]

    prompt, prefix, speed, base = compare_page.claims(asked, compared)

    assert "20 virtual tokens are 11,520 numbers here and would be 81,920 at a width of 4096; 45.0 kB" in prompt
    assert "0.17% here, with 30 virtual tokens; 900.0 kB" in prefix
    assert "1.60 times as long" in speed
    assert "all but full left its weights" in base
    page = compare_page.page("film", asked, compared, {"date": "today"})
    assert all(f"- {claim}" in page for claim in (prompt, prefix, speed, base))


def test_an_arm_that_cannot_be_has_a_row_that_says_why(asked: TaskParams) -> None:
    arms = [arm("prefix", choice="one|two\nlines"), Failed(arm="upper_prefix", where="above", fault="no such layer")]

    there, missing = compare_page.rows(asked, arms)

    assert list(there) == list(missing)
    assert (missing["accuracy"], missing["choice"]) == ("-", "no such layer")
    lines = compare_page.page("film", asked, arms, {}).splitlines()
    assert any(line.startswith("| upper_prefix | above | - |") and line.endswith("| no such layer |") for line in lines)
    assert any(line.endswith("| one\\|two lines |") for line in lines)


def test_of_arms_that_are_not_there_nothing_is_said(asked: TaskParams) -> None:
    [base] = compare_page.claims(asked, [arm("lora")])
    assert "all arms left its weights" in base
    assert compare_page.claims(asked, []) == []
