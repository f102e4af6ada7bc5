"""Several processes that train one adapter together come to the adapter of one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import DataParams, GateRule, TaskParams
from components.data.prepare import Example, Examples
from components.errors import Diverged, TrainingError
from components.training.adapter_training import train_adapter
from components.training.distributed import launch
from components.training.distributed.process_group import ProcessGroup

MARK, RUN = "PREFACE_TEST_CREW", str(os.getpid())  # in the environment of what this test started
LOOP = {"steps": 8, "batch_size": 3, "accumulate": 2, "evaluate_every": 4, "learning_rate": 0.05}


def task(processes: int, **more: Any) -> TaskParams:
    settings = {"virtual_tokens": 3, "training": LOOP | {"processes": processes} | more}
    return TaskParams.model_validate(
        {
            "base": "tiny",
            "data": DataParams(source="rows.csv", format="csv", labels={"a": "a", "b": "b"}),
            "instruction": "Say a or b.",
            "prompt": settings,
            "prefix": settings,
            "gate": [GateRule(metric="accuracy", direction="higher", threshold=0.5)],
        }
    )


@pytest.fixture(scope="module")
def base(tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder("llama")
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def examples() -> Examples:
    # 19 rows in threes: the last batch of an epoch has one row, of which one process has none.
    rows = [Example(f"{n}", f"{n} {'dull' if n % 2 else 'funny'}", "ab"[n % 2]) for n in range(24)]
    return Examples({"train": rows[:19], "validation": rows[19:], "test": []}, "0" * 64)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_item_is_one_process_s(size: int, count: int) -> None:
    shares = [ProcessGroup(rank, size).share(range(count)) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("given", "each"), [(7, "3"), (1, "1")])
def test_the_processes_share_the_threads_that_this_one_was_given(
    base: Base, examples: Examples, monkeypatch: pytest.MonkeyPatch, given: int, each: str
) -> None:
    """And not the machine's: its other cores may be another training's."""
    before, asked = torch.get_num_threads(), []

    def start(*_: Any, env: dict[str, str], **__: Any) -> None:
        asked.append(env["OMP_NUM_THREADS"])
        raise KeyboardInterrupt

    monkeypatch.setattr(launch.subprocess, "Popen", start)
    torch.set_num_threads(given)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_adapter(base, "film", task(2), "prefix", examples)
    finally:
        torch.set_num_threads(before)
    assert asked == [each]


def test_more_processes_than_cores_are_refused_before_any_is_started(base: Base, examples: Examples) -> None:
    with pytest.raises(TrainingError, match=r"processes is 1000000000, and this machine has \d+ cores; lower it"):
        train_adapter(base, "film", task(10**9), "prefix", examples)


@pytest.mark.parametrize("method", ["prefix", pytest.param("prompt", marks=pytest.mark.slow)])
def test_two_processes_train_what_one_trains(base: Base, examples: Examples, tmp_path: Path, method: Any) -> None:
    seen: dict[int, list[tuple[dict[str, float], int]]] = {1: [], 2: []}
    made = {}
    for processes, figures in seen.items():
        file = tmp_path / f"{processes}.safetensors"

        def observe(told: dict[str, float], step: int, figures: list[Any] = figures) -> None:
            figures.append((told, step))

        made[processes] = train_adapter(base, "film", task(processes), method, examples, file, observe)
        assert file.exists()

    one, two = made[1], made[2]
    assert (two.steps, two.best_step, two.tokens) == (one.steps, one.best_step, one.tokens)
    assert two.best_loss == pytest.approx(one.best_loss, rel=1e-5)
    assert (two.table - one.table).norm() <= 1e-5 * one.table.norm()
    assert [(step, sorted(told)) for told, step in seen[2]] == [(step, sorted(told)) for told, step in seen[1]]
    losses = [[told["train_loss"] for told, _ in figures if "train_loss" in told] for figures in seen.values()]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def workers() -> list[psutil.Process]:
    """The processes that train, wherever in the machine they are; the launcher is none of them."""
    found = []
    for each in psutil.process_iter(["cmdline", "environ"]):
        line, own = each.info["cmdline"] or [], each.info["environ"] or {}
        if (
            "components.training.distributed.work" in line
            and "accelerate.commands.launch" not in line
            and own.get(MARK) == RUN
        ):
            found.append(each)
    return found


def test_whoever_watches_can_stop_them_all(base: Base, examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, RUN)

    def stop(_: dict[str, float], step: int) -> None:
        if step == 1:
            assert sorted(int(each.environ()["RANK"]) for each in workers()) == [0, 1]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(base, "film", task(2, steps=100_000), "prefix", examples, None, stop)

    deadline = time.monotonic() + 20
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers() == []


def test_what_befalls_one_process_alone_is_told_as_it_is(base: Base, examples: Examples, tmp_path: Path) -> None:
    """Only the first writes the checkpoint, and the other would wait for it for ever."""
    (tmp_path / "folder").write_text("is a file", encoding="utf-8")
    with pytest.raises(TrainingError, match="could not be written at step 4"):
        train_adapter(base, "film", task(2), "prefix", examples, tmp_path / "folder" / "checkpoint.safetensors")


@pytest.mark.slow
def test_a_crew_tells_what_one_process_would_tell(base: Base, examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"lower training\.learning_rate"):
        train_adapter(base, "film", task(2, weight_decay=1e30), "prefix", examples)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"^the checkpoint cannot be read"):
        train_adapter(base, "film", task(2), "prefix", examples, file)
