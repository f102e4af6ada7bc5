"""Adapters that train side by side in one batch learn what each would learn alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import DataParams, GateRule, TaskParams
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import build
from components.training import loop
from components.training.batches import TrainingRow
from components.training.loop import Run, advance, train
from components.training.trainer import AdapterTrainer, optimizer_step
from components.training.training_data import TrainingData
from tests.conftest import KINDS

ROWS = [
    TrainingRow((10 + n % 2, 30 + n, *range(40, 40 + n % 5)), (20 + n % 2, *range(50, 50 + n % 3))) for n in range(16)
]
TASK = TaskParams(
    base="tiny",
    data=DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
    instruction="Say a or b.",
    gate=[GateRule(metric="accuracy", direction="higher", threshold=0.5)],
)
LOOP = {"steps": 6, "batch_size": 4, "evaluate_every": 3, "learning_rate": 0.05, "patience": 9}
# Methods, lengths, rates, batch sizes, clipping, schedules, seeds and rows that differ in every way.
MIXED: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"virtual_tokens": 4, "training": LOOP}),
    ("prompt", {"virtual_tokens": 7, "training": LOOP | {"learning_rate": 0.01, "clip_norm": 0.1, "seed": 3}}),
    ("prefix", {"virtual_tokens": 2, "training": LOOP | {"batch_size": 2, "accumulate": 3}}),
    ("prefix", {"virtual_tokens": 5, "reparameterization": 8, "training": LOOP | {"steps": 9, "warmup": 0.5}}),
    ("prefix", {"virtual_tokens": 3, "layers": 1, "training": LOOP | {"weight_decay": 0.1, "batch_size": 5}}),
    ("prompt", {"virtual_tokens": 1, "init": "vocabulary", "training": LOOP | {"recompute": True}}),
]


@pytest.fixture(scope="module", params=sorted(KINDS))
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder(request.param)
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


def begun(base: Base, which: int, **more: Any) -> Run:
    name, choice = MIXED[which]
    method: Any = name
    task = TASK.with_settings(method, choice)
    rows = ROWS[which:]  # each learns of rows of its own
    return Run.begin(
        base, build(base, task, method), TrainingData(rows, ROWS[:4]), task.settings(method).training, **more
    )


def possible(base: Base) -> list[int]:
    """Not every architecture can be run from its middle."""
    return [
        number for number, (_, choice) in enumerate(MIXED) if "layers" not in choice or "wpe" not in str(base.model)
    ]


def test_each_learns_what_it_would_have_learned_alone(base: Base) -> None:
    chosen = possible(base)
    together = [begun(base, which) for which in chosen]
    advance(base, together, "together")
    for which, run in zip(chosen, together, strict=True):
        alone = begun(base, which)
        advance(base, [alone], "alone")
        one, other = run.trained(), alone.trained()
        assert (one.steps, one.best_step, one.tokens) == (other.steps, other.best_step, other.tokens)
        assert one.best_loss == pytest.approx(other.best_loss, rel=1e-5)
        moved = (other.table - begun(base, which).learner.method.folded()).norm()
        assert moved > 0.01
        # AdamW divides by the root of a mean square: where a gradient is nearly nothing, rounding is not.
        assert (one.table - other.table).norm() <= 1e-4 * moved


def test_their_gradients_are_those_of_each_alone(base: Base) -> None:
    chosen = possible(base)

    def gradients(side_by_side: list[list[int]]) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for group in side_by_side:
            runs = [begun(base, which) for which in group]
            optimizer_step(base, [run.learner for run in runs], [next(run.batches) for run in runs], [0.0] * len(group))
            found += [torch.cat([p.grad.flatten() for p in run.learner.method.parameters() if p.grad is not None])
                      for run in runs]  # fmt: skip
        return found

    for one, other in zip(gradients([chosen]), gradients([[which] for which in chosen]), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_soft_prompts_of_any_lengths_run_through_the_base_together(base: Base) -> None:
    tables = [torch.randn(length, base.shape.hidden) for length in (3, 1, 6)]
    for together, table in zip(KVPrefix.each_from_embeddings(base, tables), tables, strict=True):
        alone = KVPrefix.from_embeddings(base, table)
        assert together.length == len(table)
        torch.testing.assert_close(together.keys, alone.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.values, alone.values, atol=1e-5, rtol=1e-5)


def test_the_base_is_run_once_for_all(base: Base) -> None:
    """Not once an adapter: as many matrix products, however many train."""

    def passes(count: int) -> int:
        calls: list[int] = []
        hook = base.model.base_model.register_forward_hook(lambda *_: calls.append(1))
        learners = []
        for _ in range(count):
            task = TASK.with_settings("prompt", {"training": LOOP})
            learners.append(AdapterTrainer.of(base, build(base, task, "prompt"), task.prompt.training, ROWS))
        with FlopCounterMode(display=False):
            optimizer_step(base, learners, [[ROWS[:2]]] * count, [0.01] * count)
        hook.remove()
        return len(calls)

    assert passes(8) == passes(1) == 2  # the soft prompts, then the rows


def test_one_that_diverges_leaves_the_others_alone(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    astray, well = begun(base, 2), begun(base, 0)

    real = loop.learning_rate
    monkeypatch.setattr(
        loop,
        "learning_rate",
        lambda step, settings: math.inf if settings is astray.settings else real(step, settings),
    )
    advance(base, [astray, well], "together")

    assert "not finite; lower training.learning_rate" in astray.fault
    assert (well.fault, well.progress.step) == ("", LOOP["steps"])
    alone = begun(base, 0)
    advance(base, [alone], "alone")
    assert well.trained().best_loss == pytest.approx(alone.trained().best_loss, rel=1e-5)


def test_a_share_of_the_steps_is_gone_on_with_from_there(base: Base, tmp_path: Path) -> None:
    whole = begun(base, 3)
    advance(base, [whole], "whole")
    run = begun(base, 3, checkpoint=tmp_path / "c")
    advance(base, [run], "half", share=0.5)
    assert run.progress.step == 5  # of 9
    run.save()

    again = begun(base, 3, checkpoint=tmp_path / "c")
    advance(base, [again], "rest")

    assert torch.equal(again.trained().table, whole.trained().table)


def test_those_that_were_interrupted_go_on_from_the_same_step(base: Base, tmp_path: Path) -> None:
    """Also where it happened while the second of them was judged: beside other rows, rounding may be another."""

    def pull_the_plug(told: dict[str, float], step: int) -> None:
        if step == 3 and "validation_loss" in told:
            raise KeyboardInterrupt

    files = [tmp_path / "first", tmp_path / "second"]
    runs = [begun(base, 0, checkpoint=files[0]), begun(base, 1, checkpoint=files[1], observe=pull_the_plug)]
    with pytest.raises(KeyboardInterrupt):
        advance(base, runs, "together")

    again = [begun(base, which, checkpoint=file) for which, file in enumerate(files)]
    assert [run.progress.step for run in again] == [0, 0]


def test_long_answers_go_through_the_head_in_pieces(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> Any:
        task = TASK.with_settings("prefix", {"virtual_tokens": 3, "training": LOOP})
        return train(base, build(base, task, "prefix"), TrainingData(ROWS, ROWS), task.prefix.training)

    whole = trained()
    monkeypatch.setattr("components.training.losses.LABELS_AT_ONCE", 3)
    pieces = trained()
    torch.testing.assert_close(pieces.table, whole.table, atol=1e-4, rtol=1e-4)
