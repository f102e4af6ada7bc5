"""The image, built and lived in: doctor, retrain, predict and verify of a tiny task as its own user.

Where root, debootstrap and buildah are there; both are Debian's packages. The base image is a Debian with Python, made
by debootstrap under the name that the Dockerfile asks for, so that no registry of images is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from components.base.base_hash import hash_base

ROOT = Path(__file__).parent.parent
TOOLS = ("debootstrap", "buildah")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs {', '.join(MISSING)} (apt-get install {' '.join(TOOLS)}, as root)"
    ),
]
PYTHON = "docker.io/library/python:3.11-slim"
PACKAGES = "ca-certificates,netbase,tzdata,python3-venv,python-is-python3"


class Store:
    """Images and containers in a folder of this test's own. A chroot isolates them: a container allows no more."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]

    def buildah(self, *arguments: str) -> str:
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        command = ["buildah", *self._options, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    yield Store(folder)
    shutil.rmtree(folder)


def _pip_mounts(folder: Path) -> list[str]:
    """How pip reaches its index on this machine, for the build alone: its settings as one file, and what they name."""
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = dict(re.findall(r"(?m)^[^=]*\.([\w-]+)='(.*)'$", listed))
    lines = [f"{key} = {' '.join(value.split())}" for key, value in settings.items()]
    file = folder / "pip.conf"
    file.write_text("\n".join(["[global]", *lines]) + "\n", encoding="utf-8")
    places = [Path(word.removeprefix("file://")) for value in settings.values() for word in value.split()]
    named = {place if place.is_dir() else place.parent for place in places if place.is_absolute() and place.exists()}
    # An index of files keeps them beside its pages.
    named = {place.parent if place.name == "simple" else place for place in named}
    mounts = [(file, Path("/etc/pip.conf")), *((place, place) for place in sorted(named))]
    return [f"--volume={here}:{there}:ro" for here, there in mounts]


@pytest.fixture(scope="module")
def image(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    room = tmp_path_factory.mktemp("root")
    system = room / "debian"
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(system)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    base = store.buildah("from", "scratch")
    store.buildah("copy", "--quiet", base, str(system), "/")
    shutil.rmtree(system)
    store.buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", base)
    store.buildah("commit", "--quiet", "--rm", base, PYTHON)

    commit = "c0ffee" + "0" * 34
    mounts = _pip_mounts(room)
    store.buildah(
        "build",
        "--pull-never",
        "--layers",
        f"--build-arg=PREFACE_GIT_COMMIT={commit}",
        *mounts,
        "--tag=preface:test",
        ".",
    )
    return "preface:test"


def test_a_tiny_task_lives_in_it(
    store: Store, image: str, tiny_base_folder: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_base_folder("llama"), tmp_path / "tiny")
    rows = "".join(f"text {n} {('dull', 'funny')[n % 2]},{('neg', 'pos')[n % 2]}\n" for n in range(120))
    (tmp_path / "film.csv").write_text(f"text,target\n{rows}", encoding="utf-8")
    training = {"steps": 10, "batch_size": 8, "learning_rate": 0.05, "evaluate_every": 5}
    task = {
        "base": "tiny",
        "data": {"source": "given/film.csv", "format": "csv", "labels": ["neg", "pos"], "max_tokens": 16},
        "instruction": "Say whether the film is dull or funny.",
        "template": "{text} =",
        "method": "prefix",
        "prefix": {"virtual_tokens": 4, "training": training},
        "promotion": "auto",
        "baselines": {"hard_prompts": ["Say it.\n"], "in_context": [2]},
        "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.0}],
    }
    base = {"source": "given/tiny", "hash": hash_base(tmp_path / "tiny").value}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"bases": {"tiny": base}, "tasks": {"film": task}}))
    container = store.buildah("from", "--pull-never", image)
    owner = "--chown=preface:preface"
    store.buildah("copy", "--quiet", owner, container, str(tmp_path / "params.yaml"), "/app/params.yaml")
    for name in ("tiny", "film.csv"):
        to = f"/app/given/{name}"
        store.buildah("copy", "--quiet", owner, container, str(tmp_path / name), to)

    def preface(*arguments: str) -> str:
        return store.buildah("run", container, "--", "preface", *arguments)

    assert store.buildah("run", container, "--", "id", "--user", "--name") == "preface"
    assert "fail" not in preface("doctor")
    preface("retrain", "film")
    assert {"neg", "pos"} & set(preface("predict", "film", "text 3 funny").split())
    preface("verify", "--all")
    assert "c0ffee" in preface("show", "film@production")


def test_what_running_does_not_need_is_not_in_it(store: Store, image: str) -> None:
    container = store.buildah("from", "--pull-never", image)
    inside = "cd /app/.venv/lib/python3.11/site-packages && ls -d {} 2>/dev/null || true"
    assert store.buildah("run", container, "--", "sh", "-c", inside.format("moto cfnlint pytest mypy")) == ""
    compiled = "find /app/.venv -name '*.pyc' -printf '%s\\n' | awk '{ all += $1 } END { print int(all / 1048576) }'"
    assert 0 < int(store.buildah("run", container, "--", "sh", "-c", compiled)) < 200


def test_a_change_of_params_yaml_makes_small_layers_anew(store: Store, image: str, tmp_path: Path) -> None:
    """The environment's layer stands in front of whatever holds the code."""
    history = store.buildah(
        "inspect", "--format", "{{range .OCIv1.History}}{{.CreatedBy}}\n{{end}}", image
    ).splitlines()
    places = {
        name: place
        for place, line in enumerate(history)
        for name in ("/app/.venv", " . ")
        if name in line and "COPY" in line
    }
    assert places["/app/.venv"] < places[" . "], history
