"""A version trained again from what the registry says of it: the same bits, or why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components import adapter_training
from components.errors import ArtifactError, BaseError, DataError, PrefaceError
from flows import candidate, cli_check, reproduce
from registry import artifact, checks

Project = Any  # of conftest.py
pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def trained(
    open_project: Callable[[Path], AbstractContextManager[Project]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project with a version of each method; whoever changes something puts it back."""
    with open_project(tmp_path_factory.mktemp("reproduce")) as project:
        project.retrain(method="prefix")
        project.retrain(method="prompt")
        yield project


@pytest.fixture
def away(trained: Project) -> Iterator[Callable[..., None]]:
    """``away("bases", "data/prepared")``: folders that are gone until the test ends."""
    moved: list[tuple[Path, Path]] = []

    def take(*names: str) -> None:
        for name in names:
            place, aside = trained.root / name, trained.root / f"aside-{len(moved)}"
            place.rename(aside)
            moved.append((place, aside))

    yield take
    for place, aside in reversed(moved):
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``says(recipe=7)``: the manifest of whatever is read says otherwise."""

    def change(**fields: Any) -> None:
        real = checks.verify

        def changed(*args: Any) -> artifact.Adapter:
            found = real(*args)
            return artifact.Adapter(found.manifest.model_copy(update=fields), found.tensor)

        monkeypatch.setattr(checks, "verify", changed)

    return change


@pytest.mark.parametrize("number", [1, 2])
def test_the_same_adapter_comes_out_bit_by_bit(trained: Project, number: int) -> None:
    before = {path for path in (trained.root / ".preface").rglob("*") if "mlflow" not in path.name}

    found = reproduce.run(trained.root, f"film@{number}")

    assert (found.identical, found.promised, found.holds) == (True, True, True)
    assert found.differences == []
    assert "identical bit by bit" in found.message
    assert len(trained.store.versions("film")) == 2
    assert {path for path in (trained.root / ".preface").rglob("*") if "mlflow" not in path.name} == before


def test_neither_params_nor_workspace_nor_cache_are_needed(trained: Project, away: Any) -> None:
    """The version's manifest, the base and DVC's remote are."""
    away("data/prepared", ".dvc/cache", "dvc.lock")
    text = (trained.root / "params.yaml").read_text(encoding="utf-8")
    try:
        trained.change("tasks.film.instruction", "Something else altogether.")
        trained.change("tasks.film.prefix.training.learning_rate", 0.01)
        found = reproduce.run(trained.root, "film@1")
    finally:
        (trained.root / "params.yaml").write_text(text, encoding="utf-8")

    assert found.identical


def test_rows_that_are_nowhere_are_named(trained: Project, away: Any) -> None:
    md5 = trained.store.version("film", 1).tag("dvc_md5")
    away("data/prepared", ".dvc/cache", ".preface/dvc-remote")

    with pytest.raises(DataError, match=rf"\({md5}\) cannot be had from the cache .*; the remote .*Run `dvc push`"):
        reproduce.run(trained.root, "film@1")


def test_a_damaged_object_of_the_cache_is_no_row(trained: Project, away: Any) -> None:
    md5 = trained.store.version("film", 1).tag("dvc_md5").removesuffix(".dir")
    cache = trained.root / ".dvc" / "cache" / "files" / "md5"
    listed = json.loads((cache / md5[:2] / f"{md5[2:]}.dir").read_text())
    rows = next(entry["md5"] for entry in listed if entry["relpath"].endswith(".parquet"))
    away("data/prepared", ".preface/dvc-remote")
    shutil.copytree(cache.parents[1], trained.root / "aside-cache")
    damaged = cache / rows[:2] / rows[2:]
    damaged.chmod(0o644)
    raw = bytearray(damaged.read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged.write_bytes(raw)
    try:
        with pytest.raises(DataError):
            reproduce.run(trained.root, "film@1")
    finally:
        shutil.rmtree(cache.parents[1])
        (trained.root / "aside-cache").rename(cache.parents[1])


def test_a_base_that_is_not_here_is_named(trained: Project, away: Any) -> None:
    away("bases")

    with pytest.raises(BaseError, match=rf"base tiny {trained.base_hash()}, and nothing in .* has that hash"):
        reproduce.run(trained.root, "film@1")


def test_another_recipe_is_refused_with_the_commit(trained: Project, says: Any) -> None:
    says(recipe=7)

    with pytest.raises(PrefaceError, match=r"recipe 7, this code's is 1 .* out git commit [0-9a-f]{40}"):
        reproduce.run(trained.root, "film@1")


def test_what_was_trained_elsewhere_cannot_be_trained_again(trained: Project, says: Any) -> None:
    says(recipe=None, machine=None)

    with pytest.raises(ArtifactError, match="was not trained by Preface"):
        reproduce.run(trained.root, "film@1")


def test_a_manifest_that_leaves_something_out_is_refused(trained: Project, says: Any) -> None:
    says(template="{text} and more\n")

    with pytest.raises(ArtifactError, match="trained from something more than its manifest says"):
        reproduce.run(trained.root, "film@1")


@pytest.fixture
def trains_otherwise(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``trains_otherwise(1e-6)``: every value comes out so much larger, as another processor might round."""

    def by(much: float) -> None:
        real = adapter_training.train_adapter

        def train(*args: Any, **options: Any) -> Any:
            made = real(*args, **options)
            made.table.add_(much)
            return made

        monkeypatch.setattr(adapter_training, "train_adapter", train)

    return by


def test_another_adapter_under_the_same_circumstances_is_a_failure(trained: Project, trains_otherwise: Any) -> None:
    trains_otherwise(1e-6)

    found = reproduce.run(trained.root, "film@1")

    assert (found.identical, found.promised, found.holds) == (False, True, False)
    assert "NOT identical" in found.message
    assert all(metric.within for metric in found.metrics)


@pytest.mark.parametrize("circumstance", ["library", "threads", "processor"])
def test_under_other_circumstances_it_is_judged_by_its_scores(
    trained: Project, trains_otherwise: Any, says: Any, circumstance: str
) -> None:
    said = artifact.read(trained.store.download(trained.store.version("film", 1))).manifest
    assert said.machine is not None
    planted: dict[str, dict[str, Any]] = {
        "library": {"libraries": said.libraries | {candidate.SHAPING[0]: "0.0"}},
        "threads": {"machine": said.machine.model_copy(update={"threads": 4096})},
        "processor": {"machine": said.machine.model_copy(update={"processor": "an abacus"})},
    }
    says(**planted[circumstance])
    trains_otherwise(1e-6)

    found = reproduce.run(trained.root, "film@1")

    assert (found.identical, found.promised, found.holds) == (False, False, True)
    assert len(found.differences) == 1
    assert "which nobody promised" in found.message


def test_scores_that_chance_does_not_explain_are_a_failure(trained: Project, trains_otherwise: Any, says: Any) -> None:
    said = artifact.read(trained.store.download(trained.store.version("film", 1))).manifest
    assert said.machine is not None
    says(machine=said.machine.model_copy(update={"processor": "an abacus"}), metrics={"accuracy": 0.01})
    trains_otherwise(1e-6)

    assert not reproduce.run(trained.root, "film@1").holds


def test_the_command_says_so_and_exits_accordingly(
    trained: Project, trains_otherwise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.root)

    good = CliRunner().invoke(cli_check.reproduce, ["film@1"])
    trains_otherwise(1e-6)
    bad = CliRunner().invoke(cli_check.reproduce, ["film@1", "--json"])

    assert (good.exit_code, "film@1 trained again is identical bit by bit" in good.stdout) == (0, True)
    assert isinstance(bad.exception, PrefaceError)
    assert json.loads(bad.stdout)["holds"] is False
