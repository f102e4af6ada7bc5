"""What is in Production was deleted in MLflow by hand: told; nothing takes its place unasked, all ways stay open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import ArtifactError, NothingToRollBackTo, PromotionRefused
from registry import queries
from registry.audit.local_environment import LocalEnvironment
from registry.audit.verify import verify_registry
from registry.protocol import Version
from registry.releases import lifecycle

pytestmark = [pytest.mark.flow, pytest.mark.parametrize("store", ["mlflow", "aliases"], indirect=True)]
Candidate = Callable[..., Version]


@pytest.fixture
def client(store: Any) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store.uri, store.uri)


@pytest.fixture
def delete(client: Any, task: str) -> Callable[[int], None]:
    return lambda number: client.delete_model_version(task, str(number))


def test_a_rollback_passes_over_what_is_not_there(
    store: Any, task: str, released: Any, delete: Any, rollback: Any, seen: Any
) -> None:
    released(4)
    delete(4)
    delete(3)
    told = queries.status(store, task)

    moved = rollback()

    assert told.production is None
    assert told.drift == "version 4, which release 4 put into Production, was deleted"
    assert told.remedy == f"`preface rollback {task}` goes back to version 2"
    assert (moved.version.number, moved.previous, moved.entry.drift) == (2, 4, told.drift)
    assert (not queries.status(store, task).alarms, seen.aliases) == (True, {"production": 2})


def test_a_promotion_waits_while_there_is_something_good_to_go_back_to(
    store: Any, task: str, candidate: Candidate, released: Any, delete: Any, promote: Any
) -> None:
    released(2)
    delete(2)
    candidate(store)

    with pytest.raises(PromotionRefused, match=f"was deleted; `preface rollback {task}` goes back to version 1"):
        promote()


def test_with_nothing_to_go_back_to_another_takes_its_place(
    store: Any, task: str, candidate: Candidate, released: Any, delete: Any, promote: Any, rollback: Any
) -> None:
    released(1)
    delete(1)

    assert queries.current(store, task, "Production") is None  # what trains now has no champion to beat
    assert "preface retrain" in queries.status(store, task).remedy
    with pytest.raises(NothingToRollBackTo):
        rollback()
    candidate(store)
    moved = promote()

    assert (moved.version.number, moved.entry.override) == (2, "")
    assert moved.entry.drift == "version 1, which release 1 put into Production, was deleted"
    assert not queries.status(store, task).alarms


def test_what_was_compared_with_it_is_measured_again(
    store: Any, task: str, candidate: Candidate, released: Any, delete: Any, promote: Any
) -> None:
    released(1)
    candidate(store)
    delete(1)

    with pytest.raises(PromotionRefused, match="compared with version 1, in Production is nothing"):
        promote()


def test_a_task_whose_model_was_deleted_whole_is_still_told(
    store: Any, client: Any, task: str, released: Any, rollback: Any
) -> None:
    released(2)
    client.delete_registered_model(task)

    (at_a_glance,) = [each for each in queries.statuses(store) if each.task == task]
    walked = list(verify_registry(lambda: store, [task], LocalEnvironment(Path(), {})))

    assert task in store.tasks()
    assert at_a_glance == queries.status(store, task)
    assert at_a_glance.drift == "version 2, which release 2 put into Production, was deleted"
    assert f"delete {task}.releases in MLflow too" in at_a_glance.remedy
    assert ("projection", f"{at_a_glance.drift}; {at_a_glance.remedy}") in [(b.link, b.fault) for b in walked[0].breaks]
    assert lifecycle.restore(store, task).remedy == at_a_glance.remedy, "nothing is left to be brought back"
    with pytest.raises(NothingToRollBackTo):
        rollback()


def test_a_version_whose_digest_was_edited_is_told_and_gone_back_from(
    store: Any, client: Any, task: str, released: Any, rollback: Any, promote: Any, seen: Any
) -> None:
    released(2)
    was = store.version(task, 2).tag("manifest_digest")
    client.set_model_version_tag(task, "2", "preface.manifest_digest", "0" * 64)

    told = queries.status(store, task)

    assert told.drift.endswith(
        f"has {'0' * 12}: the one was deleted and its number is another's now, or a digest was edited"
    )
    assert told.remedy == f"`preface rollback {task}` goes back to version 1"
    assert rollback().version.number == 1
    assert (not queries.status(store, task).alarms, seen.aliases["production"]) == (True, 1)
    with pytest.raises(ArtifactError, match=f"the stored adapter is {task} {was}, registered was {task} 0000"):
        promote(2)


def test_a_number_that_came_back_is_not_in_production_for_that(
    store: Any, client: Any, task: str, candidate: Candidate, released: Any, promote: Any, rollback: Any, seen: Any
) -> None:
    released(2)
    was = store.version(task, 2).tag("manifest_digest")
    client.delete_registered_model(task)
    candidate(store)
    now = candidate(store).tag("manifest_digest")

    status = queries.status(store, task)
    assert (status.production, seen.aliases) == (None, {"staging": 2})
    assert status.drift == (
        f"release 2 put version 2 with the digest {was[:12]} into Production, but version 2 has {now[:12]}:"
        " the one was deleted and its number is another's now, or a digest was edited"
    )
    assert queries.current(store, task, "Production") is None
    with pytest.raises(NothingToRollBackTo, match="was never in Production"):
        rollback(1)

    assert promote().version.number == 2
    assert not queries.status(store, task).alarms
    assert seen.aliases == {"production": 2}
    assert [entry.release.version for entry in queries.history(store, task)] == [1, 2, 2]
