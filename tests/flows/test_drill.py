"""The drill: every landing version is fetched, verified, loaded and asked; and what that is worth in an outage."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from prefect import Task

from cli import main
from components.base.base_hash import hash_base
from components.errors import StoreUnavailable
from flows import drill
from flows.pages.drill_page import PARTS
from registry.artifact import adapter_folder
from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Shape
from registry.releases import drill_receipts, lifecycle, registration

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
SHAPES = {
    "tiny": Shape(layers=2, kv_heads=2, head_size=8, hidden=32, heads=4),
    "other": Shape(layers=2, kv_heads=2, head_size=16, hidden=32, heads=4),
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away is asked again at once."""
    for step in vars(drill).values():
        if isinstance(step, Task):
            monkeypatch.setattr(step, "retry_delay_seconds", 0)


@pytest.fixture
def released(project: Project, tmp_path: Path) -> Callable[..., None]:
    """``released("film", 2)``: two more versions that went into Production; nothing is trained for that."""
    seeds = itertools.count(1)

    def release(task: str, count: int, base: str = "tiny", labels: dict[str, str] | None = None) -> None:
        if not (project.root / "bases" / base).exists():
            shutil.copytree(project.root / "sources" / base, project.root / "bases" / base)
        for _ in range(count):
            seed = next(seeds)
            folder, report = tmp_path / f"adapter-{seed}", tmp_path / f"gate-{seed}.json"
            own = None if task == "story" else labels or {"neg": "neg", "pos": "pos"}
            made = _draft(task, seed, hash_base(project.root / "bases" / base), base, own)
            values = np.random.default_rng(seed).standard_normal(made.tensor_shape).astype(np.float32)
            adapter_folder.write(folder, values, made)
            report.write_text(json.dumps({"passed": True, "champion": seed - 1 or None}))
            run = project.store.start_run(task, f"run-{seed}", {}, {})
            number = registration.register(project.store, folder, run, report, "0" * 32).number
            lifecycle.promote(project.store, task, number, reason="test", base_hash=made.base.hash, override=True)

    return release


def _draft(task: str, seed: int, base: Any, name: str, labels: dict[str, str] | None) -> Draft:
    return Draft(
        task=task,
        method="prompt",
        kind="classification" if labels else "generation",
        virtual_tokens=2,
        shape=SHAPES[name],
        base=BasePin(name=name, hash=base.value, weights=base.weights, config=base.config, tokenizer=base.tokenizer),
        data=DataPin(hash="d" * 64, lock={}),
        fingerprint=hashlib.sha256(f"{task} {seed}".encode()).hexdigest(),
        recipe=None,
        machine=None,
        seed=seed,
        params={},
        template="{text}",
        labels=labels,
        label_order=list(labels) if labels else None,
        max_tokens=16,
        max_new_tokens=2,
        metrics={"accuracy": 0.75, "chrf": 30.0},
        code=CodePin(version="0.1.0", git_commit=""),
        libraries={},
        created="2026-11-23T20:00:00+00:00",
    )


def damage(project: Project, number: int, task: str = "film") -> None:
    """Flip a byte of a version's weights where MLflow keeps them."""
    from mlflow import MlflowClient

    uri = MlflowClient().get_model_version_download_uri(task, str(number))
    weights = Path(uri.removeprefix("file://")) / "artifacts" / "adapter" / adapter_folder.WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)


@pytest.fixture
def call(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command in this process, at the project's root."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PREFECT_HOME", str(project.root / ".preface" / "prefect"))

    @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def edge(arguments: tuple[str, ...]) -> None:
        main.main(list(arguments))

    return lambda *arguments: CliRunner().invoke(edge, list(arguments))


class TestEachTask:
    def test_what_a_rollback_lands_on_is_asked_and_gets_a_receipt(self, project: Project, released: Any) -> None:
        released("film", 2)

        [done] = drill.run(project.root, ["film"], 8)

        assert (done.task, done.version, done.result, done.rows, done.fault) == ("film", 1, "answers", 8, "")
        assert (done.metric, done.registered) == ("accuracy", 0.75)
        assert done.score * 8 == int(done.score * 8)
        assert tuple(done.seconds) == PARTS
        assert done.note == ""
        landed, live = project.store.versions("film")
        receipt = drill_receipts.find(landed)
        assert (receipt.digest, receipt.base_hash) == (landed.tag("manifest_digest"), landed.tag("base_hash"))
        assert (receipt.metric, receipt.score, receipt.rows, receipt.seconds) == (
            "accuracy", done.score, 8, done.seconds,
        )  # fmt: skip
        assert drill_receipts.valid_receipt(landed)[1] == ""
        assert drill_receipts.find(live) is None
        assert [version.stage for version in project.store.versions("film")] == ["Archived", "Production"]

    def test_a_task_of_free_text_is_scored_by_its_own_metric(self, project: Project, released: Any) -> None:
        released("story", 2)

        [done] = drill.run(project.root, None, 2)

        assert (done.task, done.metric, done.rows, done.fault) == ("story", "chrf", 2, "")

    def test_a_base_is_loaded_once_for_all_its_tasks(
        self, project: Project, released: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from components.base import base_model

        project.change("tasks.third", {**_task(project, "film"), "base": "tiny"})
        for task in ("film", "story", "third"):
            released(task, 2, base="other" if task == "story" else "tiny")
        loaded, real = [], base_model.load
        monkeypatch.setattr(base_model, "load", lambda *asked: loaded.append(asked[0].name) or real(*asked))

        done = drill.run(project.root)

        assert {each.name: each.fault for each in done} == {"film@1": "", "story@1": "", "third@1": ""}
        assert sorted(loaded) == ["other", "tiny"]

    def test_where_the_rows_are_not_prepared_it_answers_fixed_texts(self, project: Project, released: Any) -> None:
        released("film", 2)
        shutil.rmtree(project.root / "data" / "prepared" / "film")

        [done] = drill.run(project.root, ["film"])

        assert (done.metric, done.score, done.fault) == ("answered", 1.0, "")
        assert "preface prepare film" in done.note

    def test_rows_of_other_labels_are_not_scored(self, project: Project, released: Any) -> None:
        released("film", 2, labels={"bad": "bad", "good": "good"})

        [done] = drill.run(project.root, ["film"])

        assert done.metric == "answered"
        assert "labels ['neg', 'pos'], it answers ['bad', 'good']" in done.note

    def test_a_landing_version_on_another_base_says_that_a_rollback_wants_override(
        self, project: Project, released: Any
    ) -> None:
        released("film", 1, base="other")
        released("film", 1)

        [done] = drill.run(project.root, ["film"])

        assert done.fault == ""
        assert "would want --override" in done.note
        assert project.base_hash() in done.note

    def test_nothing_to_roll_back_to_is_told_and_no_failure(self, project: Project, released: Any) -> None:
        released("film", 1)

        [done] = drill.run(project.root)

        assert (done.version, done.result, done.fault) == (None, "nothing to roll back to", "")
        assert "film@1 has no good version before it" in done.note


class TestFailures:
    def test_damaged_bytes_are_told_leave_no_receipt_and_stop_no_other(
        self, project: Project, released: Any, call: Callable[..., Any]
    ) -> None:
        released("film", 2)
        released("story", 2)
        damage(project, 1)

        said = call("drill", "--rows", "2")

        assert said.exit_code == 1
        assert "FAILED" in said.stdout
        assert "error: 1 of 2 landing versions FAILED the drill" in said.stderr
        assert "film@1: " in said.stderr
        assert "sha256" in said.stderr
        assert drill_receipts.find(project.store.version("film", 1)) is None
        assert drill_receipts.find(project.store.version("story", 1)) is not None

    def test_the_run_of_a_failed_drill_is_failed_under_its_own_name(self, project: Project, released: Any) -> None:
        released("film", 2)
        damage(project, 1)

        state = drill.drill(str(project.root), ["film"], 2, return_state=True)

        assert (state.is_failed(), state.name, state.message) == (True, "DrillFailed", "FAILED: film@1")

    def test_a_base_that_is_not_here(self, project: Project, released: Any) -> None:
        released("film", 2)
        shutil.rmtree(project.root / "bases" / "tiny")

        [done] = drill.run(project.root, ["film"])

        assert done.result == "FAILED"
        assert "no base model at" in done.fault

    def test_what_nobody_foresaw_stops_no_other(
        self, project: Project, released: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released("film", 2)
        released("story", 2)
        monkeypatch.setattr("components.prefix.inference.classify", lambda *_: 1 / 0)

        done = {each.task: each for each in drill.run(project.root, None, 2)}

        assert "ZeroDivisionError" in done["film"].fault
        assert done["story"].fault == ""

    def test_scores_that_are_no_numbers(self, project: Project, released: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        released("film", 2)
        nan = {"neg": float("nan"), "pos": 0.0}
        monkeypatch.setattr("components.prefix.inference.classify", lambda *asked: [nan for _ in asked[3]])

        [done] = drill.run(project.root, ["film"], 3)

        assert "scores labels with nan (3 of 6 scores)" in done.fault

    def test_an_outage_that_passes_is_no_failure(
        self, project: Project, released: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from registry.mlflow.store import Store

        released("film", 2)
        real, asked = Store.download, []

        def late(store: Store, version: Any) -> Path:
            asked.append(version)
            if len(asked) == 1:
                raise StoreUnavailable("it does not answer (planted)")
            return real(store, version)

        monkeypatch.setattr(Store, "download", late)

        [done] = drill.run(project.root, ["film"], 2)

        assert (done.fault, len(asked)) == ("", 2)


class TestCommand:
    def test_the_table_and_the_page(self, project: Project, released: Any, call: Callable[..., Any]) -> None:
        released("film", 2)
        released("story", 1)

        said = call("drill", "--rows", "4")

        assert said.exit_code == 0, said.output
        head, _, *lines = said.stdout.splitlines()
        assert [part for part in PARTS if f"{part} s" not in head] == []
        assert any("film" in line and "answers" in line and "of 4 rows" in line for line in lines)
        assert "nothing to roll back to" in said.stdout
        page = project.prefect_artifacts("drill")["drill"]
        assert [(row["task"], row["lands on"]) for row in json.loads(page.data)] == [("story", None), ("film", 1)]

    def test_for_programs(self, project: Project, released: Any, call: Callable[..., Any]) -> None:
        released("film", 2)

        [done] = json.loads(call("drill", "film", "--rows", "2", "--json").stdout)

        assert (done["task"], done["version"], done["rows"], done["fault"]) == ("film", 1, 2, "")

    def test_an_unknown_task_is_told_before_anything(self, project: Project, released: Any, call: Any) -> None:
        released("film", 1)

        said = call("drill", "flim")

        assert (said.exit_code, said.stdout) == (1, "")
        assert "the registry has no task 'flim'; it has ['film']" in said.stderr

    def test_an_empty_registry(self, call: Callable[..., Any]) -> None:
        said = call("drill")

        assert (said.exit_code, said.stdout) == (0, "the registry has no task\n")


class TestArtifactStoreAway:
    """On S3, whose server is then not there any more."""

    @pytest.fixture
    def away(
        self, bucket: Any, project: Project, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
    ) -> Iterator[Callable[[], None]]:
        monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://reviews/mlflow")
        for name, value in {"AWS_MAX_ATTEMPTS": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}.items():
            monkeypatch.setenv(name, value)
        gone = f"http://127.0.0.1:{free_port()}"

        def go() -> None:
            monkeypatch.setenv("AWS_ENDPOINT_URL", gone)
            monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", gone)

        return go

    def test_a_rollback_rests_on_the_drill_if_somebody_overrides(
        self, project: Project, released: Any, call: Callable[..., Any], away: Callable[[], None]
    ) -> None:
        released("film", 2)
        assert call("drill", "--rows", "2").exit_code == 0
        away()

        refused = call("rollback", "film", "--reason", "complaints")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "vouches for it: --override rests on that" in refused.stderr

        landed = call("rollback", "film", "--reason", "complaints", "--override")
        assert landed.exit_code == 0, landed.stderr
        assert "film@1 is in Production, in place of version 2" in landed.stdout
        assert "OVERRIDDEN: the artifact store did not answer; this rests on the drill of" in landed.stdout
        assert "OVERRIDDEN" in call("history", "film").stdout

    def test_without_a_drill_nothing_helps(
        self, project: Project, released: Any, call: Callable[..., Any], away: Callable[[], None]
    ) -> None:
        released("film", 2)
        away()

        said = call("rollback", "film", "--reason", "complaints", "--override")

        assert said.exit_code == 1
        assert "no drill vouches for film@1" in said.stderr


def _task(project: Project, name: str) -> Any:
    return yaml.safe_load((project.root / "params.yaml").read_text(encoding="utf-8"))["tasks"][name]
