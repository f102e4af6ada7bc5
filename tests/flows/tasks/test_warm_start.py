"""A warm start goes on from the version in Production, a cold one beside it; the better goes to the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config.params import RetrainParams
from components.training import loop
from flows.reproduction import reproduce
from registry.artifact import adapter_folder

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages


@pytest.fixture
def live(project: Project) -> Project:
    """Version 1 is in Production, the task asks for warm starts, and there are other rows now."""
    project.retrain()
    project.promote(1)
    project.change("tasks.film.retrain", {"warm_start": True})
    return project


def more_rows(project: Project) -> None:
    file: Path = project.root / "film.csv"
    lines = file.read_text(encoding="utf-8")
    file.write_text(lines + "an entirely new text funny,pos\nanother new text dull,neg\n", encoding="utf-8")


def manifest(project: Project, number: int) -> Any:
    return adapter_folder.read(project.store.download(project.store.version("film", number))).manifest


def test_both_starts_are_trained_and_the_report_names_both(live: Project) -> None:
    more_rows(live)

    outcome = live.retrain()

    assert (outcome.result, outcome.version) == ("Staged", 2)
    first, second = manifest(live, 1), manifest(live, 2)
    assert (first.start, second.start.version, second.start.digest) == (None, 1, first.digest)
    starts = live.report(2).starts
    assert sorted(starts) == ["cold", "warm"]
    [run] = [run for run in live.mlflow_runs() if run.info.run_id == live.store.version("film", 2).run_id]
    assert run.data.metrics["best_validation_loss"] == pytest.approx(min(starts.values()))
    assert {"train_loss", "warm_train_loss", "validation_loss", "warm_validation_loss"} <= set(run.data.metrics)
    # What was learned of the same words is not learned again: the warm one begins where the cold one wants to go.
    from mlflow import MlflowClient

    first_losses = {
        start: MlflowClient().get_metric_history(run.info.run_id, name)[0].value
        for start, name in (("cold", "validation_loss"), ("warm", "warm_validation_loss"))
    }
    assert first_losses["warm"] < first_losses["cold"]
    assert "validation loss: cold" in str(live.prefect_artifacts()["gate-film"].data)
    assert live.kept() == set()

    # Neither the same rows nor the same rows out of Production are anything new.
    assert live.retrain().result == "Unchanged"
    live.promote(2)
    assert live.retrain().result == "Unchanged"
    assert len(live.store.versions("film")) == 2

    # The chain holds, and the same bits come out again.
    assert reproduce.run(live.root, "film@2").identical


def test_a_version_that_does_not_fit_is_no_start(live: Project) -> None:
    live.change("tasks.film.prefix.virtual_tokens", 3)

    assert live.retrain().result == "Staged"

    assert manifest(live, 2).start is None
    assert live.report(2).starts == {}


def test_a_task_without_a_version_goes_on_from_another_s(live: Project) -> None:
    """Until it has one of its own in Production; the pin says whose it was, and the same bits come out again."""
    declared = yaml.safe_load((live.root / "params.yaml").read_text(encoding="utf-8"))["tasks"]["film"]
    live.change("tasks.sequel", declared | {"retrain": {"warm_start": "film"}})

    assert live.retrain("sequel").result == "Staged"

    first = adapter_folder.read(live.store.download(live.store.version("sequel", 1))).manifest
    assert first.start.model_dump() == {"task": "film", "version": 1, "digest": manifest(live, 1).digest}
    assert sorted(live.report(1, "sequel").starts) == ["cold", "warm"]
    assert reproduce.run(live.root, "sequel@1").identical
    assert live.retrain("sequel").result == "Unchanged"

    live.promote(1, "sequel")
    assert live.retrain("sequel").result == "Unchanged"
    more_rows(live)
    assert live.retrain("sequel").result == "Staged"
    second = adapter_folder.read(live.store.download(live.store.version("sequel", 2))).manifest
    assert second.start.model_dump() == {"version": 1, "digest": first.digest}


def test_without_being_asked_for_there_is_none(project: Project) -> None:
    assert not RetrainParams().warm_start
    project.retrain()
    project.promote(1)
    more_rows(project)
    assert project.retrain().result == "Staged"
    assert manifest(project, 2).start is None


def test_an_interrupted_training_goes_on_from_both_checkpoints(live: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.optimizer_step, []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:  # of 20, evaluated every 5
            raise RuntimeError("the plug was pulled")
        return real(*arguments)

    more_rows(live)
    monkeypatch.setattr(loop, "optimizer_step", stopped)
    with pytest.raises(RuntimeError, match="plug"):
        live.retrain()
    assert {"checkpoint-cold.safetensors", "checkpoint-warm.safetensors"} <= live.kept()
    calls[:] = [1] * 12

    assert live.retrain().result == "Staged"

    assert len(calls) == 12 + 20 - 10
    assert sorted(live.report(2).starts) == ["cold", "warm"]
    assert live.kept() == set()
