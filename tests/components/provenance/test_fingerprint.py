"""The fingerprint moves with all that an adapter follows from, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from components.config.params import MethodName, TaskParams
from components.provenance import fingerprint as module
from components.provenance.fingerprint import fingerprint, import_fingerprint, recorded_fingerprint

TASK: dict[str, Any] = {
    "base": "tiny",
    "data": {"source": "x.csv", "format": "csv", "labels": ["bad", "good"]},
    "instruction": "Say it.",
    "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.8}],
}


def mark(
    method: MethodName = "prompt", base: str = "b" * 64, data: str = "d" * 64, start: str | None = None, **changes: Any
) -> str:
    return fingerprint(TaskParams.model_validate(TASK | changes), method, base, data, start)


def test_it_is_a_sha256_and_stays_what_it_is() -> None:
    assert len(mark()) == 64
    assert mark() == mark()


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_what_a_manifest_keeps_makes_the_same(method: MethodName) -> None:
    task = TaskParams.model_validate(TASK)
    kept: dict[str, Any] = {
        "base": "b" * 64,
        "data": "d" * 64,
        "instruction": task.instruction,
        "template": task.template,
        "labels": task.data.labels,
        "max_tokens": task.data.max_tokens,
        "max_new_tokens": task.max_new_tokens,
        "method": method,
        "settings": task.settings(method).model_dump(mode="json"),
        "recipe": module.RECIPE,
    }

    assert recorded_fingerprint(**kept) == mark(method)
    assert recorded_fingerprint(**kept | {"recipe": module.RECIPE + 1}) != mark(method)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "prefix"},
        {"base": "c" * 64},
        {"data": "e" * 64},
        {"start": "f" * 64},
        {"instruction": "Say it!"},
        {"template": "{text}\nAnswer:"},
        {"prompt": {"virtual_tokens": 21}},
        {"prompt": {"init": "random"}},
        *(
            {"prompt": {"training": {key: value}}}
            for key, value in {
                "steps": 7, "batch_size": 7, "accumulate": 7, "learning_rate": 0.7, "warmup": 0.7, "weight_decay": 0.7,
                "clip_norm": 0.7, "evaluate_every": 7, "patience": 7, "seed": 7,
            }.items()
        ),
        {"data_": {"max_tokens": 64}},
        {"data_": {"labels": {"bad": "bad", "good": "great"}}},
        {"data_": {"labels": ["good", "bad"]}},  # a prompt that starts from the labels takes them in order
    ],
    ids=str,
)  # fmt: skip
def test_every_ingredient_moves_it(change: dict[str, Any]) -> None:
    if "data_" in change:
        assert _mark_with_data(change["data_"]) != mark()
    else:
        assert mark(**change) != mark()


def _mark_with_data(changes: dict[str, Any]) -> str:
    task = TaskParams.model_validate(TASK | {"data": TASK["data"] | changes})
    return fingerprint(task, "prompt", "b" * 64, "d" * 64)


def test_the_recipe_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mark()
    monkeypatch.setattr(module, "RECIPE", module.RECIPE + 1)
    assert mark() != before


@pytest.mark.parametrize(
    "change",
    [
        {"gate": [{"metric": "macro_f1", "direction": "higher", "threshold": 0.1}]},
        {"baselines": {"hard_prompts": ["Try this."], "in_context": [8]}},
        {"promotion": "auto"},
        {"prefix": {"virtual_tokens": 3, "training": {"seed": 9}}},  # the other method's
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_judges_an_adapter_does_not_move_it(change: dict[str, Any]) -> None:
    assert mark(**change) == mark()


def test_where_rows_come_from_does_not_move_it_their_content_does() -> None:
    assert _mark_with_data({"source": "elsewhere.csv"}) == mark()


def test_it_needs_no_torch() -> None:
    """An unchanged retrain must end without paying for the import."""
    heavy = ("torch", "transformers", "mlflow", "prefect", "sklearn", "numpy")
    code = f"import sys, components.provenance.fingerprint; print(*(m for m in {heavy} if m in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"method": "prefix"}, True),
        ({"prompt": {"virtual_tokens": 7}}, True),
        ({"template": "{text}!"}, False),
        ({"instruction": "Say it!"}, False),
        ({"baselines": {"in_context": [1]}}, False),
    ],
)
def test_baselines_are_asked_again_only_when_their_answers_could_differ(change: dict[str, Any], same: bool) -> None:
    first, changed = (
        module.baselines_fingerprint(TaskParams.model_validate(task), "b" * 64, "d" * 64)
        for task in (TASK, TASK | change)
    )
    assert (first == changed) is same
    assert module.baselines_fingerprint(TaskParams.model_validate(TASK), "c" * 64, "d" * 64) != first
    assert module.baselines_fingerprint(TaskParams.model_validate(TASK), "b" * 64, "e" * 64) != first


def imported(method: MethodName = "prompt", base: str = "b" * 64, data: str = "d" * 64, **changes: Any) -> str:
    digest = changes.pop("digest", "a" * 64)
    return import_fingerprint(TaskParams.model_validate(TASK | changes), method, base, data, digest)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "c" * 64},
        {"base": "c" * 64},
        {"data": "e" * 64},
        {"template": "{text} it is"},
        {"method": "prefix"},
    ],
    ids=str,
)
def test_an_imported_adapter_is_known_by_its_file_and_by_what_it_is_asked(change: dict[str, Any]) -> None:
    assert imported() == imported()
    assert imported(**change) != imported()


def test_nothing_that_trains_is_in_the_mark_of_an_imported_adapter() -> None:
    assert imported(prompt={"training": {"steps": 7, "learning_rate": 0.1}}) == imported()
    assert imported() != mark()
