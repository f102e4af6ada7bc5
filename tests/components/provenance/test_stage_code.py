"""A stage's digest follows every file of ours that the stage may run, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import stage
from components.provenance import stage_code

FILES = {
    "components/__init__.py": "",
    "components/a.py": "from components import b\ndef f():\n    import components.methods.c\n",
    "components/b.py": "import json\n",
    "components/methods/__init__.py": "",
    "components/methods/c.py": "from components.a import f\n",
    "components/d.py": "x = 1\n",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_closure_follows_imports_inside_functions_and_packages(home: Path) -> None:
    assert stage_code.closure(home, "components.a").keys() == FILES.keys() - {"components/d.py"}


def test_what_a_library_holds_does_not_count(home: Path) -> None:
    (home / "json.py").write_text("from components import d\n", encoding="utf-8")

    assert "json.py" not in stage_code.closure(home, "components.a")


@pytest.mark.parametrize("name", stage.MODULES)
def test_each_stage_has_the_code_that_it_runs(name: str) -> None:
    names = stage_code.closure(Path(stage_code.__file__).parents[2], stage.MODULES[name]).keys()

    assert {"components/__init__.py", "components/config/params.py", "components/errors.py"} <= names
    assert "components/training/loop.py" not in names, "what is not run by it re-runs nothing"
    assert ("components/rows/tables/table_rows.py" in names) == (name == "prepare")
    assert len(stage_code.digest(name)) == 32


def test_the_stages_are_those_of_dvc_yaml() -> None:
    text = (Path(stage_code.__file__).parents[2] / "dvc.yaml").read_text(encoding="utf-8")

    assert [f"cmd: python -P -m components.stage {name} ${{key}}" in text for name in stage.MODULES] == [True] * 3
