"""A registered version judged again: by today's rows, rules and champion, in its own wording, and without training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from prefect.client.schemas.objects import StateType

from cli import main
from components.config.params import load
from components.data.prepare import read_examples
from components.errors import ArtifactError, BaseMismatch, NotFound, PromotionRefused, RegistryError
from components.evaluation.report import Report
from flows import evaluate_version
from flows.process import local_project
from flows.run import bases, contestants
from flows.run.job import Outcome
from flows.tasks import steps
from registry import queries
from registry.artifact import adapter_folder

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
ROOT = Path(__file__).parents[2]
UNREACHABLE = [{"metric": "accuracy", "direction": "higher", "threshold": 2.0}]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a step of training is a failure."""
    monkeypatch.setattr("components.training.loop.optimizer_step", lambda *_: pytest.fail("it trained"))


@pytest.fixture(scope="module")
def made(open_project: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions, to be copied. Their gates compared them with nothing; the first went into Production
    since."""
    with open_project(tmp_path_factory.mktemp("made")) as project:
        assert project.retrain().result == project.retrain(method="prompt").result == "Staged"
        project.promote(1)
        root: Path = project.root
    return root


@pytest.fixture
def two(open_project: Any, made: Path, tmp_path: Path) -> Iterator[Project]:
    """Such a project of this test alone."""
    with open_project(tmp_path, made) as project:
        yield project


def evaluate(project: Project, which: object) -> Outcome:
    return evaluate_version.run(project.root, f"film@{which}")


def stored(project: Project, number: int) -> Report:
    """The report that counts now."""
    version = project.store.version("film", number)
    file = PurePosixPath(version.gate.report).with_name("report.json")
    return Report.model_validate_json(project.store.read_file(version.run_id, str(file)))


def decision(project: Project, number: int) -> Any:
    version = project.store.version("film", number)
    return json.loads(project.store.read_file(version.run_id, version.gate.report))


def command(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """The command as somebody in the project types it."""
    monkeypatch.chdir(project.root)
    for name, value in (local_project.SWITCHES | {"PREFECT_HOME": str(project.root / ".preface" / "prefect")}).items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(main.preface, list(arguments))


def test_a_stale_report_promotes_nothing_until_the_command_that_the_refusal_names_was_run(
    two: Project, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        PromotionRefused, match="compared with nothing, in Production is version 1; `preface evalu"
    ) as e:
        two.promote(2)
    named = str(e.value).split("`")[1].split()
    earlier = two.store.version("film", 2)

    said = command(two, monkeypatch, *named[1:])

    assert said.exit_code == 0, said.output
    assert "champion (version 1)" in said.output
    assert "version 2 passed its gate (compared with version 1 in Production), and it waits in Staging" in said.output
    assert said.output.endswith('next: preface promote film --version 2 --reason "..."\n')
    run = two.prefect_run("film@2")
    assert (run.state_type, run.state_name) == (StateType.COMPLETED, "Passed")
    shown = two.prefect_artifacts("film@2")
    assert str(shown["gate-film"].data).startswith("# film: gate passed")
    assert "champion (version 1)" in str(shown["report-film"].data)
    assert len(two.mlflow_runs()) == 2
    assert decision(two, 2)["champion"] == stored(two, 2).champion_version == 1
    kept = json.loads(two.store.read_file(earlier.run_id, earlier.gate.report))  # the earlier report
    assert kept["champion"] is None
    assert two.kept() == set()

    assert two.promote(2).stage == "Production"
    assert "no integrity errors" in command(two, monkeypatch, "verify", "film").output
    with pytest.raises(PromotionRefused, match="compared with nothing, in Production is version 2"):
        two.promote(1)


def test_a_version_that_would_not_pass_today_leaves_staging_and_is_not_promoted(
    two: Project, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.change("tasks.film.gate", UNREACHABLE)

    said = command(two, monkeypatch, "evaluate", "film@staging")

    assert isinstance(said.exception, PromotionRefused)  # which the command's edge makes one line and exit 1 of
    assert "version 2: accuracy >= 2: " in str(said.exception)
    run = two.prefect_run("film@staging")
    assert (run.state_type, run.state_name, run.run_count) == (StateType.FAILED, "GateRefused", 1)
    version = two.store.version("film", 2)
    assert (version.stage, version.aliases, version.gate.verdict) == ("None", (), "refused")
    with pytest.raises(PromotionRefused, match="no version in Staging"):
        two.promote()
    with pytest.raises(PromotionRefused, match="its gate refused it"):
        two.promote(2)


def test_it_is_asked_in_its_own_wording_whatever_params_say_now(two: Project, no_training: None) -> None:
    before = stored(two, 2).candidate.predictions
    two.change("tasks.film.template", "dull dull dull {text} funny\n")
    # Planted: what would be said if params.yaml were asked for the wording.
    settings = load(two.root / "params.yaml")
    base = bases.load(two.root / "bases" / "tiny", two.base_hash(), "tiny")
    tensor = adapter_folder.read(two.store.download(two.store.version("film", 2))).tensor
    texts = [row.text for row in read_examples(two.root / "data/prepared/film").of("test")]
    asked = contestants.in_words_of(base, settings.task("film"), "prompt", torch.from_numpy(tensor))(texts)
    assert asked != before

    assert evaluate(two, 2).result == "Passed"

    assert stored(two, 2).candidate.predictions == before
    champion = stored(two, 2).champion
    assert champion is not None
    assert champion.predictions == two.report(1).candidate.predictions


def test_today_s_rows_are_the_ones_that_are_asked(two: Project, no_training: None) -> None:
    before = stored(two, 2)
    with (two.root / "film.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"text {n} funny,pos\n" for n in range(200, 240))

    assert evaluate(two, 2).result == "Passed"

    assert len(stored(two, 2).row_ids) > len(before.row_ids)
    assert stored(two, 2).data_hash != before.data_hash


def test_what_is_in_production_is_compared_with_nothing_and_says_so(two: Project, no_training: None) -> None:
    outcome = evaluate(two, "production")

    assert (outcome.result, outcome.version) == ("Passed", 1)
    assert outcome.message == "version 1 passed its gate (version 1 is itself in Production)"
    said = {check["outcome"]: check["reason"] for check in decision(two, 1)["checks"]}
    assert said["no champion"] == "version 1 is itself in Production"

    two.change("tasks.film.gate", UNREACHABLE)
    outcome = evaluate(two, 1)
    assert outcome.refused
    assert "it stays in Production until somebody rolls it back" in outcome.message
    assert not queries.status(two.store, "film").alarms
    assert queries.current(two.store, "film", "Production").number == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from registry.mlflow.store import Store
from registry.releases import registration
store = Store()
# The report is in the store already; nothing else was written.
Store.tag_version = Store.tag_task = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
registration.judge_again(store, store.version("film", 2), Path(sys.argv[1]), [])
"""


@pytest.mark.slow
def test_killed_after_the_report_was_stored_the_old_verdict_counts(two: Project, tmp_path: Path) -> None:
    before = two.store.version("film", 2)
    refusing = tmp_path / "gate.json"
    refusing.write_text('{"passed": false, "checks": [], "champion": 1}')

    done = subprocess.run([sys.executable, "-c", KILLED, str(refusing)], env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert done.returncode == -signal.SIGKILL
    assert not queries.status(two.store, "film").alarms
    after = two.store.version("film", 2)
    assert (after.gate, after.stage) == (before.gate, "Staging")
    assert evaluate(two, 2).result == "Passed"
    assert two.promote(2).stage == "Production"


@pytest.fixture(scope="class")
def shared(open_project: Any, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The same for a class of tests that leaves it as it was."""
    with open_project(tmp_path_factory.mktemp("two"), made) as project:
        yield project


class TestRefusals:
    """What cannot be evaluated is told with what to do, and its verdict stays what it was."""

    @pytest.fixture
    def same(self, shared: Project) -> Iterator[Project]:
        """Its files are put back, its registry must not have moved."""
        files = [shared.root / name for name in ("params.yaml", "film.csv")]
        before, contents = shared.store.versions("film"), [file.read_bytes() for file in files]
        yield shared
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        assert shared.store.versions("film") == before
        assert not queries.status(shared.store, "film").alarms

    def test_a_version_of_another_base(self, same: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        own = same.base_hash()
        same.change("tasks.film.base", "other")
        monkeypatch.setattr("flows.dvc.repro.prepare", lambda *_: pytest.fail("it prepared data first"))

        with pytest.raises(BaseMismatch, match=r"name its base for film in params\.yaml") as caught:
            evaluate(same, 2)

        assert own in str(caught.value)
        assert same.base_hash() in str(caught.value)

    def test_a_version_of_other_labels(self, same: Project) -> None:
        with (same.root / "film.csv").open("a", encoding="utf-8") as file:
            file.writelines(f"text {n} plain,mid\n" for n in range(200, 260))
        same.change("tasks.film.data.labels", ["neg", "pos", "mid"])

        with pytest.raises(RegistryError, match=r"labels \['neg', 'pos'\], params\.yaml has \['mid', 'neg', 'pos'\]"):
            evaluate(same, 2)

    def test_bytes_that_are_not_the_registered_ones(self, same: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = same.store.version("film", 1), same.store.version("film", 2)
        real = type(same.store).download
        monkeypatch.setattr(type(same.store), "download", lambda store, _: real(store, first))

        with pytest.raises(ArtifactError, match=f"registered was film {second.tag('manifest_digest')}"):
            evaluate(same, 2)

    def test_bytes_that_were_exchanged_on_the_way(self, same: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        real = steps.repro.prepare

        def exchanging(*arguments: Any) -> Any:
            folder = same.root / ".preface" / "runs" / "evaluate-film@2" / "adapter"
            first = same.store.download(same.store.version("film", 1))
            for file in first.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            return real(*arguments)

        monkeypatch.setattr("flows.dvc.repro.prepare", exchanging)
        with pytest.raises(ArtifactError, match=r"film@2 is registered as .*; run the command again"):
            evaluate(same, 2)

    @pytest.mark.parametrize(
        ("address", "error"), [("film@9", NotFound), ("film", RegistryError), ("film@best", RegistryError)]
    )
    def test_what_is_no_version(self, same: Project, address: str, error: type[Exception]) -> None:
        with pytest.raises(error):
            evaluate_version.run(same.root, address)
