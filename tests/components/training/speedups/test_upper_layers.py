"""A prefix of the upper layers: what whole reading gives, in the same format, with the lower layers run once."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import DataParams, GateRule, PrefixParams, TaskParams, TrainingParams
from components.errors import ParamsError, TrainingError
from components.prefix.kv_prefix import KVPrefix
from components.prefix.methods.method import build
from components.provenance.fingerprint import fingerprint
from components.training.batches import TrainingRow
from components.training.loop import Trained, train
from components.training.losses import row_losses
from components.training.speedups import attention, upper_layers
from components.training.speedups.upper_layers import UpperLayers
from components.training.training_data import TrainingData

ROWS = [TrainingRow((10 + n % 2, 30 + n, *range(40, 40 + n % 5)), (20 + n % 2, 22)) for n in range(16)]
LESSONS = TrainingData(ROWS, ROWS)
SETTINGS = TrainingParams(steps=24, batch_size=4, learning_rate=0.3, evaluate_every=6, patience=9)


def loaded(tiny_base_folder: Callable[..., Path], kind: str) -> Base:
    folder = tiny_base_folder(kind)
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module", params=["llama", "qwen"])
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[..., Path]) -> Base:
    return loaded(tiny_base_folder, request.param)


def task(**prefix: object) -> TaskParams:
    return TaskParams(
        base="tiny",
        data=DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
        instruction="Say a or b.",
        prefix=PrefixParams.model_validate({"virtual_tokens": 4} | prefix),
        gate=[GateRule(metric="accuracy", direction="higher", threshold=0.5)],
    )


def above(base: Base, prefix: KVPrefix) -> UpperLayers:
    return UpperLayers.above(base, 1, prefix, [row.ids for row in ROWS])


def test_a_disk_without_room_for_what_is_kept_is_told(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by the signal that a write into a map of a full disk is."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(upper_layers.os, "posix_fallocate", full)
    with pytest.raises(TrainingError, match=r"has no room for .* set TMPDIR"):
        above(base, build(base, task(), "prefix").prefix(base))


@pytest.mark.parametrize("room", ["for all", "for some", "for none"])
def test_losses_and_gradients_are_those_of_reading_it_whole(
    base: Base, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {"for all": 1000, "for some": 20, "for none": 0}[room]
    monkeypatch.setattr(upper_layers, "KEPT_BYTES", tokens * base.shape.hidden * 4)
    begun = build(base, task(), "prefix").prefix(base)
    upper = above(base, begun)
    kept = len({row.ids for row in ROWS} & set(upper.places))
    assert {"for all": kept == len({row.ids for row in ROWS}), "for some": 0 < kept < 10, "for none": kept == 0}[room]

    found = []
    for reading in (None, upper, upper):  # and once more, of what is kept by then
        front = KVPrefix(begun.keys.detach().clone().requires_grad_(), begun.values.detach().clone().requires_grad_())
        loss, count = row_losses(base, front, ROWS, reading)
        loss.backward()  # type: ignore[no-untyped-call]
        assert front.keys.grad is not None
        assert front.values.grad is not None
        found.append((loss.item() / count, front.keys.grad[1:], front.values.grad[1:]))

    whole, *gradients = found[0]
    for split, *others in found[1:]:
        assert split == pytest.approx(whole, rel=1e-5)
        for one, other in zip(gradients, others, strict=True):
            assert (one - other).norm() <= 1e-5 * one.norm()


@pytest.mark.parametrize("width", [None, 8])
def test_training_moves_the_upper_layers_alone_and_what_is_saved_is_a_whole_prefix(
    base: Base, width: int | None
) -> None:
    method = build(base, task(layers=1, reparameterization=width), "prefix")
    before = method.folded()

    trained = train(base, method, LESSONS, SETTINGS)

    middle = before.shape[1] // 2
    assert trained.table.shape == before.shape
    assert torch.equal(trained.table[:, :middle], before[:, :middle])
    assert not torch.equal(trained.table[:, middle:], before[:, middle:])
    assert trained.best_loss < trained.first_loss - 0.5
    whole, count = row_losses(base, KVPrefix.from_peft(trained.table, base.shape), ROWS)
    assert whole.item() / count == pytest.approx(trained.best_loss, rel=1e-4), "serving knows nothing of all this"


def test_an_interrupted_run_comes_to_the_same_bits(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its rows would be read first beside others, which may stand for another kind of attention."""
    read_plainly = base.shape.layers * base.shape.heads * 2 * 4 * (4 + 4) * attention.BYTES_A_SCORE
    monkeypatch.setattr(attention, "KEPT_BYTES", read_plainly)  # two rows of four tokens behind a prefix of four
    rows = [TrainingRow((30 + n, *range(40, 41 + n % 6)), (20 + n % 2, 22)) for n in range(48)]
    lessons = TrainingData(rows, [TrainingRow((11, 90 + n), (20 + n % 2, 22)) for n in range(4)])
    settings = SETTINGS.model_copy(update={"steps": 36, "batch_size": 2})
    file = tmp_path / "checkpoint.safetensors"

    def pull_the_plug(_: dict[str, float], step: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    def trained(**more: Any) -> Trained:
        return train(base, build(base, task(layers=1), "prefix"), lessons, settings, **more)

    whole = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=file, observe=pull_the_plug)
    resumed = trained(checkpoint=file)

    assert torch.equal(resumed.table, whole.table)
    assert resumed.best_loss == whole.best_loss


def test_the_lower_layers_run_once_a_row(base: Base) -> None:
    reads: list[int] = []
    first = base.model.base_model.layers[0]  # type: ignore[union-attr, index]
    hook = first.register_forward_pre_hook(lambda _, given: reads.append(given[0].shape[0]))
    method = build(base, task(layers=1), "prefix")
    reads.clear()
    train(base, method, TrainingData(ROWS, ROWS[:4]), SETTINGS)
    hook.remove()

    tried = 2 * 4  # four rows, whole and from the middle, before anything is kept
    assert sum(reads) == len({row.ids for row in ROWS}) + tried
    assert len(base.model.base_model.layers) == base.shape.layers  # type: ignore[arg-type]


def test_a_base_that_cannot_be_run_from_its_middle_is_refused(tiny_base_folder: Callable[..., Path]) -> None:
    """GPT-2 adds its learned positions to whatever it is given."""
    base = loaded(tiny_base_folder, "gpt2")
    method = build(base, task(layers=1), "prefix")

    with pytest.raises(TrainingError, match=r"cannot be run from layer 1: .* take prefix\.layers out"):
        train(base, method, LESSONS, SETTINGS)

    assert len(base.model.base_model.h) == base.shape.layers  # type: ignore[arg-type]


def test_more_layers_than_there_are_and_a_random_start_are_refused(base: Base) -> None:
    with pytest.raises(ParamsError, match=r"prefix\.layers is 3, the base \S+ has 2 layers"):
        build(base, task(layers=3), "prefix")
    with pytest.raises(ValueError, match="layers is 1 and init random"):
        task(layers=1, init="random")


def test_a_fingerprint_knows_the_layers_and_is_what_it_was_where_all_are_trained() -> None:
    assert fingerprint(task(layers=1), "prefix", "base", "data") != fingerprint(task(), "prefix", "base", "data")
    assert set(task().prefix.model_dump()) == {"virtual_tokens", "init", "reparameterization", "training"}
