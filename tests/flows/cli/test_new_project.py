"""`preface init` makes a project out of any git repository, and the installed wheel is all that works there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml

from cli import new_project
from components.base.base_hash import hash_base
from components.config import params
from components.errors import SetupError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path / "mine"], check=True)
    return tmp_path / "mine"


def test_what_it_writes_is_a_project_without_any_code(repository: Path) -> None:
    written = new_project.write(repository)

    assert sorted(written) == sorted(new_project.FILES)
    assert params.load(repository / "params.yaml").tasks == {}
    for name in ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        assert (repository / name).read_bytes() == (ROOT / name).read_bytes(), "the repository is such a project too"
    assert list(repository.rglob("*.py")) == []


def test_the_task_in_it_may_be_taken_as_it_stands(repository: Path) -> None:
    new_project.write(repository)
    file = repository / "params.yaml"
    head, _, task = file.read_text(encoding="utf-8").partition("`preface retrain shop-reviews`.\n")
    file.write_text(head + "\n" + task.replace("  # ", "  "), encoding="utf-8")

    assert list(params.load(file).tasks) == ["shop-reviews"]


def test_lists_that_are_there_go_on(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.swp", encoding="utf-8")

    new_project.write(repository)

    assert (repository / ".gitignore").read_text(encoding="utf-8").startswith("*.swp\n/.preface/\n")


def test_nothing_is_replaced(repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")

    with pytest.raises(SetupError, match=r"has dvc\.yaml already.*preface init adapters"):
        new_project.write(repository)

    assert sorted(path.name for path in repository.iterdir()) == [".git", "dvc.yaml"]
    assert len(new_project.write(repository / "adapters")) == len(new_project.FILES)


def test_without_git_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="type `git init` there"):
        new_project.write(tmp_path / "mine")

    assert list(tmp_path.iterdir()) == []


# --- installed from the wheel -----------------------------------------------------------------------------------------


@pytest.fixture
def preface(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, out of our wheel, in an environment that has the libraries of this one and none of our code."""
    made, wheels = tmp_path / "environment", tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT], check=True)
    venv.create(made, with_pip=False, symlinks=True)
    inside = made / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # As a path, so that the links of this environment to our code are not followed.
    (inside / "libraries.pth").write_text(str(Path(click.__file__).parents[1]) + "\n", encoding="utf-8")
    python = [*pip, "--python", made / "bin/python", "install", "--no-index", "--no-deps", "--ignore-installed"]
    subprocess.run([*python, *wheels.iterdir()], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFE", "MLFLOW_T", "PYTHONP"))}
    own = {"HOME": str(tmp_path), "DVC_SITE_CACHE_DIR": str(tmp_path / "dvc"), "VIRTUAL_ENV": str(made)}

    def run(*arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
        command = [made / "bin/preface", *arguments]
        return subprocess.run(command, cwd=at, env=kept | own, capture_output=True, text=True, timeout=240)

    return run


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_an_empty_repository_to_production_and_back(
    repository: Path, preface: Callable[..., subprocess.CompletedProcess[str]], tiny_base_folder: Callable[..., Path]
) -> None:
    def typed(*arguments: str) -> str:
        done = preface(*arguments, at=repository)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    typed("init")
    base = tiny_base_folder("llama")
    rows = "".join(f"text number {n} is {word},{word}\n" for n in range(60) for word in ("dull", "funny"))
    (repository / "film.csv").write_text("text,target\n" + rows, encoding="utf-8")
    training = {"steps": 4, "batch_size": 8, "evaluate_every": 2}
    task = {
        "base": "tiny",
        "data": {"source": "film.csv", "format": "csv", "labels": ["dull", "funny"], "max_tokens": 16},
        "instruction": "Say whether the film is dull or funny.",
        "template": "{text}",
        "prompt": {"virtual_tokens": 4, "training": training},
        "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.0}],
    }
    declared = {"bases": {"tiny": {"source": str(base), "hash": hash_base(base).value}}, "tasks": {"film": task}}
    (repository / "params.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")

    assert "version 1 passed its gate and waits in Staging" in typed("retrain", "film")
    typed("promote", "film", "--reason", "first")
    typed("retrain", "film", "--force")
    typed("promote", "film", "--reason", "second")
    typed("rollback", "film", "--reason", "just to see")

    assert json.loads(typed("status", "--json"))[0]["production"] == 1
    assert json.loads(typed("predict", "film", "a funny film", "--json"))
    assert "no integrity errors" in typed("verify", "film")
