"""The command line: what it says, on which stream, with which exit status, and how little it loads to say it."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli import main
from components.base.base_hash import BaseHash
from flows.process import local_project

BASE = BaseHash("1" * 64, "2" * 64, "3" * 64)
PARAMS = f"""
bases:
  tiny: {{source: nowhere, hash: {BASE.value}}}
tasks:
  movie-sentiment:
    base: tiny
    data: {{source: reviews.csv, format: csv, labels: [negative, positive]}}
    instruction: Say how it is.
    gate: [{{metric: accuracy, direction: higher, threshold: 0.5}}]
  never-trained:
    base: tiny
    data: {{source: reviews.csv, format: csv, labels: [negative, positive]}}
    instruction: Say how it is.
    gate: [{{metric: accuracy, direction: higher, threshold: 0.5}}]
"""
Call = Callable[..., Result]
COMMANDS = sorted(main.preface.commands.items())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two tasks, which is where the command is called; its settings end with the test."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    for name, value in local_project.SWITCHES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/.preface/mlflow.db")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".preface" / "prefect"))
    monkeypatch.setenv("PREFACE_BASES", str(tmp_path / "bases"))
    return tmp_path


@pytest.fixture
def call(project: Path) -> Call:
    """The command in this process, with its edge: ``call("status", "--json")``."""

    @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def edge(arguments: tuple[str, ...]) -> None:
        main.main(list(arguments))

    return lambda *arguments: CliRunner().invoke(edge, list(arguments))


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_help_with_an_example_of_itself(name: str, command: click.Command) -> None:
    assert command.help
    assert f"preface {name}" in command.help.split("Example:")[1]


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("promote", "movie-sentiment"),
            ("promote", "movie-sentiment", "--reason", " "),
            ("promote", "movie-sentiment", "--reason", "x", "--version", "0"),
            ("rollback", "movie-sentiment"),
            ("rollback", "--reason", "x"),
            ("rollback", "movie-sentiment", "--all", "--since", "1h", "--reason", "x"),
            ("rollback", "--all", "--reason", "x"),
            ("rollback", "--all", "--since", "yesterday", "--reason", "x"),
            ("rollback", "--all", "--since", "2999-01-01T00:00", "--reason", "x"),
            ("rollback", "movie-sentiment", "--since", "1h", "--reason", "x"),
            ("reconcile", "movie-sentiment", "--adopt", "--restore"),
            ("reconcile", "movie-sentiment", "--adopt"),
            ("retrain",),
            ("retrain", "movie-sentiment", "--method", "lora"),
            ("evaluate",),
            ("import", "their-adapter"),
            ("predict", "movie-sentiment"),
            ("verify",),
            ("verify", "movie-sentiment", "--all"),
            ("drill", "--rows", "0"),
            ("no-such-command",),
        ],
    )
    def test_wrong_usage_is_2(self, call: Call, arguments: tuple[str, ...]) -> None:
        result = call(*arguments)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "Error: " in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("promote", "movie-sentimant", "--reason", "x"),
            ("rollback", "movie-sentimant", "--reason", "x"),
            ("retrain", "movie-sentimant"),
            ("evaluate", "movie-sentimant@3"),
            ("import", "their-adapter", "--task", "movie-sentimant"),
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_a_misspelt_task_is_1_in_one_line_that_names_the_right_one(
        self, call: Call, arguments: tuple[str, ...]
    ) -> None:
        result = call(*arguments)

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: params.yaml has no task 'movie-sentimant'")
        assert "'movie-sentiment'" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_outside_a_project_it_says_so(
        self, call: Call, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

        result = call("status")

        assert result.exit_code == 1
        assert "no params.yaml" in result.stderr

    def test_every_fault_of_params_is_told(self, call: Call, project: Path) -> None:
        (project / "params.yaml").write_text(PARAMS.replace("instruction", "instructions"))

        result = call("promote", "movie-sentiment", "--reason", "x")

        assert result.exit_code == 1
        assert result.stderr.count("did you mean 'instruction'?") == 2


@pytest.mark.flow
class TestRegistry:
    """The registry's commands on MLflow's SQLite store, in the order of an adapter's life."""

    @pytest.fixture
    def registered(self, project: Path) -> Iterator[Path]:
        """Version 1 and 2 passed their gates, 3 did not."""
        import mlflow

        from registry.artifact import adapter_folder
        from registry.mlflow.store import Store
        from registry.releases import registration

        store = Store()
        for number, passed in ((1, True), (2, True), (3, False)):
            folder = project / f"adapter-{number}"
            _write_adapter(folder, number)
            report = project / "gate.json"
            check = {"rule": "accuracy >= 0.5", "passed": passed, "outcome": "", "reason": f"it is 0.{number}"}
            report.write_text(json.dumps({"passed": passed, "checks": [check], "champion": number - 1 or None}))
            mark = {"preface.fingerprint": adapter_folder.read(folder).manifest.fingerprint}
            run = store.start_run("movie-sentiment", f"run-{number}", mark, {})
            store.log_dataset(run, "movie-sentiment", "0" * 32, "reviews.csv", "training")
            registration.register(store, folder, run, report, "0" * 32)
        yield project
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)

    def test_the_life_of_two_versions(self, registered: Path, call: Call) -> None:
        before = json.loads(call("status", "movie-sentiment", "--json").stdout)[0]
        assert (before["production"], before["staging"], before["versions"]) == (None, 2, 3)

        first = call("promote", "movie-sentiment", "--version", "1", "--reason", "the first")
        assert first.stdout.startswith("movie-sentiment@1 is in Production (release 1)\nnext: preface rollback")
        second = call("promote", "movie-sentiment", "--reason", "the second")
        assert "movie-sentiment@2 is in Production, in place of version 1 (release 2)" in second.stdout
        again = call("promote", "movie-sentiment", "--version", "2", "--reason", "again")
        assert (again.exit_code, "already" in again.stdout) == (0, True)

        back = call("rollback", "movie-sentiment", "--reason", "complaints")
        assert "movie-sentiment@1 is in Production, in place of version 2" in back.stdout
        nowhere = call("rollback", "movie-sentiment", "--reason", "more complaints")
        assert (nowhere.exit_code, nowhere.stdout) == (1, "")
        assert nowhere.stderr.startswith("error: movie-sentiment@1 has no good version before it")

        status = json.loads(call("status", "--json").stdout)
        assert [(row["task"], row["production"], row["score"]) for row in status] == [
            ("movie-sentiment", 1, "accuracy 0.1000"),
            ("never-trained", None, None),
        ]
        assert "complaints" in call("status").stdout
        history = json.loads(call("history", "movie-sentiment", "--json").stdout)
        assert [(row["action"], row["version"], row["reason"]) for row in history] == [
            ("promote", 1, "the first"),
            ("promote", 2, "the second"),
            ("rollback", 1, "complaints"),
        ]
        assert [row["live"] for row in history] == [False, False, True]
        assert history[1]["gate"].startswith("passed gate/")
        shown = json.loads(call("show", "movie-sentiment@production", "--json").stdout)
        assert (shown["version"], shown["metrics"]) == ("movie-sentiment@1", {"accuracy": 0.1})

    def test_a_version_s_chain_stands_under_its_record(self, registered: Path, call: Call) -> None:
        shown = call("show", "movie-sentiment@1")
        record = json.loads(call("show", "movie-sentiment@1", "--json").stdout)

        assert (shown.exit_code, shown.stderr) == (0, "")
        _, _, chain = shown.stdout.partition("\n\n")
        assert chain.splitlines()[0].split() == ["link", "says"]  # no link is broken
        assert [line.split()[0] for line in chain.splitlines()[2:]][:3] == ["adapter", "method", "metrics"]
        assert record["chain"][0]["link"] == "adapter"
        assert {link["BROKEN"] for link in record["chain"]} == {None}

    def test_a_broken_chain_is_shown_and_verify_finds_it(self, registered: Path, call: Call) -> None:
        from registry.mlflow.store import Store

        assert call("promote", "movie-sentiment", "--version", "1", "--reason", "x").exit_code == 0
        whole = call("verify", "--all")
        assert (whole.exit_code, whole.stderr) == (0, "")
        assert whole.stdout == "no integrity errors\n3 versions of 1 tasks verified, 0 errors\n"

        Store().tag_version("movie-sentiment", 3, "preface.data_hash", "e" * 64)
        shown, found = call("show", "movie-sentiment@3"), call("verify", "movie-sentiment")
        said = json.loads(call("verify", "--all", "--json").stdout)

        assert "BROKEN" in shown.stdout
        assert (found.exit_code, found.stderr) == (1, "")
        assert found.stdout.splitlines()[-1] == "3 versions of 1 tasks verified, 1 errors"
        assert said["breaks"] == [
            {
                "where": "movie-sentiment@3",
                "link": "data",
                "fault": f"the tag preface.data_hash says {'e' * 64}, the manifest {'d' * 64}",
            }
        ]
        assert (said["versions"], said["tasks"]) == (3, 1)

    def test_a_report_that_was_written_over_is_not_shown_as_the_gate_s(self, registered: Path, call: Call) -> None:
        [report, *_] = sorted((registered / ".preface" / "artifacts").rglob("gate.json"))
        number = json.loads(report.read_text())["checks"][0]["reason"][-1]
        report.write_text('{"passed": true, "checks": "as it should be"}')

        shown = call("show", f"movie-sentiment@{number}")

        assert (shown.exit_code, shown.stderr) == (0, "")
        assert "as it should be" not in shown.stdout
        assert "was changed: it has sha256" in shown.stdout

    def test_a_refused_version_says_which_rule_refused_it(self, registered: Path, call: Call) -> None:
        promoted = call("promote", "movie-sentiment", "--version", "3", "--reason", "please")
        shown = call("show", "movie-sentiment@3")

        assert promoted.exit_code == 1
        assert "its gate refused it" in promoted.stderr
        assert "NO  accuracy >= 0.5 it is 0.3" in shown.stdout

    def test_an_override_is_shouted_wherever_its_version_shows(self, registered: Path, call: Call) -> None:
        promoted = call("promote", "movie-sentiment", "--version", "3", "--reason", "it is urgent", "--override")

        assert (promoted.exit_code, promoted.stderr) == (0, "")
        assert "OVERRIDDEN: its gate refused it" in promoted.stdout
        for looked in (call("status"), call("history", "movie-sentiment")):
            assert "OVERRIDDEN: its gate refused it" in looked.stdout

    def test_what_was_moved_by_hand_is_told_and_settled_on_request(self, registered: Path, call: Call) -> None:
        from registry.mlflow.store import Store

        call("promote", "movie-sentiment", "--version", "1", "--reason", "the first")
        Store().set_stage("movie-sentiment", 2, "Production")

        row = json.loads(call("status", "movie-sentiment", "--json").stdout)[0]
        assert (row["production"], row["stage"], row["alias"]) == (1, "2", "1")
        assert "stage Production says version 2, the release log version 1" in row["note"]
        told = call("reconcile", "movie-sentiment")
        assert (told.exit_code, "--restore brings MLflow back" in told.stderr) == (1, True)

        adopted = call("reconcile", "movie-sentiment", "--adopt", "--reason", "ada did it in the night")
        assert (adopted.exit_code, adopted.stderr) == (0, "")
        Store().set_stage("movie-sentiment", 1, "Production")
        restored = call("reconcile", "movie-sentiment", "--restore")
        assert (restored.exit_code, restored.stderr) == (0, "")
        row = json.loads(call("status", "movie-sentiment", "--json").stdout)[0]
        assert (row["production"], row["stage"], row["alias"]) == (2, "2", "2")

    def test_a_metric_that_was_edited_by_hand_is_left_out(self, registered: Path, call: Call) -> None:
        from registry.mlflow.store import Store

        call("promote", "movie-sentiment", "--version", "1", "--reason", "the first")
        assert json.loads(call("status", "movie-sentiment", "--json").stdout)[0]["score"].startswith("accuracy 0.")
        Store().tag_version("movie-sentiment", 1, "preface.metric.accuracy", "about 0.9")

        told = call("status", "movie-sentiment", "--json")

        assert (told.exit_code, told.stderr) == (0, "")
        assert json.loads(told.stdout)[0]["score"] is None

    def test_a_task_that_left_params_yaml_is_settled(self, registered: Path, call: Call) -> None:
        from registry.mlflow.store import Store

        call("promote", "movie-sentiment", "--version", "1", "--reason", "the first")
        Store().set_stage("movie-sentiment", 2, "Production")
        file = registered / "params.yaml"
        file.write_text(file.read_text(encoding="utf-8").replace("  movie-sentiment:", "  film:"), encoding="utf-8")

        restored = call("reconcile", "movie-sentiment", "--restore")

        assert (restored.exit_code, restored.stderr) == (0, "")
        (row,) = (row for row in json.loads(call("status", "--json").stdout) if row["task"] == "movie-sentiment")
        assert row["stage"] == "1"

    def test_a_bad_night_is_shown_first_and_then_taken_back(self, registered: Path, call: Call) -> None:
        for number in ("1", "2"):
            call("promote", "movie-sentiment", "--version", number, "--reason", f"number {number}")
        from registry.mlflow.store import Store

        store = Store()
        store.tag_version("movie-sentiment.releases", 1, "preface.when", "2026-01-01T00:00:00+00:00")
        bad_night = ("rollback", "--all", "--since", "1h", "--reason", "bad data")

        preview = call(*bad_night)
        assert preview.exit_code == 2
        assert "that was the preview; add --yes" in preview.stderr
        assert "number 2" in preview.stdout
        assert json.loads(call("status", "movie-sentiment", "--json").stdout)[0]["production"] == 2
        # The edited time broke the chain, so nothing is chosen by itself: told, and nothing moved.
        refused = call(*bad_night, "--yes")
        assert refused.exit_code == 1
        assert "NOT rolled back, version 2 is still in Production" in refused.stdout
        assert refused.stderr == "error: 1 of 1 tasks were not rolled back; each says why above\n"

    def test_a_bad_night_is_taken_back_task_by_task(
        self, registered: Path, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("registry.releases.lifecycle.now", lambda: "2026-01-01T00:00:00+00:00")
            call("promote", "movie-sentiment", "--version", "1", "--reason", "number 1")
        call("promote", "movie-sentiment", "--version", "2", "--reason", "number 2")

        done = call("rollback", "--all", "--since", "1h", "--reason", "bad data", "--yes")

        assert (done.exit_code, done.stderr) == (0, "")
        assert "movie-sentiment: version 1 is in Production (release 3)" in done.stdout
        assert "no task changed since" in call("rollback", "--all", "--since", "1m", "--reason", "x", "--yes").stdout

    def test_what_does_not_exist_is_1(self, registered: Path, call: Call) -> None:
        for arguments in (
            ("status", "no-such-task"),
            ("history", "no-such-task"),
            ("verify", "no-such-task"),
            ("drill", "no-such-task"),
            ("show", "movie-sentiment@9"),
            ("show", "movie-sentiment"),
            ("show", "movie-sentiment@production"),
        ):
            result = call(*arguments)
            assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1), arguments

    def test_a_whole_rollback_costs_little_more_than_mlflow_and_needs_neither_torch_nor_prefect(
        self, registered: Path, call: Call
    ) -> None:
        for number in ("1", "2"):
            assert call("promote", "movie-sentiment", "--version", number, "--reason", "x").exit_code == 0
        code = (
            "import sys; from cli import main\n"
            "try: main.main(['rollback', 'movie-sentiment', '--reason', 'x'])\n"
            "except SystemExit as end: assert not end.code\n"
            "assert not {'torch', 'prefect', 'transformers'} & set(sys.modules)\n"
        )
        least, _ = processor_seconds("import mlflow.store.model_registry.sqlalchemy_store")
        ours, done = processor_seconds(code)

        assert done.returncode == 0, done.stderr
        assert "movie-sentiment@1 is in Production" in done.stdout
        assert done.stderr == ""
        assert ours < 2 * least, f"{ours:.1f} s of the processor, MLflow's own import {least:.1f} s"


def processor_seconds(code: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """What a new Python spent on this, whatever else the machine did; and how it ended."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


class TestRetrain:
    """What the command makes of how a run ended; the run itself is another file's matter."""

    @pytest.fixture
    def ended(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Let the run end so: ``ended("GateRefused")``."""
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True)  # this test imports Prefect before the command does
        from flows.run.job import Outcome

        store = SimpleNamespace(version=lambda task, number: number)
        import flows.retrain  # noqa: F401 - whoever imports it first must not find the store below

        monkeypatch.setattr("registry.mlflow.store.Store", lambda: store)
        monkeypatch.setattr("flows.pages.evidence.scores", lambda store, version: [{"contestant": "candidate"}])

        def end(result: str) -> None:
            outcome = Outcome(task="movie-sentiment", method="prompt", result=result, version=4, message="so it ended")
            monkeypatch.setattr("flows.retrain.run", lambda *_: outcome)

        return end

    @pytest.mark.parametrize(
        ("result", "then"), [("Staged", "preface promote movie-sentiment"), ("Unchanged", "preface status")]
    )
    def test_it_shows_the_scores_how_it_ended_and_what_is_next(
        self, call: Call, ended: Callable[[str], None], result: str, then: str
    ) -> None:
        ended(result)

        said = call("retrain", "movie-sentiment")

        assert (said.exit_code, said.stderr) == (0, "")
        assert "candidate" in said.stdout
        assert f"so it ended\nnext: {then}" in said.stdout

    def test_a_refusal_is_1_and_says_where_to_look(self, call: Call, ended: Callable[[str], None]) -> None:
        ended("GateRefused")

        said = call("retrain", "movie-sentiment")

        assert said.exit_code == 1
        assert "candidate" in said.stdout
        assert said.stderr == "error: so it ended; see `preface show movie-sentiment@4`\n"


def test_a_store_that_is_down_is_one_line(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "blocked").write_text("a file where a folder should be")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/blocked/mlflow.db")

    result = call("status")

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert f"{project}/blocked should be a folder" in result.stderr


def _write_adapter(folder: Path, number: int) -> None:
    from registry.artifact import adapter_folder
    from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Shape

    draft = Draft(
        task="movie-sentiment",
        method="prompt",
        kind="classification",
        virtual_tokens=2,
        shape=Shape(layers=1, kv_heads=1, head_size=4, hidden=4, heads=1),
        base=BasePin(name="tiny", hash=BASE.value, weights=BASE.weights, config=BASE.config, tokenizer=BASE.tokenizer),
        data=DataPin(hash="d" * 64, lock={}),
        fingerprint=hashlib.sha256(bytes([number])).hexdigest(),
        seed=number,
        params={},
        template="{text}\n",
        labels={"negative": "negative", "positive": "positive"},
        max_tokens=16,
        max_new_tokens=1,
        metrics={"accuracy": number / 10},
        code=CodePin(version="0.1.0", git_commit=""),
        libraries={},
        recipe=None,
        machine=None,
        created="2026-11-23T20:00:00+00:00",
    )
    adapter_folder.write(folder, np.full((2, 4), number, dtype=np.float32), draft)


def test_an_interrupt_while_it_starts_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")  # as if the key were hit just then
    code = "from cli.start import main; main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr.split()) == (1, "", ["Aborted!"])
