"""The report: everybody answers the same test rows, and what is stored says the same when it is read again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import TaskParams
from components.data.examples import Example
from components.data.prepare import Examples
from components.data.template import Template
from components.evaluation import baselines
from components.evaluation.metrics import lead
from components.evaluation.report import Report, evaluate
from components.prefix.inference import answer
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.text import hard_prompt

PROMPTS = ["Decide.\n", "a dull mess, too long by half an hour\n"]
TEXTS = ["a funny film", "a lifeless mess", "the striker scored", "the bank"]
GENERATION = TaskParams.model_validate(
    {
        "base": "tiny",
        "data": {"source": "x.csv", "format": "csv", "max_tokens": 32},
        "instruction": "Say it.",
        "max_new_tokens": 4,
        "baselines": {"hard_prompts": PROMPTS, "in_context": []},
        "gate": [{"metric": "chrf", "direction": "higher", "threshold": 0.0}],
    }
)
LABELLED = GENERATION.model_copy(
    update={"data": GENERATION.data.model_copy(update={"labels": {"bad": "negative", "good": "positive"}})}
)


@pytest.fixture(scope="module")
def base(tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder("llama")
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


def rows(targets: list[str], mark: str) -> list[Example]:
    return [Example(f"{mark}{i}", text, target) for i, (text, target) in enumerate(zip(TEXTS, targets, strict=True))]


def examples(test: list[str], validation: list[str] | None = None) -> Examples:
    other = validation or test
    return Examples({"train": rows(other, "a"), "validation": rows(other, "v"), "test": rows(test, "t")}, "d" * 64)


def said(base: Base, prefix: KVPrefix, task: TaskParams = GENERATION) -> list[str]:
    return answer(base, prefix, Template.of(task), TEXTS, task.max_new_tokens)


def evaluated(base: Base, task: TaskParams, rows: Examples, prefix: KVPrefix, **given: Any) -> Report:
    """As the flow does it: the baselines first, then the report."""
    texts = [row.text for row in rows.of("test")]
    measured = baselines.run(base, task, Template.of(task), rows.of("train"), rows.of("validation"), texts)
    candidate = partial(answer, base, prefix, Template.of(task), max_new_tokens=task.max_new_tokens)
    return evaluate(base.hash.value, "mood", task, "prompt", rows, candidate, measured, **given)


def report_of(base: Base, task: TaskParams = LABELLED, **given: Any) -> Report:
    prefix = hard_prompt(base, "a gripping film\n")
    return evaluated(base, task, examples(["bad", "good", "bad", "bad"]), prefix, **given)


def test_a_choice_that_would_have_won_on_the_test_rows_is_not_taken(base: Base) -> None:
    """Planted: one prompt answers every validation row, the other every test row."""
    first, second = (said(base, hard_prompt(base, text)) for text in PROMPTS)
    assert first != second
    found = evaluated(base, GENERATION, examples(first, second), hard_prompt(base, PROMPTS[0]))
    assert found.baselines["hard_prompt"].choice == PROMPTS[1].strip()
    assert found.baselines["hard_prompt"].metrics["exact_match"] < 1.0
    assert found.candidate.metrics["exact_match"] == 1.0


def test_everybody_answers_the_test_rows_and_the_candidates_lead_is_told(base: Base) -> None:
    found = report_of(base, champion=lambda texts: ["good"] * len(texts), champion_version=3)
    assert found.split == "test"
    assert found.row_ids == ["t0", "t1", "t2", "t3"]
    assert found.targets == ["bad", "good", "bad", "bad"]
    assert (found.data_hash, found.base_hash) == ("d" * 64, base.hash.value)
    assert list(found.baselines) == ["majority", "linear", "hard_prompt"] == list(LABELLED.measured_baselines)
    assert found.candidate.predictions == said(base, hard_prompt(base, "a gripping film\n"), LABELLED)
    assert found.champion is not None
    assert found.champion.predictions == ["good"] * 4
    assert found.champion.metrics["accuracy"] == 0.25
    for other in (*found.baselines.values(), found.champion):
        assert len(other.predictions) == len(other.rows) == 4
        assert other.lead == lead(found.candidate, other)
    assert found.candidate.lead is None


def test_no_champion_one_not_comparable_and_a_measured_one_reach_the_gate_apart(base: Base) -> None:
    assert report_of(base).in_production() is None
    mute = report_of(base, champion_version=3, champion_reason="it needs another base").in_production()
    assert mute is not None
    assert (mute.version, mute.metrics, mute.reason) == (3, None, "it needs another base")
    measured = report_of(base, champion=lambda texts: ["bad"] * len(texts), champion_version=3)
    champion = measured.in_production()
    assert champion is not None
    assert measured.champion is not None
    assert champion.metrics == measured.champion.metrics


@pytest.mark.parametrize("task", [GENERATION, LABELLED], ids=["generation", "classification"])
@pytest.mark.parametrize("with_champion", [False, True])
def test_a_stored_report_says_the_same_when_read_again(base: Base, task: TaskParams, with_champion: bool) -> None:
    champion = {"champion": lambda texts: ["bad"] * len(texts), "champion_version": 3} if with_champion else {}
    found = report_of(base, task, **champion)
    stored = found.model_dump_json(indent=1)
    assert Report.model_validate_json(stored) == found
    assert isinstance(found.baselines["hard_prompt"].lead, tuple)
    assert Report.model_validate_json(stored).baselines["hard_prompt"].lead == found.baselines["hard_prompt"].lead


def test_the_wording_is_the_tasks_own() -> None:
    assert Template.of(LABELLED).labels == {"bad": "negative", "good": "positive"}
    assert Template.of(GENERATION).labels is None
    assert (Template.of(GENERATION).text, Template.of(GENERATION).max_tokens) == ("{text}\n", 32)
