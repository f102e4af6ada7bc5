"""The wheel that goes with a registered model: installed without any index, it is all of our code that is needed."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.artifact import wheel

CLOSURE = """
import sys
before = set(sys.modules)
import registry.mlflow.pyfunc_model, components.base.base_model, components.prefix.inference, components.data.template
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before if not name.startswith("_")}))
print(registry.mlflow.pyfunc_model.__file__)
"""


def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    first = wheel.write(tmp_path / "a")
    time.sleep(1.1)

    assert wheel.write(tmp_path / "b").read_bytes() == first.read_bytes()


def test_the_requirements_are_pinned_to_what_is_installed() -> None:
    said = dict(line.split("==") for line in wheel.requirements())

    assert said["transformers"] == importlib.metadata.version("transformers")
    assert "+" not in said["torch"]
    assert not any(name.startswith("preface") for name in said)


def test_the_requirements_name_all_that_our_code_imports_when_it_is_loaded() -> None:
    imported, todo = (
        set(),
        [
            "registry.mlflow.pyfunc_model",
            "components.base.base_model",
            "components.prefix.inference",
            "components.data.template",
        ],
    )
    seen = set()
    while todo:
        name = todo.pop()
        file = Path(wheel.__file__).parents[2] / f"{name.replace('.', '/')}.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        for node in ast.parse(file.read_text()).body:
            for part in [node, *(node.body if isinstance(node, ast.With) else [])]:
                if isinstance(part, ast.Import):
                    imported |= {alias.name for alias in part.names}
                elif isinstance(part, ast.ImportFrom) and part.module:
                    imported |= {part.module, *(f"{part.module}.{alias.name}" for alias in part.names)}
        todo += [name for name in imported if name.startswith(wheel.PACKAGES)]

    outside = {name.partition(".")[0] for name in imported} - {*wheel.PACKAGES} - sys.stdlib_module_names
    assert {"pyyaml" if name == "yaml" else name for name in outside} <= set(wheel.NEEDED)


@pytest.mark.flow
def test_what_a_model_requires_can_be_installed_from_the_model_alone(
    tmp_path: Path, write_adapter: Callable[..., Path]
) -> None:
    from registry.mlflow import pyfunc_model

    pyfunc_model.pack(write_adapter(tmp_path / "adapter"), tmp_path / "model")
    lines = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    [ours] = [line for line in lines if "preface" in line]
    (tmp_path / "ours.txt").write_text(ours + "\n")

    pip: list[Any] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    target = tmp_path / "elsewhere"
    subprocess.run(
        [*pip, "--target", target, "-r", tmp_path / "ours.txt"], cwd=tmp_path / "model", check=True, timeout=120
    )

    found = subprocess.run(
        [sys.executable, "-c", CLOSURE],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(target), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    ).stdout
    assert str(target) in found
    assert [line for line in lines if line.startswith("preface")] == []
    assert {line.partition("==")[0] for line in lines} >= {"torch", "transformers", "safetensors", "mlflow"}
    said = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())["metadata"]
    packed = (tmp_path / "model" / "wheels" / said["wheel"]).read_bytes()
    assert hashlib.sha256(packed).hexdigest() == said["wheel_sha256"]
    assert not any(name in found for name in ("'prefect'", "'dvc'", "'flows'"))
