"""Where a project is, and what a command finds in its environment."""

from __future__ import annotations

import os
import stat
from os import umask
from pathlib import Path

import pytest

from components.errors import ParamsError, SetupError
from flows.process import local_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr("os.environ", dict(os.environ))
    return tmp_path


def test_the_nearest_folder_upward_is_the_root(project: Path) -> None:
    inner = project / "inner" / "deep"
    inner.mkdir(parents=True)
    assert local_project.find_root(inner) == project

    (project / "inner" / "params.yaml").touch()
    assert local_project.find_root(inner) == project / "inner"


def test_no_project_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=str(tmp_path)):
        local_project.find_root(tmp_path)


def test_stores_lie_in_the_root_and_nothing_is_made(project: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME", "PREFACE_BASES"):
        os.environ.pop(name, None)

    assert local_project.enter(project) == project

    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{project}/.preface/mlflow.db"
    assert os.environ["PREFECT_HOME"] == f"{project}/.preface/prefect"
    assert os.environ["PREFACE_BASES"] == f"{project}/bases"
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


def test_what_the_user_set_wins(project: Path) -> None:
    os.environ |= {"MLFLOW_TRACKING_URI": "http://tracking.example", "HF_HUB_OFFLINE": "0"}

    local_project.enter(project)

    assert os.environ["MLFLOW_TRACKING_URI"] == "http://tracking.example"
    assert os.environ["HF_HUB_OFFLINE"] == "0"


@pytest.mark.parametrize("name", ["PREFECT_HOME", "PREFACE_BASES"])
def test_a_folder_is_the_same_from_everywhere_or_refused(project: Path, name: str) -> None:
    os.environ[name] = "kept/there"
    with pytest.raises(SetupError, match=rf"{name}=kept/there is another folder from each .*{name}=/.*/kept/there"):
        local_project.enter(project)

    os.environ[name] = "~/there"
    local_project.enter(project)
    assert os.environ[name] == str(Path.home() / "there")


def test_a_run_tells_that_it_lives_whichever_server_it_is_on(project: Path) -> None:
    """A fleet brings its server after this was read: a run of 180 s between two signs is taken for dead meanwhile."""
    for name in ("PREFECT_API_URL", local_project.HEARTBEAT[0]):
        os.environ.pop(name, None)

    local_project.enter(project)

    assert os.environ[local_project.HEARTBEAT[0]] == "30"


def test_an_empty_address_of_prefect_is_none(project: Path) -> None:
    os.environ["PREFECT_API_URL"] = ""

    local_project.enter(project)

    assert "PREFECT_API_URL" not in os.environ


def test_this_machine_is_asked_past_the_proxy(project: Path) -> None:
    os.environ |= {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "corp.example"}

    local_project.enter(project)

    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "corp.example,127.0.0.1,localhost,::1"


def test_prefects_database_of_ours_is_its_owners_alone(tmp_path: Path) -> None:
    home = tmp_path / ".preface" / "prefect"
    home.mkdir(parents=True)
    for name in ("prefect.db", "prefect.db-wal", "prefect.db-shm"):
        (home / name).touch(0o644)
    old, home_of_another = umask(0o022), tmp_path / "prefect"
    try:
        local_project.keep_private(home)
        local_project.keep_private(home_of_another)
        local_project.keep_private(tmp_path / "new" / ".preface" / "prefect")
    finally:
        umask(old)

    assert {stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new/.preface/prefect/prefect.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(home_of_another.stat().st_mode) == 0o755  # whoever sets PREFECT_HOME says who reads it
    assert not list(home_of_another.iterdir())


def test_a_project_that_cannot_keep_its_stores_is_told_before_one_is_opened(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(os.environ, "MLFLOW_TRACKING_URI", raising=False)
    (project / ".preface").touch()

    with pytest.raises(SetupError, match="is no folder that this user can write"):
        local_project.enter(project)
    (project / ".preface").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)  # a test's user may write anywhere
    with pytest.raises(SetupError, match="make it one, or set MLFLOW_TRACKING_URI"):
        local_project.enter(project)
    os.environ["MLFLOW_TRACKING_URI"] = "http://tracking.example"

    assert local_project.enter(project) == project


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".preface").touch()

    with pytest.raises(SetupError, match=r"\.preface/prefect cannot be written \(Not a directory\)"):
        local_project.keep_private(tmp_path / ".preface" / "prefect")
