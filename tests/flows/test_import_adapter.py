"""Adapters from elsewhere: read, judged and registered like any candidate, or refused with what to do."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from click.testing import CliRunner
from prefect.client.schemas.objects import StateType
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cli import main
from components.base.base_hash import hash_base
from components.base.base_model import pick_device, pick_dtype
from components.base.tokenizer import read_tokenizer
from components.config.params import load
from components.data.prepare import read_examples
from components.data.template import Template
from components.errors import ArtifactError, BaseMismatch, PromotionRefused
from flows import import_adapter
from flows.process import local_project as places
from flows.run.job import Outcome
from registry import queries
from registry.artifact import adapter_folder

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages
HUB_NAME = "someone/their-model"
METHODS: dict[str, Callable[..., Any]] = {
    "prompt": peft.PromptTuningConfig,
    "prefix": peft.PrefixTuningConfig,
    "projected": lambda **common: peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=16, **common),
}


class Theirs:
    """Somebody who knows PEFT and not Preface: trains an adapter on the task's rows, saves it, and asks it."""

    def __init__(self, project: Project, how: str, task: str = "film", base: str = "tiny") -> None:
        self.template = Template.of(load(project.root / "params.yaml").task(task))
        self.rows = read_examples(project.root / "data/prepared" / task).of
        folder = project.root / "sources" / base
        self.words = read_tokenizer(folder / "tokenizer.json")
        with warnings.catch_warnings():
            # PEFT asks transformers by a name that 5.23 deprecates, for every model and any adapter.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            torch.manual_seed(0)
            plain = AutoModelForCausalLM.from_pretrained(folder, dtype=pick_dtype(pick_device())[0])
            config = METHODS[how](task_type="CAUSAL_LM", num_virtual_tokens=4)
            self.model: Any = peft.get_peft_model(plain, config, autocast_adapter_dtype=True)

    def train(self, steps: int = 30) -> Theirs:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=0.1)
        rows = self.rows("train")
        for step in range(steps):
            for row in rows[step % 8 :: 8]:
                answer = self.template.target_ids(self.words, row.target, eos=0)
                ids = torch.tensor([[*self.template.input_ids(self.words, row.text), *answer]])
                labels = ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - len(answer), -100)
                self.model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        self.model.eval()
        return self

    @torch.no_grad()
    def answers(self) -> list[str]:
        """To each test row the label whose word is likelier; one row at a time, as in PEFT's own examples."""
        words = self.template.label_ids(self.words)
        found = []
        for row in self.rows("test"):
            asked, scores = self.template.input_ids(self.words, row.text), {}
            for label, word in words.items():
                logits = self.model(input_ids=torch.tensor([[*asked, *word]])).logits[0].float().log_softmax(-1)
                places = torch.arange(len(word)) + logits.shape[0] - len(word) - 1
                scores[label] = float(logits[places, torch.tensor(word)].sum())
            found.append(max(scores, key=scores.__getitem__))
        return found

    def saved(self, to: Path, base: str | None = None) -> Path:
        """As PEFT saves it; ``base`` is what it then says of its base."""
        self.model.save_pretrained(to)
        return to if base is None else renamed(to, base)


def renamed(folder: Path, base: str) -> Path:
    config = json.loads((folder / adapter_folder.CONFIG).read_text())
    (folder / adapter_folder.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


def take_in(project: Project, folder: Path, task: str = "film", **options: Any) -> Outcome:
    return import_adapter.run(project.root, task, folder, **options)


# --- what PEFT trained ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["prefix", *(pytest.param(how, marks=pytest.mark.slow) for how in METHODS if how != "prefix")]
)
def test_what_peft_trained_answers_here_as_it_answered_there(project: Project, tmp_path: Path, how: str) -> None:
    """The base that it names is a folder on this machine, and its path is a claim: somebody answers for it."""
    theirs = Theirs(project, how).train()
    folder = theirs.saved(tmp_path / "their-adapter")

    outcome = take_in(project, folder, declare_base=True)

    assert (outcome.result, outcome.version) == ("Staged", 1)
    report = project.report(1)
    assert report.candidate.predictions == theirs.answers()
    assert set(report.candidate.predictions) == {"neg", "pos"}
    assert report.candidate.metrics["accuracy"] > 0.8
    assert set(report.baselines) == {"majority", "linear", "hard_prompt", "in_context"}
    run = project.prefect_run()
    assert (run.state_type, run.state_name) == (StateType.COMPLETED, "Staged")
    assert str(project.prefect_artifacts()["gate-film"].data).startswith("# film: gate passed")
    version = project.store.version("film", 1)
    assert version.stage == "Staging"
    assert f"hash {project.base_hash()})" in version.tag("declared_base")
    assert project.promote().stage == "Production"
    assert "was declared by" in queries.history(project.store, "film")[0].release.override
    assert project.kept() == set()


def test_its_manifest_and_its_run_say_that_it_was_imported_and_from_where(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Theirs(project, "prefix").saved(tmp_path / "their-adapter")
    raw, task = (folder / adapter_folder.WEIGHTS).read_bytes(), load(project.root / "params.yaml").task("film")

    take_in(project, folder, declare_base=True)

    version = project.store.version("film", 1)
    stored = adapter_folder.read(project.store.download(version))
    said = stored.manifest
    digest = hashlib.sha256(raw).hexdigest()
    brought: Any = said.params["imported"]
    assert (brought["folder"], brought["sha256"]) == ("their-adapter", digest)
    assert f"hash {project.base_hash()})" in brought["declared"]
    assert brought["base_hash"] == said.base.hash == project.base_hash()
    assert (said.recipe, said.machine, said.seed, said.virtual_tokens) == (None, None, 0, 4)
    assert (said.template, said.labels, said.max_tokens) == (task.template, task.data.labels, task.data.max_tokens)
    assert torch.equal(
        torch.from_numpy(stored.tensor), load_file(folder / adapter_folder.WEIGHTS)[adapter_folder.TENSOR]
    )
    (run,) = project.mlflow_runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["preface.imported"] == "their-adapter"
    assert run.data.tags["preface.imported_sha256"] == digest
    assert run.data.tags["preface.fingerprint"] == said.fingerprint == version.tag("fingerprint")
    assert {name: run.data.params[name] for name in ("method", "virtual_tokens")} == {
        "method": "prefix",
        "virtual_tokens": "4",
    }
    assert run.data.metrics["test_accuracy"] == said.metrics["accuracy"]
    monkeypatch.chdir(project.root)
    assert "no integrity errors" in CliRunner().invoke(main.preface, ["verify", "film"]).output


def test_the_same_folder_is_imported_once_unless_it_is_wanted_or_asked_otherwise(
    project: Project, tmp_path: Path
) -> None:
    folder = Theirs(project, "prompt").saved(tmp_path / "their-adapter")
    assert take_in(project, folder, declare_base=True).version == 1

    again = take_in(project, shutil.copytree(folder, tmp_path / "by-another-name"), declare_base=True)
    assert (again.result, again.version) == ("Unchanged", 1)
    assert "version 1 was imported from the same tensor" in again.message
    assert "--force" in again.message
    assert len(project.mlflow_runs()) == len(project.store.versions("film")) == 1

    forced = take_in(project, folder, declare_base=True, force=True)
    assert (forced.result, forced.version) == ("Staged", 2)

    project.change("tasks.film.template", "{text} it is")
    assert take_in(project, folder, declare_base=True).version == 3
    assert project.report(3).candidate.predictions is not None
    assert project.promote(3).stage == "Production"


def test_one_that_the_gate_refuses_is_kept_and_goes_nowhere(project: Project, tmp_path: Path) -> None:
    project.change("tasks.film.gate", [{"metric": "accuracy", "direction": "higher", "threshold": 2.0}])
    folder = Theirs(project, "prefix").saved(tmp_path / "a")

    outcome = take_in(project, folder, declare_base=True)

    assert outcome.refused
    run = project.prefect_run()
    assert (run.state_type, run.state_name, run.run_count) == (StateType.FAILED, "GateRefused", 1)
    assert project.store.version("film", 1).stage == "None"
    with pytest.raises(PromotionRefused, match="its gate refused it"):
        project.promote(1)
    assert "and its gate refused it" in take_in(project, folder, declare_base=True).message


def test_a_task_of_free_text_takes_one_in_and_it_meets_the_champion(project: Project, tmp_path: Path) -> None:
    project.retrain("story")
    project.promote(task="story")
    theirs = Theirs(project, "prefix", "story").train(8)

    outcome = take_in(project, theirs.saved(tmp_path / "a"), "story", declare_base=True)

    assert (outcome.result, outcome.version) == ("Staged", 2)
    met = project.report(2, "story")
    assert met.champion_version == 1
    assert set(met.candidate.metrics) == {"exact_match", "chrf", "rouge_l"}
    assert project.promote(2, task="story").stage == "Production"


def test_a_folder_of_preface_s_own_is_proof_of_its_base(project: Project, tmp_path: Path) -> None:
    project.change("tasks.film.promotion", "auto")
    project.retrain()
    given = shutil.copytree(project.store.download(project.store.version("film", 1)), tmp_path / "given")

    outcome = take_in(project, given)

    assert (outcome.result, outcome.version) == ("Promoted", 2)
    assert project.report(2).candidate.predictions == project.report(1).candidate.predictions
    assert project.store.version("film", 2).tag("declared_base") == ""


# --- the base ---------------------------------------------------------------------------------------------------------


class TestBase:
    def test_a_base_that_nothing_proves_is_refused_and_a_declared_one_is_shouted(
        self, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.change("tasks.film.promotion", "auto")
        folder = Theirs(project, "prefix").saved(tmp_path / "a", HUB_NAME)
        with pytest.raises(BaseMismatch, match="--declare-base") as caught:
            take_in(project, folder)
        for said in (HUB_NAME, "of unknown hash", f"params.yaml declares tiny {project.base_hash()}"):
            assert said in str(caught.value)
        assert project.mlflow_runs() == []
        assert project.store.tasks() == []

        outcome = take_in(project, folder, declare_base=True)

        assert outcome.result == "Staged"  # although this task promotes by itself: a person answers for it
        declared = project.store.version("film", 1).tag("declared_base")
        who = r"\S+@\S+ \d{4}-\d\d-\d\dT\S+ \(its folder names someone/their-model, hash unknown\)"
        assert re.fullmatch(who, declared)
        project.promote()
        (entry,) = queries.history(project.store, "film")
        assert entry.release.override == f"its base was declared by {declared}, and not proven"
        monkeypatch.chdir(project.root)
        for command in ("history", "status"):
            shown = CliRunner().invoke(main.preface, [command, "film"])
            assert f"OVERRIDDEN: its base was declared by {declared}" in " ".join(shown.output.split())

    def test_a_proven_other_base_is_refused_and_a_declared_one_s_shout_says_which_it_was(
        self, project: Project, tmp_path: Path
    ) -> None:
        other = hash_base(project.root / "sources" / "other").value
        folder = Theirs(project, "prompt", base="other").saved(tmp_path / "a")
        with pytest.raises(BaseMismatch, match="--declare-base") as caught:
            take_in(project, folder)
        assert other in str(caught.value)
        assert project.base_hash() in str(caught.value)

        take_in(project, folder, declare_base=True)  # as wide and as deep, so nothing else speaks against it

        assert f"hash {other})" in project.store.version("film", 1).tag("declared_base")

    def test_a_manifest_of_ours_proves_another_base_too(self, project: Project, tmp_path: Path) -> None:
        project.change("tasks.film.base", "other")
        project.retrain(method="prompt")
        given = shutil.copytree(project.store.download(project.store.version("film", 1)), tmp_path / "given")
        other = project.base_hash()
        project.change("tasks.film.base", "tiny")

        with pytest.raises(BaseMismatch, match=f"trained on the base other {other}, params.yaml declares tiny"):
            take_in(project, given)

    def test_declaring_does_not_make_it_fit(self, project: Project, tmp_path: Path) -> None:
        folder = Theirs(project, "prefix", base="other").saved(tmp_path / "a")

        with pytest.raises(ArtifactError, match=r"prefix tuning of the base tiny has \[P, 64\]"):
            take_in(project, folder, declare_base=True)

        assert project.mlflow_runs() == []


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="class")
def shared(open_project: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project that a class of tests leaves as it was."""
    with open_project(tmp_path_factory.mktemp("shared")) as project:
        yield project


class TestRefusals:
    """Nothing is prepared, no run is opened, nothing is registered."""

    @pytest.fixture
    def untouched(self, shared: Project) -> Iterator[Project]:
        yield shared
        assert shared.mlflow_runs() == []
        assert shared.store.tasks() == []
        assert shared.kept() <= {"adapter.safetensors"}

    @pytest.fixture
    def folder(self, untouched: Project, tmp_path: Path) -> Path:
        return Theirs(untouched, "prefix").saved(tmp_path / "a")

    def test_a_low_rank_adapter(self, untouched: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = json.loads((folder / adapter_folder.CONFIG).read_text())
        (folder / adapter_folder.CONFIG).write_text(json.dumps(config | {"peft_type": "LORA"}))
        monkeypatch.setattr("flows.dvc.repro.prepare", lambda *_: pytest.fail("it prepared data first"))

        with pytest.raises(ArtifactError, match="peft_type is 'LORA', it must be PROMPT_TUNING or PREFIX_TUNING"):
            take_in(untouched, folder)

    def test_a_pickle(self, untouched: Project, folder: Path) -> None:
        (folder / adapter_folder.WEIGHTS).rename(folder / "adapter_model.bin")

        with pytest.raises(ArtifactError, match="A pickle can run code when it is read, so it is never opened"):
            take_in(untouched, folder)

    def test_a_folder_that_changes_while_it_is_read(
        self, untouched: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = import_adapter.steps.repro.prepare

        def changing(*arguments: Any) -> Any:
            table = load_file(folder / adapter_folder.WEIGHTS)[adapter_folder.TENSOR]
            save_file({adapter_folder.TENSOR: table + 1}, folder / adapter_folder.WEIGHTS)
            return real(*arguments)

        monkeypatch.setattr("flows.dvc.repro.prepare", changing)
        with pytest.raises(ArtifactError, match="was changed while it was read"):
            take_in(untouched, folder, declare_base=True)

    def test_more_virtual_tokens_than_the_base_has_room_for(self, untouched: Project, folder: Path) -> None:
        save_file({adapter_folder.TENSOR: torch.zeros(600, 64)}, folder / adapter_folder.WEIGHTS)
        config = json.loads((folder / adapter_folder.CONFIG).read_text())
        (folder / adapter_folder.CONFIG).write_text(json.dumps(config | {"num_virtual_tokens": 600}))

        with pytest.raises(ArtifactError, match="600 virtual tokens, the base tiny has room for 512"):
            take_in(untouched, folder, declare_base=True)


def test_the_command_shows_the_scores_and_what_is_next(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Theirs(project, "prefix").train(8).saved(project.root / "their-adapter")
    monkeypatch.chdir(project.root)
    for name, value in (places.SWITCHES | {"PREFECT_HOME": str(project.root / ".preface" / "prefect")}).items():
        monkeypatch.setenv(name, value)

    said = CliRunner().invoke(main.preface, ["import", "their-adapter", "--task", "film", "--declare-base"])

    assert said.exit_code == 0, said.output
    assert "candidate" in said.output
    assert said.output.endswith(
        'version 1 passed its gate and waits in Staging\nnext: preface promote film --reason "..."\n'
    )
