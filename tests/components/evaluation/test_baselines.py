"""Baselines are answered in earnest: chosen on validation alone, and never a reason for the report to crash."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import TaskParams
from components.data.examples import Example
from components.data.template import Template
from components.errors import DataError
from components.evaluation import baselines
from components.prefix.inference import answer
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.text import hard_prompt, in_context_ids

PROMPTS = ["Decide.\n", "a dull mess, too long by half an hour\n", "Article: shares fell\nTopic:"]
TEXTS = ["a funny film", "a lifeless mess", "the striker scored", "the bank", "a new method"]
LABELS = ["bad", "good"]


@pytest.fixture(scope="module")
def base(tiny_base_folder: Callable[..., Path]) -> Base:
    return _loaded(tiny_base_folder("llama"))


def _loaded(folder: Path) -> Base:
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


def task_of(labels: list[str] | None = None, **given: Any) -> TaskParams:
    return TaskParams.model_validate(
        {
            "base": "tiny",
            "data": {"source": "x.csv", "format": "csv", "labels": labels, "max_tokens": 32},
            "instruction": "Say it.",
            "template": "Review: {text}\nSentiment:",
            "max_new_tokens": 4,
            "gate": [{"metric": "accuracy" if labels else "chrf", "direction": "higher", "threshold": 0.0}],
        }
        | given
    )


def examples(targets: Sequence[str], texts: Sequence[str] = TEXTS) -> list[Example]:
    return [Example(str(i), text, target) for i, (text, target) in enumerate(zip(texts, targets, strict=True))]


def answers(base: Base, prefix: KVPrefix, task: TaskParams, texts: Sequence[str] = TEXTS) -> list[str]:
    return answer(base, prefix, Template.of(task), texts, task.max_new_tokens)


def test_majority_is_the_commonest_label_and_in_a_tie_the_first_of_the_alphabet() -> None:
    assert baselines.majority(examples(["a", "b", "b", "c", "b"]), 3) == baselines.Answers(["b", "b", "b"], choice="b")
    assert baselines.majority(examples(["b", "a", "b", "a", "c"]), 1).predictions == ["a"]


def test_linear_learns_what_words_tell() -> None:
    train = [Example(str(i), f"a {'grand' if i % 2 else 'dreary'} film {i}", LABELS[i % 2]) for i in range(40)]
    found = baselines.linear(train, ["grand", "a dreary thing", "grand, never seen before"])
    assert found == baselines.Answers(["good", "bad", "good"], choice="40 rows")
    assert {type(label) for label in found.predictions} == {str}


def test_no_baseline_is_shown_a_test_target() -> None:
    assert list(inspect.signature(baselines.run).parameters) == [
        "base", "task", "template", "train", "validation", "texts",
    ]  # fmt: skip
    assert inspect.signature(baselines.run).parameters["texts"].annotation == "Sequence[str]"


@pytest.mark.parametrize("best", range(len(PROMPTS)))
def test_the_hard_prompt_is_the_one_that_does_best_on_validation(base: Base, best: int) -> None:
    """Planted: validation wants exactly what one of the prompts makes the base say."""
    task = task_of(baselines={"hard_prompts": PROMPTS, "in_context": []})
    said = [answers(base, hard_prompt(base, text), task) for text in PROMPTS]
    assert len({tuple(each) for each in said}) == len(PROMPTS), "the prompts must differ for this test to say anything"
    found = baselines.run(base, task, Template.of(task), [], examples(said[best]), TEXTS[:2])
    assert list(found) == ["hard_prompt"]
    assert found["hard_prompt"] == baselines.Answers(said[best][:2], choice=PROMPTS[best].strip())


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_number_of_examples_is_the_one_that_does_best_on_validation(base: Base, best: int) -> None:
    task = task_of(baselines={"hard_prompts": [], "in_context": [1, 2, 3]})
    train = examples(["it works", "it fails", "it is long", "x", "y"])
    solved = [(row.text, row.target) for row in train]
    said = {
        count: answers(
            base, KVPrefix.from_tokens(base, in_context_ids(base, Template.of(task), "Say it.", solved[:count])), task
        )
        for count in (1, 2, 3)
    }
    assert len({tuple(each) for each in said.values()}) == 3, "the examples must differ for this test to say anything"
    found = baselines.run(base, task, Template.of(task), train, examples(said[best]), TEXTS[:2])["in_context"]
    assert found == baselines.Answers(said[best][:2], choice=f"{best} example{'s' * (best > 1)}")


def test_among_equals_the_first_is_chosen(base: Base) -> None:
    task = task_of(baselines={"hard_prompts": PROMPTS, "in_context": []})
    found = baselines.run(base, task, Template.of(task), [], examples(["\u2603"] * 5), TEXTS)
    assert found["hard_prompt"].choice == PROMPTS[0].strip()


def test_solved_examples_are_taken_from_the_labels_in_turn(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []

    def seen(base: Base, template: Template, instruction: str, solved: list[tuple[str, str]]) -> list[int]:
        shown.append([target for _, target in solved])
        return in_context_ids(base, template, instruction, solved)

    monkeypatch.setattr(baselines, "in_context_ids", seen)
    task = task_of(LABELS, baselines={"in_context": [2, 4, 8]})
    train = examples(["bad", "bad", "bad", "good", "good"])
    found = baselines.run(base, task, Template.of(task), train, train, TEXTS)
    assert shown == [["bad", "good"], ["bad", "good", "bad", "good"], ["bad", "good", "bad", "good", "bad"]]
    assert list(found) == ["majority", "linear", "in_context"]
    assert all(
        len(given.predictions) == len(TEXTS) and set(given.predictions) <= set(LABELS) for given in found.values()
    )


def test_a_generation_task_has_neither_majority_nor_linear(base: Base) -> None:
    task = task_of(baselines={"hard_prompts": PROMPTS[:1], "in_context": [1]})
    rows = examples(["x"] * 5)
    assert list(baselines.run(base, task, Template.of(task), rows, rows, TEXTS)) == ["hard_prompt", "in_context"]
    assert list(task.measured_baselines) == ["hard_prompt", "in_context"]


def test_examples_that_do_not_fit_before_the_longest_text_are_left_out(
    tiny_base_folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """On a base of learned positions one token too many is a crash, and after the training at that."""
    base = _loaded(tiny_base_folder("gpt2", n_positions=128))
    rows = [Example(str(i), text, "it works") for i, text in enumerate(TEXTS * 8)]
    task = task_of(baselines={"in_context": [40, 1]})
    assert baselines.run(base, task, Template.of(task), rows, rows[:2], TEXTS)["in_context"].choice == "1 example"
    assert "in_context: 40 examples left out" in caplog.text
    only_long = task_of(baselines={"in_context": [40]})
    assert baselines.run(base, only_long, Template.of(only_long), rows, rows[:2], TEXTS) == {}


def test_the_last_token_of_the_context_may_be_used_and_not_one_more(
    base: Base, tiny_base_folder: Callable[..., Path]
) -> None:
    task = task_of(baselines={"in_context": [1]})
    template, rows = Template.of(task), examples(["it works"] * 5)
    shot = len(in_context_ids(base, template, "Say it.", [(rows[0].text, rows[0].target)]))
    longest = max(len(template.input_ids(base.words, text)) for text in TEXTS)
    needed = shot + longest + task.max_new_tokens
    for context, run in ((needed, ["in_context"]), (needed - 1, [])):
        small = _loaded(tiny_base_folder("gpt2", n_positions=context))
        assert list(baselines.run(small, task, template, rows, rows, TEXTS)) == run


def test_without_validation_rows_nothing_can_be_chosen(base: Base) -> None:
    task = task_of(baselines={"hard_prompts": PROMPTS, "in_context": []})
    with pytest.raises(DataError, match=r"no validation rows .* raise data\.split\.validation"):
        baselines.run(base, task, Template.of(task), [], [], TEXTS)


@pytest.mark.parametrize(
    ("texts", "choice"),
    [
        (("😭", "😂"), "characters"),
        (("1", "2"), "characters"),
        (("a b", "c d"), "characters"),
        (("the sad one", "the happy one"), "4 rows"),
    ],
)
def test_a_linear_model_of_texts_without_words_is_one_of_characters(texts: tuple[str, str], choice: str) -> None:
    sad, happy = texts
    rows = [Example(str(n), (sad, happy)[n % 2], ("sad", "happy")[n % 2]) for n in range(4)]
    found = baselines.linear(rows, [happy, sad, "?"])
    assert found.predictions[:2] == ["happy", "sad"]
    assert choice in found.choice


def test_a_linear_model_that_cannot_be_fitted_answers_as_majority() -> None:
    one_label = [Example(str(n), "a text", "sad") for n in range(3)]
    assert baselines.linear(one_label, ["a", "b"]).predictions == ["sad", "sad"]
    no_text = [Example(str(n), "", ("sad", "happy")[n % 2]) for n in range(3)]
    assert baselines.linear(no_text, ["a"]).predictions == ["sad"]
