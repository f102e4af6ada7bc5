"""The way back from a base upgrade, cut short or with a params.yaml that cannot be written, ends when asked again."""

from __future__ import annotations

from typing import Any

import pytest

from components.config import params
from flows import rebase
from registry import queries

pytestmark = pytest.mark.flow


@pytest.fixture
def upgraded(project: Any) -> Any:
    """Version 1 on the base tiny, version 2 on the base other in Production."""
    for base in ("tiny", "other"):
        project.change("tasks.film.base", base)
        project.retrain()
        project.promote()
    return project


def undo(project: Any) -> tuple[str, str]:
    [ended] = rebase.undo(project.root, ["film"], "worse on short reviews")
    return ended.result, ended.message


def stands(project: Any) -> tuple[int, str]:
    """The version in Production, and the base that params.yaml declares."""
    live = queries.current(project.store, "film", "Production")
    assert live is not None
    return live.number, params.load(project.root / "params.yaml").task("film").base


def test_killed_after_the_version_went_back(upgraded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rebase, "declare_base", kill)
        with pytest.raises(Killed):
            undo(upgraded)
    assert stands(upgraded) == (1, "other")

    result, message = undo(upgraded)

    assert (result, stands(upgraded)) == ("RolledBack", (1, "tiny"))
    assert "was in Production already" in message
    assert undo(upgraded)[0] == "Left", "there is nothing more to go back to"


def test_a_file_that_cannot_be_written_is_told_and_not_the_end(upgraded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("components.config.params_edit._replace", full)
        result, message = undo(upgraded)
    assert (result, stands(upgraded)) == ("Failed", (1, "other"))
    assert "No space left on device); write `base: tiny` for film there" in message

    assert undo(upgraded)[0] == "RolledBack"
    assert stands(upgraded) == (1, "tiny")


def test_a_deleted_version_is_passed_over(upgraded: Any) -> None:
    from mlflow import MlflowClient

    MlflowClient().delete_model_version("film", "2")

    assert undo(upgraded)[0] == "RolledBack"
    assert stands(upgraded) == (1, "tiny")
