"""The checkpoint holds all that a run goes on from, and stands whole whatever happens while it is replaced."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

from components.config.params import TrainingParams
from components.errors import TrainingError
from components.prefix.methods.prompt import PromptTuning
from components.training import checkpoint
from components.training.checkpoint import Progress, load_checkpoint, save_checkpoint

SETTINGS = TrainingParams(learning_rate=0.1)


def a_run(seed: int = 0, steps: int = 3) -> tuple[Progress, PromptTuning, torch.optim.Optimizer]:
    """A method some steps on its way, its optimizer warm, its best state behind it."""
    method = PromptTuning(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)))
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
    progress = Progress.fresh()
    progress.judge(2.0, method)
    for _ in range(steps):
        optimizer.zero_grad()
        method.weight.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress.step += 1
        progress.losses.append(1.0 / progress.step)
    progress.tokens = 300
    return progress, method, optimizer


def stored(folder: Path, seed: int = 0, steps: int = 3) -> Path:
    file = folder / "runs" / "checkpoint.safetensors"
    save_checkpoint(file, *a_run(seed, steps), SETTINGS)
    return file


def test_everything_comes_back(tmp_path: Path) -> None:
    progress, method, optimizer = a_run()
    file = stored(tmp_path)
    _, other, fresh = a_run(seed=7, steps=0)
    back = load_checkpoint(file, other, fresh, SETTINGS)
    assert (back.step, back.tokens, back.stale, back.losses) == (3, 300, 0, progress.losses)
    assert (back.first_loss, back.best_loss, back.best_step) == (2.0, 2.0, 0)
    assert torch.equal(back.best_state["weight"], progress.best_state["weight"])
    assert torch.equal(other.weight, method.weight)
    assert not torch.equal(other.weight, back.best_state["weight"])
    before, after = optimizer.state_dict()["state"][0], fresh.state_dict()["state"][0]
    assert set(before) == set(after) == {"step", "exp_avg", "exp_avg_sq"}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_was_never_judged_comes_back(tmp_path: Path) -> None:
    """Its losses are infinite, which JSON itself cannot say."""
    _, method, optimizer = a_run()
    save_checkpoint(tmp_path / "c", Progress.fresh(), method, optimizer, SETTINGS)
    assert load_checkpoint(tmp_path / "c", method, optimizer, SETTINGS).best_loss == math.inf


def test_the_best_state_is_a_copy_and_only_a_lower_loss_replaces_it() -> None:
    progress, method, _ = a_run(steps=0)
    best = progress.best_state["weight"].clone()
    with torch.no_grad():
        method.weight.add_(1.0)
    progress.step = 5
    for loss, stale in ((2.0, 1), (2.5, 2)):
        progress.judge(loss, method)
        assert (progress.stale, progress.best_step, progress.best_loss) == (stale, 0, 2.0)
        assert torch.equal(progress.best_state["weight"], best)
    progress.judge(1.5, method)
    assert (progress.stale, progress.best_step, progress.best_loss, progress.first_loss) == (0, 5, 1.5, 2.0)
    assert torch.equal(progress.best_state["weight"], method.weight)


def _disk_full(tensors: dict[str, Any], file: Path, metadata: dict[str, str]) -> None:
    Path(file).write_bytes(b"half of it")
    raise SafetensorError("I/O error: No space left on device")


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "name", "fault", "error"),
    [
        (checkpoint, "save_file", _disk_full, TrainingError),
        (os, "fsync", _crash, KeyboardInterrupt),
        (os, "replace", _crash, KeyboardInterrupt),
    ],
)
def test_the_last_checkpoint_stands_when_the_next_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Any, error: type[BaseException]
) -> None:
    file = stored(tmp_path)
    before = file.read_bytes()
    monkeypatch.setattr(where, name, fault)
    with pytest.raises(error) as raised:
        save_checkpoint(file, *a_run(steps=9), SETTINGS)
    if error is TrainingError:
        assert "could not be written at step 9 (I/O error: No space left on device); make room" in str(raised.value)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_no_pickle_is_in_it(tmp_path: Path) -> None:
    with safe_open(stored(tmp_path), framework="pt") as file:
        assert set(file.metadata()) == {"progress", "settings"}
        assert {name.split(".")[0] for name in file.keys()} == {"now", "best", "optimizer"}  # noqa: SIM118


def refused(file: Path, settings: TrainingParams = SETTINGS, method: PromptTuning | None = None) -> str:
    mine = method or PromptTuning(torch.zeros(4, 6))
    with pytest.raises(TrainingError) as raised:
        load_checkpoint(file, mine, torch.optim.AdamW(mine.parameters()), settings)
    return str(raised.value)


def test_what_does_not_fit_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = stored(tmp_path)
    remedy = f"delete {file} to train from the start"
    other = refused(file, SETTINGS.model_copy(update={"seed": 3}))
    assert '"seed":0' in other
    assert '"seed":3' in other
    assert other.endswith(remedy)
    assert remedy in refused(file, method=PromptTuning(torch.zeros(5, 6)))
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"\x00" * 64):
        file.write_bytes(damaged)
        assert remedy in refused(file)


@pytest.mark.parametrize("header", [{}, {"settings": SETTINGS.model_dump_json()}, {"progress": "{"}])
def test_a_header_of_another_program_is_refused(tmp_path: Path, header: dict[str, str]) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "checkpoint.safetensors"
    whole = {"settings": SETTINGS.model_dump_json(), "progress": '{"unheard": 1}'}
    for metadata in (header, whole):
        save_file({"now.weight": torch.zeros(4, 6)}, file, metadata=metadata)
        assert "cannot be read" in refused(file)
