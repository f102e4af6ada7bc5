"""The whole flow when something fails: what is tried again, what is told and kept, and where the next run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from prefect.client.schemas.objects import StateType

from components.errors import ArtifactError, Diverged, NotFound, SourceError, SourceUnavailable, StoreUnavailable
from components.training import loop
from flows.run.metric_log import MetricLog
from flows.tasks import steps
from registry.mlflow.store import Store

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
TRIES = 4


@pytest.fixture
def steps_trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every step of training."""
    seen: list[int] = []
    step = loop.optimizer_step

    def counted(*arguments: Any) -> Any:
        seen.append(1)
        return step(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", counted)
    return seen


def failing(name: str, error: Callable[[], Exception], patch: pytest.MonkeyPatch, times: int = 99) -> list[str]:
    """Make a method of the store raise, the first ``times`` times; the list grows with every call."""
    calls: list[str] = []
    whole = getattr(Store, name)

    def fail(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) <= times:
            raise error()
        return whole(*arguments, **named)

    patch.setattr(Store, name, fail)
    return calls


def away() -> StoreUnavailable:
    return StoreUnavailable("the tracking store does not answer (planted)")


def assert_failed(project: Project, message: str) -> None:
    """Prefect's run has failed, with our own line."""
    run = project.prefect_run()
    assert (run.state_type, run.state_name) == (StateType.FAILED, "Failed")
    assert message in str(run.state.message)


@pytest.mark.parametrize(("status", "kind", "tries"), [(503, SourceUnavailable, TRIES), (404, SourceError, 1)])
def test_a_source_that_may_come_back_is_asked_again_and_no_other(
    project: Project, site: Any, status: int, kind: type[Exception], tries: int
) -> None:
    project.change("tasks.film.data.source", site.put("/film.csv", status=status, head=True))

    with pytest.raises(kind, match=str(status)):
        project.retrain()

    assert_failed(project, kind.__name__)
    [left] = project.mlflow_runs()
    assert (left.info.status, left.data.tags["preface.error"].partition(":")[0]) == ("FAILED", kind.__name__)
    asked = [line for line in site.asked if line.startswith("HEAD")]
    assert len(asked) == tries


def test_a_server_that_is_down_is_asked_again_and_then_told_in_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, steps_trained: list[int]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    project.track("http://127.0.0.1:1")
    asked = failing("by_fingerprint", away, monkeypatch, times=0)

    with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
        project.retrain()

    assert "\n" not in str(caught.value)
    assert len(asked) == TRIES
    assert steps_trained == []
    assert_failed(project, "StoreUnavailable")


def test_a_store_that_goes_down_after_training_costs_no_second_training(
    project: Project, monkeypatch: pytest.MonkeyPatch, steps_trained: list[int]
) -> None:
    with monkeypatch.context() as down:
        asked = failing("register", away, down)
        failing("end_run", lambda: StoreUnavailable("another line"), down)
        with pytest.raises(StoreUnavailable, match="planted"):
            project.retrain()
    assert len(asked) == TRIES
    assert len(steps_trained) == 20
    assert {"adapter.safetensors", "report.json", "checkpoint.safetensors"} <= project.kept()
    with pytest.raises(NotFound):
        project.store.versions("film")

    outcome = project.retrain()

    assert (outcome.result, outcome.version) == ("Staged", 1)
    assert len(steps_trained) == 20
    assert project.kept() == set()
    assert project.store.version("film", 1).run_id == project.mlflow_runs()[-1].info.run_id


@pytest.mark.parametrize("method", ["log_files", "version", "set_alias"])
def test_a_store_that_is_away_for_a_moment_delays_a_registration_and_no_more(
    project: Project, monkeypatch: pytest.MonkeyPatch, method: str, steps_trained: list[int]
) -> None:
    from flows.tasks import steps

    whole = steps.gate.fn

    def gate(*arguments: Any) -> Any:
        failing(method, away, monkeypatch, times=1)
        return whole(*arguments)

    monkeypatch.setattr(steps.gate, "fn", gate)  # the last step before

    outcome = project.retrain()

    assert (outcome.result, outcome.version) == ("Staged", 1)
    [version] = project.store.versions("film")
    assert (version.stage, version.aliases) == ("Staging", ("staging",))
    assert len(steps_trained) == 20


def test_diverged_training_registers_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model this small no rate that params.yaml takes does it: the schedule goes astray instead."""
    monkeypatch.setattr("components.training.loop.learning_rate", lambda *_: float("inf"))

    with pytest.raises(Diverged, match=r"not finite; lower training\.learning_rate") as caught:
        project.retrain()

    assert "\n" not in str(caught.value)
    assert_failed(project, str(caught.value))
    [run] = project.mlflow_runs()
    assert run.info.status == "FAILED"
    with pytest.raises(NotFound):
        project.store.versions("film")


@pytest.mark.parametrize("interruption", [RuntimeError("the plug was pulled"), KeyboardInterrupt()], ids=type)
def test_an_interrupted_training_goes_on_from_its_checkpoint(
    project: Project, monkeypatch: pytest.MonkeyPatch, interruption: BaseException, steps_trained: list[int]
) -> None:
    whole = MetricLog.__call__

    def pull_the_plug(log: MetricLog, figures: dict[str, float], step: int) -> None:
        if step == 13:
            raise interruption
        whole(log, figures, step)

    with monkeypatch.context() as patch:
        patch.setattr(MetricLog, "__call__", pull_the_plug)
        with pytest.raises(type(interruption)):
            project.retrain()
    stopped_from_outside = isinstance(interruption, KeyboardInterrupt)
    [run] = project.mlflow_runs()
    assert run.info.status == ("KILLED" if stopped_from_outside else "FAILED")
    assert project.kept() == {"checkpoint.safetensors", "examples.parquet", "data_report.json"}
    steps_trained.clear()

    outcome = project.retrain()

    [again] = project.mlflow_runs()
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert (outcome.result, outcome.version) == ("Staged", 1)
    assert len(steps_trained) == 10  # the checkpoint stood at 10 of 20
    assert project.kept() == set()


def test_a_champion_that_was_exchanged_after_it_was_fetched_is_not_compared_with(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.change("tasks.film.promotion", "auto")
    project.retrain()
    project.change("tasks.film.prefix.training.seed", 1)
    fetch = steps.champion

    def exchanged(job: Any) -> Any:
        return fetch(job).model_copy(update={"digest": "0" * 64})

    monkeypatch.setattr(steps, "champion", exchanged)

    with pytest.raises(ArtifactError, match=f"film@1 is registered as {'0' * 64}"):
        project.retrain()


def test_a_page_that_prefect_does_not_take_costs_no_training(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise httpx.ConnectError("planted")

    monkeypatch.setattr(steps, "create_table_artifact", refused)

    assert project.retrain().result == "Staged"
    assert project.mlflow_runs()[0].info.status == "FINISHED"


def test_a_store_that_is_away_when_the_mlflow_run_ends_hides_no_version(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing("end_run", away, patch, times=1)
        assert project.retrain().result == "Staged"
    assert project.mlflow_runs()[0].info.status == "RUNNING"

    assert project.retrain().result == "Unchanged"
    assert project.mlflow_runs()[0].info.status == "FINISHED"


def test_a_run_that_was_killed_with_its_version_made_lends_no_forced_one_its_name(project: Project) -> None:
    project.retrain()
    [first] = project.mlflow_runs()
    MlflowClient().update_run(first.info.run_id, status="RUNNING")  # as it is left by a kill after the registration

    assert project.retrain(force=True).version == 2

    runs = project.mlflow_runs()
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert [project.store.version("film", number).run_id for number in (1, 2)] == [run.info.run_id for run in runs]


def test_what_a_killed_run_left_is_brought_to_its_end_by_the_next_one(project: Project) -> None:
    project.retrain()
    [run] = project.mlflow_runs()
    MlflowClient().update_run(run.info.run_id, status="RUNNING")
    project.change("tasks.film.promotion", "auto")

    outcome = project.retrain()

    assert (outcome.result, outcome.version) == ("Promoted", 1)
    assert [each.info.status for each in project.mlflow_runs()] == ["FINISHED"]
