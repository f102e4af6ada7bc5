"""A run that nobody asked for: what it finds reason enough to train, when it rests, and when it calls for a person."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import StateType

import components.evaluation.report
from components.data.prepare import read_examples
from components.evaluation.report import scores
from flows.run.job import Outcome
from flows.tasks.outcome import outcome_of
from flows.tasks.reason_steps import Cause
from registry import queries
from registry.releases import scored

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]
Project = Any  # tests/flows/conftest.py; test modules are not packages
UNREACHABLE = {"accuracy": 2.0}


@pytest.fixture
def champion(project: Project) -> Project:
    """A project whose first version is in Production; no later one goes there by itself."""
    project.change("tasks.film.promotion", "auto")
    assert project.retrain().result == "Promoted"
    project.change("tasks.film.promotion", "manual")
    return project


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The accuracy that every scoring of a version in Production came to, as a run does it."""
    seen: list[float] = []

    def counted(*arguments: Any) -> dict[str, float]:
        found = scores(*arguments)
        seen.append(found["accuracy"])
        return found

    monkeypatch.setattr(components.evaluation.report, "scores", counted)
    return seen


@pytest.fixture
def warned() -> Iterator[Callable[[], list[str]]]:
    """The warnings of steps since the last look."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger("prefect.task_runs")
    handler.emit = records.append  # type: ignore[method-assign]

    def since() -> list[str]:
        found = [record.getMessage() for record in records]
        records.clear()
        return found

    logger.addHandler(handler)
    yield since
    logger.removeHandler(handler)


def no_training(patch: pytest.MonkeyPatch) -> None:
    """From now on a step of training is a failure."""
    patch.setattr("components.training.loop.optimizer_step", lambda *_: pytest.fail("it trained"))


def run(project: Project, cause: Cause = "schedule", task: str = "film") -> Outcome:
    """A run as Prefect starts it; how it ended. What came to a version leaves nothing behind."""
    from flows import retrain

    state = retrain.retrain(task, str(project.root), cause=cause, return_state=True)
    outcome = outcome_of(state, task)
    assert not outcome.version or project.kept() == set()
    return outcome


def why(project: Project, number: int) -> str:
    """What the MLflow run of a version says it was made for."""
    runs = {run.info.run_id: run for run in project.mlflow_runs()}
    said: str = runs[project.store.version("film", number).run_id].data.tags["preface.reasons"]
    return said


def append(project: Project, first: int, *, honest: bool = True) -> None:
    """Forty rows more; labelled wrongly where they are not honest."""
    labels = ("neg", "pos") if honest else ("pos", "neg")
    with (project.root / "film.csv").open("a", encoding="utf-8") as file:
        file.writelines(
            f"text {n} {'dull' if n % 2 else 'funny'},{labels[0] if n % 2 else labels[1]}\n"
            for n in range(first, first + 40)
        )


def assert_alerted(project: Project, outcome: Outcome, *words: str) -> None:
    """It is a failure under a name of its own, in Prefect as for who called, and was not tried again."""
    assert (outcome.result, outcome.refused) == ("Alert", True)
    shown = project.prefect_run()
    assert (shown.state_type, shown.state_name, shown.run_count) == (StateType.FAILED, "Alert", 1)
    for word in (*words, "nothing new to learn from"):
        assert word in outcome.message
        assert word in str(shown.state.message)


# --- nothing to watch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["schedule", "event"])
def test_what_was_never_trained_is_trained_and_then_there_is_nothing_to_learn(
    project: Project, cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(project, cause)

    assert (first.result, first.version) == ("Staged", 1)
    assert why(project, 1) == "it was never trained"
    runs = [vars(each.info) for each in project.mlflow_runs()]

    no_training(monkeypatch)
    second = run(project, cause)

    assert (second.result, second.version, second.refused) == ("Unchanged", 1, False)
    assert second.message.startswith("nothing to learn: version 1 was trained by prefix tuning on the same data")
    assert [vars(each.info) for each in project.mlflow_runs()] == runs
    assert len(project.store.versions("film")) == 1


def test_each_change_is_told_as_what_it_is(project: Project) -> None:
    run(project)
    version = project.store.version

    append(project, 300)
    assert run(project).version == 2
    before, after = (version("film", number).tag("dvc_md5")[:12] for number in (1, 2))
    assert before != after
    assert why(project, 2) == f"the data changed since version 1 (DVC {before} -> {after})"

    project.change("tasks.film.prefix.training.seed", 5)
    assert run(project).version == 3
    assert why(project, 3) == "the parameters changed since version 2"

    tiny = project.base_hash()
    project.change("tasks.film.base", "other")
    assert run(project).version == 4
    other = version("film", 4).tag("base_hash")
    assert other == project.base_hash() != tiny
    assert f"the base changed since version 3 ({tiny[:12]} -> {other[:12]})" in why(project, 4)
    assert "parameters" not in why(project, 4)


def test_a_change_that_is_not_listed_rests_with_words_until_somebody_asks(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project)
    project.change("tasks.film.retrain", {"when": ["data"]})
    project.change("tasks.film.prefix.training.seed", 5)

    with monkeypatch.context() as patch:
        no_training(patch)
        rested = run(project)

    assert (rested.result, rested.refused) == ("Unchanged", False)
    assert rested.message == (
        "nothing to learn: the parameters changed since version 1: no reason by retrain.when, which is ['data']"
    )
    assert project.prefect_run().state_type == StateType.COMPLETED
    assert len(project.mlflow_runs()) == len(project.store.versions("film")) == 1

    assert run(project, "hand").version == 2
    assert why(project, 2) == "asked for (hand); the parameters changed since version 1"

    # Planted: the same kind of change, listed now.
    project.change("tasks.film.retrain", {"when": ["parameters"]})
    project.change("tasks.film.prefix.training.seed", 6)
    assert run(project).version == 3


# --- the version in Production is watched -----------------------------------------------------------------------------


def test_below_its_floor_with_nothing_new_to_learn_from_a_person_is_called(
    champion: Project, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch)
    score = champion.report(1).candidate.metrics["accuracy"]
    champion.change("tasks.film.retrain", {"floor": {"accuracy": round(score - 0.01, 4)}})
    assert run(champion).result == "Unchanged", "it is above its floor"
    champion.change("tasks.film.retrain", {"floor": UNREACHABLE})

    outcome = run(champion)

    words = f"version 1 in Production has accuracy {score:.4f} on today's rows, its floor is 2"
    assert_alerted(champion, outcome, words)
    assert asked == [], "today's rows are those of its own report"
    assert len(champion.mlflow_runs()) == len(champion.store.versions("film")) == 1
    assert run(champion, "hand").result == "Unchanged", "who asks by hand is told, not called"


def test_it_is_asked_once_for_the_same_rows_and_the_scores_are_kept_with_it(
    champion: Project, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    append(champion, 300, honest=False)
    assert run(champion).version == 2  # today's rows are learnt from, and version 1 is in Production still
    no_training(monkeypatch)
    store, today = champion.store, read_examples(champion.root / "data/prepared/film").content_hash
    assert scored.on(store.version("film", 1), today) is None
    champion.change("tasks.film.retrain", {"floor": UNREACHABLE})

    first = run(champion)

    beside = champion.report(2).champion  # the same rows, asked by the gate of version 2
    assert asked == [beside.metrics["accuracy"]] != [champion.report(1).candidate.metrics["accuracy"]]
    assert_alerted(champion, first, f"has accuracy {asked[0]:.4f} on today's rows, its floor is 2")
    kept = store.version("film", 1).tag(scored.TAG)
    assert scored.on(store.version("film", 1), today) == beside.metrics

    second = run(champion)

    assert second == first
    assert len(asked) == 1
    assert store.version("film", 1).tag(scored.TAG) == kept
    assert (len(champion.mlflow_runs()), len(store.versions("film"))) == (2, 2)
    assert queries.current(store, "film", "Production").number == 1

    # Planted: what is kept is of other rows.
    scored.note(store, store.version("film", 1), "0" * 64, "2026-01-01T00:00:00+00:00", {"accuracy": 3.0})
    assert run(champion) == first
    assert len(asked) == 2


def test_below_its_floor_a_change_that_is_not_listed_is_learnt_from(champion: Project) -> None:
    champion.change("tasks.film.prefix.training.seed", 5)
    champion.change("tasks.film.retrain", {"when": ["data"], "floor": {"accuracy": 0.0}})
    assert run(champion).result == "Unchanged", "the change by itself is no reason"
    champion.change("tasks.film.retrain", {"when": ["data"], "floor": UNREACHABLE})

    assert run(champion).version == 2

    score = champion.report(1).candidate.metrics["accuracy"]
    assert why(champion, 2) == f"version 1 in Production has accuracy {score:.4f} on today's rows, its floor is 2"


def test_older_than_it_may_be_it_is_replaced_if_there_is_something_new_and_else_a_person_is_called(
    champion: Project, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion.change("tasks.film.retrain", {"max_age": "52w"})
    with monkeypatch.context() as patch:
        no_training(patch)
        assert run(champion).result == "Unchanged", "it is young enough"
        champion.change("tasks.film.retrain", {"max_age": "1s"})

        assert_alerted(champion, run(champion), "version 1 in Production is 0.0 days old, max_age is 1s")
        assert len(champion.mlflow_runs()) == len(champion.store.versions("film")) == 1

    append(champion, 300)
    assert run(champion).version == 2

    changed, old = why(champion, 2).split("; ")
    assert changed.startswith("the data changed since version 1 (DVC ")
    assert old == "version 1 in Production is 0.0 days old, max_age is 1s"
    assert asked == [], "its age says nothing of its scores"


def test_what_a_kill_kept_from_production_is_put_there_whatever_the_champion_is(
    champion: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(champion, 300)
    assert run(champion).result == "Staged"
    no_training(monkeypatch)
    champion.change("tasks.film.retrain", {"max_age": "1s"})

    # While a person promotes, the person who is called is told what waits.
    assert_alerted(champion, run(champion), "version 2 waits in Staging: `preface promote film`")

    champion.change("tasks.film.promotion", "auto")  # as if it had been so, and the run killed before it promoted
    assert run(champion).result == "Promoted"
    assert queries.current(champion.store, "film", "Production").number == 2


def test_a_champion_whose_base_cannot_be_had_is_no_reason_and_no_failure(
    champion: Project, asked: list[float], warned: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion.change("tasks.film.retrain", {"when": ["parameters"], "floor": UNREACHABLE})
    file = champion.root / "params.yaml"
    declared = yaml.safe_load(file.read_text(encoding="utf-8"))
    tiny = declared["bases"].pop("tiny")  # nobody says any more where it comes from
    for settings in declared["tasks"].values():
        settings["base"] = "other"
    file.write_text(yaml.safe_dump(declared), encoding="utf-8")
    append(champion, 300)
    shutil.move(champion.root / "bases" / "tiny", champion.root / "elsewhere")

    with monkeypatch.context() as patch:
        no_training(patch)
        outcome = run(champion)

    assert (outcome.result, outcome.refused) == ("Unchanged", False)
    assert champion.prefect_run().state_type == StateType.COMPLETED
    assert warned() == ["film@1 cannot be scored on today's rows: its base tiny is not here"]
    assert asked == []
    assert champion.store.version("film", 1).tag(scored.TAG) == ""

    # Planted: it is declared again, so it is made again, and the floor is reason enough.
    monkeypatch.chdir(champion.root)
    champion.change("bases.tiny", tiny)
    assert run(champion).version == 2
    assert len(asked) == 1
    assert "its floor is 2" in why(champion, 2)
    assert warned() == []


def test_a_champion_of_other_labels_is_no_reason_and_no_failure(
    champion: Project, asked: list[float], warned: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion.change("tasks.film.retrain", {"when": ["base"], "floor": UNREACHABLE})
    champion.change("tasks.film.data.labels", ["neg", "pos", "mid"])
    with (champion.root / "film.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"text {n} plain,mid\n" for n in range(200, 260))

    no_training(monkeypatch)
    outcome = run(champion)

    assert outcome.result == "Unchanged"
    [said] = warned()
    assert said.startswith("film@1 cannot be scored on today's rows: it answers with the labels ['neg', 'pos']")
    assert asked == []
