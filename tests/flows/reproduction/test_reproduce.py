"""A version trained again from what the registry says of it: the same bits, or why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cli.commands import audit
from components.errors import ArtifactError, BaseError, DataError, PrefaceError
from components.provenance.fingerprint import RECIPE
from components.training import adapter_training, loop
from flows.reproduction import reproduce
from flows.reproduction.result import Fact, Metric, Reproduction
from flows.run import candidate
from registry.artifact import adapter_folder
from registry.releases import checks

Project = Any  # of conftest.py
pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def trained(
    open_project: Callable[[Path], AbstractContextManager[Project]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project with a version of each method, and of each kind of task; whoever changes something puts it back."""
    with open_project(tmp_path_factory.mktemp("reproduce")) as project:
        project.retrain(method="prefix")
        project.retrain(method="prompt")
        project.retrain("story")
        params = project.root / "params.yaml"
        before = params.read_text(encoding="utf-8")
        # A soft prompt that starts from the labels one by one, in an order that is not the alphabet's.
        project.change("tasks.film.data.labels", ["pos", "neg"])
        project.change("tasks.film.prompt", {"virtual_tokens": 4, "init": "labels", "training": {"steps": 5}})
        project.retrain(method="prompt")
        params.write_text(before, encoding="utf-8")
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

        def changed(*args: Any) -> adapter_folder.Adapter:
            found = real(*args)
            return adapter_folder.Adapter(found.manifest.model_copy(update=fields), found.tensor)

        monkeypatch.setattr(checks, "verify", changed)

    return change


@pytest.mark.parametrize("address", ["film@1", "film@2", "film@3", "story@1"])
def test_the_same_adapter_comes_out_bit_by_bit(trained: Project, address: str) -> None:
    versions = trained.store.versions("film")
    before = {path for path in (trained.root / ".preface").rglob("*") if "mlflow" not in path.name}

    found = reproduce.run(trained.root, address)

    assert (found.identical, found.promised, found.holds) == (True, True, True)
    assert found.differences == []
    assert "identical bit by bit" in found.message
    assert trained.store.versions("film") == versions
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
        with pytest.raises(DataError, match=r"rows of film@1 cannot be trusted .* delete the cache"):
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

    with pytest.raises(PrefaceError, match=rf"recipe 7, this code's is {RECIPE} .* out git commit [0-9a-f]{{40}}"):
        reproduce.run(trained.root, "film@1")


def test_what_was_trained_elsewhere_cannot_be_trained_again(trained: Project, says: Any) -> None:
    says(recipe=None, machine=None)

    with pytest.raises(ArtifactError, match="was not trained by Preface"):
        reproduce.run(trained.root, "film@1")


def test_a_manifest_that_leaves_something_out_is_refused(trained: Project, says: Any) -> None:
    says(template="{text} and more\n")

    with pytest.raises(ArtifactError, match="trained from something more than its manifest says"):
        reproduce.run(trained.root, "film@1")


def test_a_damaged_adapter_is_not_trained_after(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says of itself would be believed otherwise."""
    whole = type(trained.store).download

    def download(*args: Any) -> Path:
        folder = whole(*args)
        (folder / adapter_folder.MANIFEST).write_text("{}")
        return folder

    monkeypatch.setattr(type(trained.store), "download", download)
    with pytest.raises(ArtifactError):
        reproduce.run(trained.root, "film@1")


def test_rows_of_another_content_under_the_same_name_are_refused(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole in themselves, so that only the manifest's own hash tells them apart."""

    def another(root: Path, task: str, lock: Any, to: Path) -> None:
        shutil.copytree(root / "data" / "prepared" / "story", to)

    monkeypatch.setattr("flows.dvc.by_hash.restore", another)
    with pytest.raises(DataError, match=r"film@1 was trained on rows of hash .* DVC has rows of hash .* is damaged"):
        reproduce.run(trained.root, "film@1")


def test_it_works_with_as_many_threads_as_then_and_gives_them_back(
    trained: Project, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = adapter_folder.read(trained.store.download(trained.store.version("film", 1))).manifest
    assert said.machine is not None
    before, real, seen = torch.get_num_threads(), adapter_training.train_adapter, []

    def train(*args: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(*args, **options)

    monkeypatch.setattr(adapter_training, "train_adapter", train)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for threads in (2, 3):
        says(machine=said.machine.model_copy(update={"threads": threads}))
        found = reproduce.run(trained.root, "film@1")
        assert [fact.name for fact in found.differences] == ([] if threads == 2 else ["threads"])

    assert seen == [2, before]
    assert torch.get_num_threads() == before


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


@pytest.mark.parametrize("number", [1, 2])
def test_code_that_trains_otherwise_under_one_recipe_is_found_out(
    trained: Project, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A learning rate that is a millionth larger, in one step of twenty."""
    real = loop.learning_rate

    def rate(step: int, settings: Any) -> float:
        return real(step, settings) * (1 + 1e-6 if step == 5 else 1)

    monkeypatch.setattr(loop, "learning_rate", rate)

    found = reproduce.run(trained.root, f"film@{number}")

    assert (found.identical, found.holds) == (False, False)
    assert found.largest > 0
    assert "RECIPE was not raised" in found.message


@pytest.mark.parametrize("circumstance", ["library", "threads", "processor"])
def test_under_other_circumstances_it_is_judged_by_its_scores(
    trained: Project, trains_otherwise: Any, says: Any, circumstance: str
) -> None:
    said = adapter_folder.read(trained.store.download(trained.store.version("film", 1))).manifest
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


def test_a_library_that_only_scores_excuses_no_other_adapter(
    trained: Project, trains_otherwise: Any, says: Any
) -> None:
    said = adapter_folder.read(trained.store.download(trained.store.version("film", 1))).manifest
    says(libraries=said.libraries | {candidate.SCORING[0]: "0.0"})
    trains_otherwise(1e-6)

    found = reproduce.run(trained.root, "film@1")

    assert [fact.name for fact in found.differences] == [candidate.SCORING[0]]
    assert not found.holds


def test_on_a_gpu_nothing_is_promised_to_the_bit() -> None:
    """Its sums come in no fixed order. Tried on a record, for want of a GPU."""
    facts = [Fact(name="device", then="cuda", now="cuda", shapes=True)]
    found = Reproduction(
        address="film@1", method="prefix", identical=False, largest=0.1, facts=facts, test_rows=9, commits=("", ""),
        metrics=[Metric(name="accuracy", then=0.9, now=0.91, tolerance=0.02)],
    )  # fmt: skip
    assert (found.promised, found.holds) == (False, True)
    assert "on a GPU" in found.message


def test_a_worse_adapter_of_a_generation_task_is_told_by_its_texts(trained: Project, trains_otherwise: Any) -> None:
    trains_otherwise(1.0)

    found = reproduce.run(trained.root, "story@1")

    assert not found.holds
    assert {metric.name for metric in found.metrics} == {"exact_match", "chrf", "rouge_l"}


def test_scores_that_chance_does_not_explain_are_a_failure(trained: Project, trains_otherwise: Any, says: Any) -> None:
    said = adapter_folder.read(trained.store.download(trained.store.version("film", 1))).manifest
    assert said.machine is not None
    says(machine=said.machine.model_copy(update={"processor": "an abacus"}), metrics={"accuracy": 0.01})
    trains_otherwise(1e-6)

    assert not reproduce.run(trained.root, "film@1").holds


def test_the_command_says_so_and_exits_accordingly(
    trained: Project, trains_otherwise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.root)

    good = CliRunner().invoke(audit.reproduce, ["film@1"])
    trains_otherwise(1e-6)
    bad = CliRunner().invoke(audit.reproduce, ["film@1", "--json"])

    assert (good.exit_code, "film@1 trained again is identical bit by bit" in good.stdout) == (0, True)
    assert isinstance(bad.exception, PrefaceError)
    assert json.loads(bad.stdout)["holds"] is False
