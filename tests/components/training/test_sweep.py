"""A sweep tries what params.yaml names, lets the better half go on, and goes on itself after a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import DataParams, GateRule, TaskParams
from components.config.sweep_params import apply_overrides, choices, leaves
from components.data.prepare import Example, Examples
from components.errors import TrainingError
from components.training import sweep as sweeping
from components.training.sweep import Trial, Tried, sweep, trials_of

RATES = [0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3]
LOOP = {"steps": 16, "batch_size": 4, "evaluate_every": 4, "learning_rate": 0.05, "patience": 99}


def task(**given: Any) -> TaskParams:
    settings = {"virtual_tokens": 2, "training": LOOP}
    return TaskParams.model_validate(
        {
            "base": "tiny",
            "data": DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
            "instruction": "Say a or b.",
            "prompt": settings,
            "prefix": settings,
            "gate": [GateRule(metric="accuracy", direction="higher", threshold=0.5)],
            "sweep": given or None,
        }
    )


@pytest.fixture(scope="module")
def base(tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder("llama")
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def examples() -> Examples:
    rows = [Example(str(n), f"{n} {'dull' if n % 2 else 'funny'}", "ab"[n % 2]) for n in range(24)]
    return Examples({"train": rows[:16], "validation": rows[16:20], "test": rows[20:]}, "0" * 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, None),
        ({"prefix": {"training": {"learning_rate": RATES}}}, None),
        ({"trials": 4}, "a space for prompt, for prefix or for both"),
        ({"prefix": {}}, "prefix names no setting to choose"),
        ({"prefix": {"virtual_tokens": 20}}, "prefix.virtual_tokens is 20; write a list"),
        ({"prefix": {"virtual_tokens": []}}, r"prefix.virtual_tokens is \[\]; write a list"),
        ({"prefix": {"training": {"learning_rate": {"low": 0.1, "high": 0.01}}}}, "low must be the smaller"),
        ({"prefix": {"virtual_token": [1, 2]}}, "sweep.prefix.virtual_token cannot be 1: Extra inputs"),
        ({"prefix": {"virtual_tokens": [1, 0]}}, "sweep.prefix.virtual_tokens cannot be 0: .* greater than"),
        ({"prompt": {"layers": [1, 2]}}, "sweep.prompt.layers cannot be 1: Extra inputs"),
        ({"prompt": {"init": ["text", "texts"]}}, "sweep.prompt.init cannot be 'texts'"),
        ({"prefix": {"training": {"learning_rate": {"low": 1, "high": 1000}}}}, "cannot be 1000.*less than or equal"),
        ({"trials": 1, "prefix": {"virtual_tokens": [1, 2]}}, "trials"),
        ({"prefix": {"layers": [1, 2], "init": ["text", "random"]}}, "'init': 'random'.* together: .*layers is"),
        ({"prompt": {"frozen_first": [False, True], "virtual_tokens": [1, 8]}}, "together: .*frozen_first leaves"),
    ],
)
def test_a_space_that_cannot_be_tried_is_refused_at_once(given: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert (task(**given).sweep is not None) == bool(given)
        return
    with pytest.raises(ValidationError, match=message):
        task(**given)


NAMED = st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))


@given(NAMED.filter(bool), st.integers(2, 40), st.integers(0, 9))
def test_choices_are_different_and_follow_from_the_seed(space: dict[str, Any], count: int, seed: int) -> None:
    found = choices(space, count, seed)
    whole = 1
    for values in space.values():
        whole *= len(values)
    assert found == choices(space, count, seed)
    assert len({json.dumps(each, sort_keys=True) for each in found}) == len(found) == min(count, whole)
    assert all(each[name] in space[name] for each in found for name in space)


@given(st.floats(1e-5, 1e-1), st.floats(1.1, 100), st.integers(0, 99))
def test_a_range_gives_values_inside_it_that_one_can_type(low: float, factor: float, seed: int) -> None:
    space = {"training": {"learning_rate": {"low": low, "high": low * factor}}}
    assert [name for name, _ in leaves(space)] == ["training.learning_rate"]
    for choice in choices(space, 5, seed):
        [value] = choice.values()
        assert low * 0.995 <= value <= low * factor * 1.005
        assert len(repr(value)) < 10
        assert apply_overrides({"training": {"seed": 1}}, choice) == {"training": {"seed": 1, "learning_rate": value}}


def test_methods_take_turns() -> None:
    both = task(trials=5, prompt={"virtual_tokens": [1, 2]}, prefix={"training": {"learning_rate": RATES}})
    found = trials_of(both, ("prompt", "prefix"))
    assert [trial.method for trial in found] == ["prompt", "prefix", "prompt", "prefix", "prefix"]
    assert [trial.number for trial in found] == [1, 2, 3, 4, 5]
    assert all(trial.method == "prefix" for trial in trials_of(both, ("prefix",)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no sweep for prefix tuning in params.yaml; write one"),
        ({"prompt": {"virtual_tokens": [1, 2]}}, "no sweep for prefix tuning"),
        ({"prefix": {"virtual_tokens": [3]}}, "holds one choice"),
    ],
)
def test_there_must_be_a_choice(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        trials_of(task(**given), ("prefix",))


SPACE = {"trials": 7, "at_once": 4, "prefix": {"training": {"learning_rate": RATES}}}


def ran(base: Base, examples: Examples, folder: Path, seen: list[tuple[int, int]]) -> list[Tried]:
    asked = task(**SPACE)

    def observe(trial: Trial) -> Any:
        return lambda figures, step: seen.append((trial.number, step)) if "train_loss" in figures else None

    return sweep(base, asked, trials_of(asked, ("prefix",)), examples, folder, observe)


@pytest.fixture(scope="module")
def whole(base: Base, examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> list[Tried]:
    seen: list[tuple[int, int]] = []
    tried = ran(base, examples, tmp_path_factory.mktemp("sweep"), seen)
    # Seven at an eighth of their steps, four at a quarter, two at half, one to its end; no step is taken twice.
    assert sorted(each.steps for each in tried) == [2, 2, 2, 4, 4, 8, 16]
    assert len(seen) == len(set(seen)) == 2 * 3 + 4 * 2 + 8 + 16
    return tried


def test_the_better_half_goes_on_and_the_best_comes_first(whole: list[Tried]) -> None:
    assert [each.steps for each in whole] == [16, 8, 4, 4, 2, 2, 2]
    losses = [each.loss for each in whole]
    assert losses[0] < 0.7 * losses[-1]
    assert sorted(losses[4:]) == losses[4:]  # of one rung, by what they came to
    assert whole[0].trial.choice["training.learning_rate"] > 0.01  # the small ones have hardly begun


@pytest.mark.parametrize("kill_at", [1, 12, 20, 30])
def test_a_sweep_that_was_killed_goes_on_to_the_same_end(
    base: Base, examples: Examples, tmp_path: Path, whole: list[Tried], kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    real = sweeping.advance

    def killed(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 1 + kill_at // 10:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(sweeping, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        ran(base, examples, tmp_path, [])
    monkeypatch.undo()
    seen: list[tuple[int, int]] = []

    again = ran(base, examples, tmp_path, seen)

    assert [(each.trial, each.steps) for each in again] == [(each.trial, each.steps) for each in whole]
    assert [each.loss for each in again] == pytest.approx([each.loss for each in whole], rel=1e-4)
    assert len(seen) == len(set(seen))


def test_trials_that_diverge_are_told_and_lose(
    base: Base, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.training import loop

    real = loop.learning_rate
    astray = RATES[:-1]
    monkeypatch.setattr(
        loop,
        "learning_rate",
        lambda step, settings: math.inf if settings.learning_rate in astray else real(step, settings),
    )

    tried = ran(base, examples, tmp_path, [])

    assert tried[0].trial.choice == {"training.learning_rate": RATES[-1]}
    assert (tried[0].fault, tried[0].steps) == ("", 16)
    assert all("not finite" in each.fault for each in tried[1:])
    astray.append(RATES[-1])
    with pytest.raises(TrainingError, match=r"every trial of the sweep diverged; the first said: .*not finite"):
        ran(base, examples, tmp_path / "other", [])
