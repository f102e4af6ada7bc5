"""The whole flow on real DVC, MLflow and Prefect: how a run ends, and what it leaves in the three of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.schemas.objects import Artifact, FlowRun, StateType

from components.data.prepare import read_examples
from components.errors import NotFound, PromotionRefused
from components.evaluation import report
from flows.dvc import repro
from flows.run import contestants as contest
from flows.run.job import Outcome
from flows.tasks import steps
from registry import queries
from registry.artifact import adapter_folder
from registry.audit import version_chain
from registry.audit.local_environment import LocalEnvironment
from registry.releases import state

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
STEPS = 20


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a step of training is a failure."""
    monkeypatch.setattr("components.training.loop.optimizer_step", lambda *_: pytest.fail("it trained"))


def answered(project: Project, task: str = "film") -> pd.DataFrame:
    """What MLflow's own model of the version in Production says to the test rows."""
    texts = [row.text for row in read_examples(project.root / "data/prepared" / task).of("test")]
    said: pd.DataFrame = mlflow.pyfunc.load_model(f"models:/{task}/Production").predict(pd.DataFrame({"text": texts}))
    return said


# --- a run that ends Staged -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Staged:
    """A project after its first retraining, and what Prefect had of it then."""

    project: Project
    outcome: Outcome
    run: FlowRun
    page: dict[str, Artifact]


@pytest.fixture(scope="class")
def staged(
    open_project: Callable[[Path], AbstractContextManager[Project]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Staged]:
    with open_project(tmp_path_factory.mktemp("staged")) as project:
        outcome = project.retrain()
        yield Staged(project, outcome, project.prefect_run(), project.prefect_artifacts())


class TestStaged:
    """Looked at from all sides; nothing here changes it."""

    def test_the_version_waits_in_staging_and_nothing_is_left_over(self, staged: Staged) -> None:
        assert staged.outcome == Outcome(
            task="film",
            method="prefix",
            result="Staged",
            version=1,
            message="version 1 passed its gate and waits in Staging",
        )
        [version] = staged.project.store.versions("film")
        assert (version.number, version.stage, version.aliases, version.ready) == (1, "Staging", ("staging",), True)
        assert queries.current(staged.project.store, "film", "Production") is None
        assert staged.project.kept() == set()

    def test_its_tags_lead_to_all_that_it_comes_from(self, staged: Staged) -> None:
        project = staged.project
        version, data = project.store.version("film", 1), repro.prepare(project.root, ["film"])["film"]
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project.root, text=True)
        expected = {
            "method": "prefix",
            "base_hash": project.base_hash(),
            "data_hash": data.content_hash,
            "dvc_md5": data.dvc_md5,
            "git_commit": head.strip(),
        }
        assert {name: version.tag(name) for name in expected} == expected
        assert version.gate.verdict == "passed"
        assert project.gate(1)["passed"] is True
        said = adapter_folder.read(project.store.download(version), project.base_hash()).manifest
        assert (said.fingerprint, said.data.lock) == (version.tag("fingerprint"), data.lock_entry)
        [run] = project.mlflow_runs()
        assert run.info.run_id == version.run_id
        assert run.data.tags["preface.fingerprint"] == said.fingerprint
        assert project.gate(1)["passed"] is True
        assert project.report(1).data_hash == data.content_hash

    def test_every_link_of_its_chain_holds(self, staged: Staged) -> None:
        root, store = staged.project.root, staged.project.store
        base = staged.project.base_hash()

        links = version_chain.links(
            store, store.version("film", 1), state.read(store, "film"), LocalEnvironment(root, {"tiny": base})
        )

        assert {link.name: link.fault for link in links if link.fault} == {}
        said = {link.name: link.value for link in links}
        assert f"params.yaml: tiny; {root / 'bases' / 'tiny'}" in said["base"]
        assert said["git commit"].endswith(" (in this checkout)")

    def test_the_mlflow_run_has_every_step_the_settings_the_data_and_the_scores(self, staged: Staged) -> None:
        [run] = staged.project.mlflow_runs()
        assert run.info.status == "FINISHED"
        history = {
            name: [(m.step, m.value) for m in MlflowClient().get_metric_history(run.info.run_id, name)]
            for name in ("train_loss", "learning_rate", "tokens_per_second", "validation_loss")
        }
        for name in ("train_loss", "learning_rate", "tokens_per_second"):
            assert [step for step, _ in history[name]] == list(range(1, STEPS + 1))
            assert all(value > 0 for _, value in history[name])
        assert [step for step, _ in history["validation_loss"]] == [0, 5, 10, 15, 20]
        assert history["validation_loss"][-1][1] < history["validation_loss"][0][1] - 1
        assert {name: run.data.params[name] for name in ("method", "virtual_tokens", "steps", "learning_rate")} == {
            "method": "prefix",
            "virtual_tokens": "4",
            "steps": str(STEPS),
            "learning_rate": "0.3",
        }
        tested = {k.removeprefix("test_"): v for k, v in run.data.metrics.items() if k.startswith("test_")}
        assert tested == pytest.approx(staged.project.report(1).candidate.metrics)
        assert set(tested) == {"accuracy", "macro_f1", "f1_neg", "f1_pos"}
        assert tested["accuracy"] > 0.8
        [given] = run.inputs.dataset_inputs
        digest = staged.project.store.version("film", 1).tag("dvc_md5")
        assert (given.dataset.name, given.dataset.digest) == ("film", digest)
        assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training"}

    def test_prefect_shows_how_it_ended_with_its_scores_and_its_gate(self, staged: Staged) -> None:
        assert staged.run.state is not None
        assert (staged.run.state.type, staged.run.state.name) == (StateType.COMPLETED, "Staged")
        assert staged.run.state.message == "film: version 1 passed its gate and waits in Staging"
        table, page = staged.page["report-film"], staged.page["gate-film"]
        assert (table.type, page.type) == ("table", "markdown")
        contestants = [row["contestant"] for row in json.loads(str(table.data))]
        assert contestants == ["candidate", "majority", "linear", "hard_prompt", "in_context"]
        assert str(page.data).startswith("# film: gate passed")
        assert "no champion" in str(page.data)

    @pytest.mark.usefixtures("no_training")
    def test_a_second_run_says_why_it_does_nothing(self, staged: Staged) -> None:
        project = staged.project

        outcome = project.retrain()

        assert (outcome.result, outcome.version) == ("Unchanged", 1)
        version = project.store.version("film", 1)
        for reason in ("version 1", version.tag("data_hash")[:12], version.tag("base_hash")[:12], "--force"):
            assert reason in outcome.message
        assert len(project.mlflow_runs()) == len(project.store.versions("film")) == 1
        assert project.prefect_run().state_name == "Unchanged"


# --- other ends -------------------------------------------------------------------------------------------------------


def test_a_forced_version_may_be_promoted_and_an_unforced_duplicate_not(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.retrain()
    with monkeypatch.context() as patch:
        patch.setattr("components.evaluation.baselines.run", lambda *_: pytest.fail("the baselines are measured again"))
        forced = project.retrain(force=True)
    assert (forced.result, forced.version) == ("Staged", 2)
    assert project.promote(2).stage == "Production"

    monkeypatch.setattr(steps, "registered", lambda *_: None)  # as two runs at once would both see it
    twin = project.retrain()

    assert (twin.result, twin.version) == ("Duplicate", 3)
    assert "version 1 came first" in twin.message
    assert project.prefect_run().state_name == "Duplicate"
    assert project.store.version("film", 3).stage == "None"
    with pytest.raises(PromotionRefused, match="repeats version 1"):
        project.promote(3)


def test_a_refused_candidate_is_kept_with_its_report_and_goes_nowhere(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[str] = []
    whole = report.evaluate

    def counted(base_hash: str, name: str, *more: Any) -> report.Report:
        evaluated.append(name)
        return whole(base_hash, name, *more)

    monkeypatch.setattr(contest, "evaluate", counted)
    project.change("tasks.film.gate", [{"metric": "accuracy", "direction": "higher", "threshold": 2.0}])

    outcome = project.retrain()

    assert outcome.refused
    assert "accuracy >= 2: " in outcome.message
    run = project.prefect_run()
    assert (run.state_type, run.state_name, run.run_count) == (StateType.FAILED, "GateRefused", 1)
    assert evaluated == ["film"]
    version = project.store.version("film", 1)
    assert (version.stage, version.aliases, version.gate.verdict) == ("None", (), "refused")
    assert project.gate(1)["checks"][0]["outcome"] == "threshold missed"
    assert project.report(1).candidate.metrics["accuracy"] <= 1
    assert str(project.prefect_artifacts()["gate-film"].data).startswith("# film: gate REFUSED")
    with pytest.raises(PromotionRefused, match="its gate refused it"):
        project.promote(1)
    with pytest.raises(PromotionRefused, match="no version in Staging"):
        project.promote()

    again = project.retrain()
    assert again.result == "Unchanged"
    assert "and its gate refused it; --force" in again.message


def test_a_task_may_promote_by_itself_and_later_candidates_meet_the_champion(project: Project) -> None:
    """The champion answers in its own wording; one that cannot answer refuses the candidate."""
    project.change("tasks.film.promotion", "auto")
    first = project.retrain()
    assert (first.result, first.version) == ("Promoted", 1)
    assert project.prefect_run().state_name == "Promoted"
    assert project.store.version("film", 1).stage == "Production"
    assert queries.history(project.store, "film")[0].release.reason == "promotion: auto"
    assert [check["outcome"] for check in project.gate(1)["checks"]] == ["passed", "no champion"]
    project.change("tasks.film.promotion", "manual")

    project.change("tasks.film.template", "{text} it is")
    assert project.retrain().result == "Staged"
    met = project.report(2)
    assert met.champion_version == 1
    assert met.champion is not None
    assert met.champion.predictions == project.report(1).candidate.predictions
    assert project.gate(2)["champion"] == 1

    project.change("tasks.film.base", "other")
    assert project.retrain().result == "Staged"
    on_its_own = project.report(3)
    assert on_its_own.champion is not None
    assert on_its_own.champion.predictions == met.champion.predictions, "it answered on another base than its own"
    shutil.rmtree(project.root / "bases" / "tiny")  # as on a worker that never needed it
    project.change("tasks.film.prefix.training.seed", 6)
    assert project.retrain().result == "Staged"
    assert project.report(4).champion.predictions == met.champion.predictions

    shutil.rmtree(project.root / "bases" / "tiny")
    params = (project.root / "params.yaml").read_text()
    project.change("tasks.story.base", "other")
    project.change("bases", {"other": yaml.safe_load(params)["bases"]["other"]})
    project.change("tasks.film.prefix.training.seed", 7)
    assert project.retrain().refused
    assert project.gate(5)["checks"][1]["outcome"] == "champion not comparable"
    assert "it needs the base tiny" in project.report(5).champion_reason
    (project.root / "params.yaml").write_text(params)
    project.change("tasks.film.base", "tiny")

    with (project.root / "film.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"text {n} plain,mid\n" for n in range(200, 260))
    project.change("tasks.film.data.labels", ["neg", "pos", "mid"])
    assert project.retrain().refused
    assert project.gate(6)["checks"][1]["outcome"] == "champion not comparable"
    assert "it answers with the labels ['neg', 'pos']" in project.report(6).champion_reason
    assert queries.current(project.store, "film", "Production").number == 1


def test_rows_appended_to_the_source_are_trained_on(project: Project) -> None:
    project.retrain()
    with (project.root / "film.csv").open("a", encoding="utf-8") as file:
        file.write("text 121 funny,pos\n")

    outcome = project.retrain()

    assert (outcome.result, outcome.version) == ("Staged", 2)
    before, after = project.store.versions("film")
    assert before.tag("data_hash") != after.tag("data_hash")
    assert before.tag("dvc_md5") != after.tag("dvc_md5")
    assert (before.stage, after.stage) == ("Archived", "Staging")


def test_production_answers_with_the_promoted_version_and_after_a_rollback_with_the_one_before(
    project: Project,
) -> None:
    project.retrain()
    project.promote()
    assert answered(project)["answer"].tolist() == project.report(1).candidate.predictions

    project.change("tasks.film.prompt.training.steps", 1)  # so that it answers otherwise
    project.retrain(method="prompt")
    assert answered(project)["answer"].tolist() == project.report(1).candidate.predictions
    project.promote()
    assert answered(project)["answer"].tolist() == project.report(2).candidate.predictions
    assert project.report(1).candidate.predictions != project.report(2).candidate.predictions

    assert project.rollback().number == 1
    assert answered(project)["answer"].tolist() == project.report(1).candidate.predictions


def test_a_generation_task_lives_beside_another_task_and_neither_touches_the_other(project: Project) -> None:
    project.retrain()
    project.promote()
    before = (project.store.versions("film"), project.store.releases("film"), project.mlflow_runs())

    outcome = project.retrain("story")

    assert (outcome.task, outcome.result, outcome.version) == ("story", "Staged", 1)
    stored = project.report(1, "story")
    assert set(stored.candidate.metrics) == {"exact_match", "chrf", "rouge_l"}
    assert set(stored.baselines) == {"hard_prompt", "in_context"}
    with pytest.raises(NotFound):
        project.store.version("story", 2)
    project.promote(task="story")
    said = answered(project, "story")
    assert list(said.columns) == ["answer"]
    assert said["answer"].tolist() == stored.candidate.predictions
    assert adapter_folder.read(project.store.download(project.store.version("story", 1))).manifest.kind == "generation"

    assert project.store.tasks() == ["film", "story"]
    after = (project.store.versions("film"), project.store.releases("film"), project.mlflow_runs())
    assert [vars(run.info) for run in after[2]] == [vars(run.info) for run in before[2]]
    assert after[:2] == before[:2]
    assert project.retrain().result == "Unchanged"
