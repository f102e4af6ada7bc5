"""`preface retrain TASK --sweep`: settings are looked for on the validation rows, then the flow is as ever."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient

from components.errors import TrainingError
from components.training import sweep as sweeping
from registry.artifact import adapter_folder

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
RATES = [0.001, 0.3, 0.1, 0.03]
SWEEP = {"trials": 4, "at_once": 2, "prefix": {"training": {"learning_rate": RATES}}}


@pytest.fixture
def swept(project: Project) -> Project:
    project.change("tasks.film.sweep", SWEEP)
    return project


def test_a_sweep_ends_in_a_version_with_the_settings_that_won(swept: Project) -> None:
    outcome = swept.retrain(sweep=True)

    assert (outcome.result, outcome.version) == ("Staged", 1)
    made = swept.store.version("film", 1)
    rate = adapter_folder.read(swept.store.download(made)).manifest.params["prefix"]["training"]["learning_rate"]
    [parent, *others] = swept.mlflow_runs()
    trials = [run for run in others if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.status for run in swept.mlflow_runs()} == {"FINISHED"}
    assert sorted(float(run.data.params["training.learning_rate"]) for run in trials) == sorted(RATES)
    best = min(trials, key=lambda run: run.data.metrics["best_validation_loss"])
    assert float(best.data.params["training.learning_rate"]) == rate
    assert str(rate) in parent.data.tags["preface.sweep.winner"]
    # Rungs of a quarter, a half and all of twenty steps.
    client = MlflowClient()
    taken = sorted(len(client.get_metric_history(run.info.run_id, "train_loss")) for run in trials)
    assert taken == [5, 5, 10, 20]
    assert swept.store.run(made.run_id).tags["preface.sweep"] == parent.info.run_id
    assert swept.kept() == set()

    # The same as if params.yaml had said so: nothing is trained twice, nor looked for again.
    assert swept.retrain(sweep=True).result == "Unchanged"
    swept.change("tasks.film.prefix.training.learning_rate", rate)
    assert swept.retrain().result == "Unchanged"
    assert len(swept.mlflow_runs()) == len(others) + 1


def test_a_sweep_that_was_stopped_goes_on(swept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = sweeping.advance, []

    def stopped(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the plug was pulled")
        real(*arguments)

    monkeypatch.setattr(sweeping, "advance", stopped)
    with pytest.raises(RuntimeError, match="plug"):
        swept.retrain(sweep=True)
    monkeypatch.setattr(sweeping, "advance", real)

    assert swept.retrain(sweep=True).result == "Staged"

    runs = swept.mlflow_runs()
    assert len(runs) == 1 + len(RATES) + 1  # the sweep, its trials, the version's own; none was opened twice
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_nothing_is_brought_where_there_is_no_choice(project: Project) -> None:
    with pytest.raises(TrainingError, match=r"no sweep for prompt or prefix tuning in params\.yaml; write one"):
        project.retrain(sweep=True)
    assert project.mlflow_runs()[-1].info.status == "FAILED"
