"""The rules that the house is built by: who imports whom, what importing does, and that its papers name what exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import lock
from cli.main import preface
from components.config import params

ROOT = Path(__file__).parent.parent
FOLDERS = ("cli", "flows", "registry", "components")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FLOORS = sorted({path.parent for path in FILES})
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
# Commands that must be quick start from these.
LIGHT = (
    "cli.main",
    "flows.process.local_project",
    "cli.render",
    "cli.views",
    "registry.releases.lifecycle",
    "registry.artifact.adapter_folder",
)
HEAVY = ("torch", "transformers", "mlflow", "prefect", "datasets", "boto3", "pandas", "sklearn", "dvc")
README = ROOT / "README.md"

# What libraries do when they are imported is theirs: they come first, then whatever changes is ours.
IMPORT_ALL = """
import importlib, logging, os, pathlib, sys, warnings
home, heavy, ours = pathlib.Path.home(), sys.argv[1].split(), sys.argv[2].split()
warnings.simplefilter("ignore")
more = ("prefect.flows", "prefect.workers.process", "prefect.events", "croniter")
for name in (*heavy, *more, "mlflow.pyfunc", "rich.console", "huggingface_hub", "gguf", "ruamel.yaml"):
    importlib.import_module(name)
def state():
    files = sorted(str(path) for path in home.rglob("*"))
    handlers = {name: list(logging.getLogger(name).handlers) for name in (None, *FOLDERS)}
    return {"environment": dict(os.environ), "files": files, "folder": os.getcwd(), "logging": handlers,
            "path": list(sys.path), "filters": list(warnings.filters)}
FOLDERS = ("cli", "flows", "registry", "components")
sys.modules["prefect"].flow(state)  # Prefect sets its logging up when a first flow is made
for name in ours:
    before = state()
    importlib.import_module(name)
    for what, value in state().items():
        assert value == before[what], f"importing {name} changed {what}: {before[what]} -> {value}"
"""


def _clean(tmp_path: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in an empty home, with nothing in the environment that anybody set."""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-B", "-c", code, *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_imports_run_one_way_and_each_library_has_its_owner() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_import_out_of_place_is_found_wherever_it_stands(tmp_path: Path) -> None:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = {
        "registry/releases/scored.py": "import mlflow",
        "components/rows/reader.py": "import boto3",
        "components/gates/decide.py": "import prefect",
        "components/training/losses.py": "import registry.artifact.adapter_folder",
        "components/base/machine.py": "import components.data.template",
        "registry/artifact/manifest.py": "import registry.releases.state",
        "flows/dvc/dvc_yaml.py": "import flows.tasks.steps",
    }
    for name, line in planted.items():
        file = tmp_path / name
        file.write_text(f"{file.read_text(encoding='utf-8')}\n\ndef planted() -> None:\n    {line}\n", encoding="utf-8")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "7 broken" in done.stdout, done.stdout
    for name in planted:
        assert name.removesuffix(".py").replace("/", ".") in done.stdout


@pytest.mark.flow
def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    done = _clean(tmp_path, IMPORT_ALL, " ".join(HEAVY), " ".join(MODULES))

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("module", LIGHT)
def test_what_promotion_needs_is_light(tmp_path: Path, module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.argv[1].split()) & set(sys.modules)))"
    done = _clean(tmp_path, code, " ".join(HEAVY))

    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["flows.retrain", "flows.fleet", "flows.rebase", "flows.orchestration.deployments"])
def test_a_run_that_finds_nothing_to_do_needs_no_torch(tmp_path: Path, module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = _clean(tmp_path, code)

    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize("floor", FLOORS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_floor_is_taken_in_at_a_glance_and_says_what_it_is_for(floor: Path) -> None:
    modules = [path for path in floor.glob("*.py") if path.name != "__init__.py"]
    said = (floor / "__init__.py").read_text(encoding="utf-8")

    assert len(modules) <= 14
    assert said.startswith('"""')
    assert 2 <= len(said.splitlines()) <= 5, "three lines, what it is for and what it does not know"


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_a_module_is_one_screenful_of_thoughts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 300
    assert text.startswith('"""'), "it does not say what it is"


def test_the_image_installs_as_the_makefile_does() -> None:
    install = re.compile(r"^(?:\t|RUN )\$\(?BIN\)?/(python -m pip install .*)$", re.MULTILINE)
    makefile = install.findall((ROOT / "Makefile").read_text())
    text = (ROOT / "Dockerfile").read_text()

    assert len(makefile) == 2
    assert install.findall(text) == makefile
    # The image ends the lock where the tests' part begins, and that is how `make lock` writes it.
    assert f"RUN sed -i '/^{lock.TESTS_ALONE.split(':')[0]}/,$d' requirements.lock" in text
    assert lock.TESTS_ALONE in (ROOT / "requirements.lock").read_text()


def test_a_change_of_the_code_leaves_the_layer_of_the_environment_alone() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(place for place, line in enumerate(lines) if line.startswith("FROM")) :]
    copied = [line.split()[-2:] for line in last_stage if line.startswith("COPY")]

    assert copied == [["/app/.venv", "/app/.venv"], [".", "."]]


def test_the_image_has_two_stages_no_root_and_no_local_state() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    # Folders that git ignores are a machine's own: none of them belongs into an image.
    local = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")]

    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM python:3.11-slim AS build",
        "FROM python:3.11-slim",
    ]
    assert [line for line in lines if line.startswith("USER")] == ["USER preface"]
    assert [folder for folder in local if not any(Path(folder).match(pattern) for pattern in ignored)] == []


def test_ci_runs_what_the_readme_says() -> None:
    steps = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]

    assert steps[-1] == "make test"


def test_what_the_readme_says_to_write_into_params_yaml_can_be_written_there(tmp_path: Path) -> None:
    blocks = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.M | re.S)]
    whole = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    task: dict[str, Any] = {}
    for block in blocks:
        if "bases" in block:
            whole["bases"] |= block["bases"]
            continue
        [(name, more)] = block.items() if len(block) == 1 else [("shop-reviews", block)]
        task |= more
        whole["tasks"][name] = dict(task)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        params.load(tmp_path / "params.yaml")

    assert len(blocks) >= 4
    assert len(whole["bases"]) > 1
    assert {"method", "sweep", "schedule", "promotion"} <= task.keys()


def test_the_readme_names_every_command_and_no_target_that_is_not() -> None:
    text = README.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$ |^    )make ([a-z-]+)", text, re.MULTILINE))

    assert [name for name in preface.commands if f"preface {name}" not in text] == []
    assert named - targets == set()
    assert {"demo", "test"} <= named


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


# Riddles and moods that were here once, and the plain words that stand in their place.
RIDDLES = {
    r"speaks against": "failed checks",
    r"For programs": "Output JSON",
    r"every chain holds": "no integrity errors",
    r"said nothing": "no output",
    r"\btold\(": "sanitized(",
    r"\b(Lessons|Learner|Crew|Keeper|Moved)\b": "TrainingData, AdapterTrainer, ProcessGroup, ...",
    r"^def (rescue|supersede|bring|mend|rested|concluded|undisturbed|unharmed|spare|placed|vouching)\b": "plain verbs",
}


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_words_are_plain(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert {word: plain for word, plain in RIDDLES.items() if re.search(word, text, re.M)} == {}
