"""A stranger's project: this project's pipeline, their task in params.yaml, and commands typed in its root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases.case import Case

ROOT = Path(__file__).parents[2]
INPUTS = Path(__file__).parent / "inputs"
PIPELINE = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config")


def _plain_environment(home: Path) -> dict[str, str]:
    """What a new user's shell has, our code first on the path of whatever Python starts."""
    gone = ("PREFECT_", "MLFLOW_", "AWS_", "HF_", "DVC_", "PREFACE_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
    own = {"DVC_SITE_CACHE_DIR": str(home / "dvc-site"), "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global")}
    python = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | own | {"PYTHONPATH": str(ROOT), "PATH": python, "HOME": str(home), "COLUMNS": "200"}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all inputs, each case's reviews.csv in its place and the tiny base made."""
    copy = tmp_path_factory.mktemp("inputs") / "cases"
    shutil.copytree(INPUTS, copy)
    for task in copy.glob("*/task.yaml"):
        if not (task.parent / "reviews.csv").exists():
            shutil.copy(copy / "reviews.csv", task.parent)
    _make(copy / "tiny.py")
    return copy


def _make(script: Path) -> None:
    environment = os.environ | {"PREFACE_PROJECT": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=script.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def case(inputs: Path, tmp_path: Path) -> Callable[..., Case]:
    """Open a case by its number: ``case("05")``; ``root`` names the project's folder, ``port`` is written for 8765."""

    def opened(number: str, root: str = "project", port: int | None = None) -> Case:
        folder = next(inputs.glob(f"{number}-*"))
        if (folder / "make.py").exists() and not (folder / "made").exists():
            _make(folder / "make.py")
            (folder / "made").touch()
        project = tmp_path / root
        project.mkdir(parents=True)
        for name in PIPELINE:
            (project / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, project / name)
        lines = ["bases:", *_indented(inputs / "tiny.bases.yaml", inputs), *_indented(folder / "bases.yaml", inputs)]
        text = "\n".join([*lines, "tasks:", *_indented(folder / "task.yaml", inputs)]) + "\n"
        (project / "params.yaml").write_text(text.replace(":8765/", f":{port}/"), encoding="utf-8")
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        environment = _plain_environment(home)
        for command in (["init", "--quiet"], ["add", "."]):
            subprocess.run(["git", *command], cwd=project, env=environment, check=True)
        return Case(folder, project, environment)

    return opened


def _indented(file: Path, inputs: Path) -> list[str]:
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8").replace("@CASES@", str(inputs))
    return [f"  {line}" if line.strip() else line for line in text.splitlines()]
