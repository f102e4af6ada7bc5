"""What tests of the whole flow share: a Prefect server, and projects on a tiny base that are prepared already.

Everything is real: DVC in a git repository, MLflow on SQLite, Prefect's own test server. Only the base is tiny and the
rows are made up. Nothing is imported or started for a test that does not ask for it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Artifact, FlowRun

    from components.evaluation.report import Report
    from flows.run.job import Outcome
    from registry.mlflow.store import Store
    from registry.protocol import Version

ROOT = Path(__file__).parents[2]
WORDS = {"neg": "dull", "pos": "funny"}
METHOD = {
    "virtual_tokens": 4,
    "training": {"steps": 20, "batch_size": 8, "learning_rate": 0.3, "warmup": 0.0, "evaluate_every": 5},
}
FILM: dict[str, Any] = {
    "base": "tiny",
    "data": {"source": "film.csv", "format": "csv", "labels": list(WORDS), "max_tokens": 16},
    "instruction": "Say whether the film is dull or funny.",
    "template": "{text}",
    "method": "prefix",
    "prompt": METHOD,
    "prefix": METHOD,
    "baselines": {"hard_prompts": ["Say it.\n"], "in_context": [2]},
    "gate": [
        {"metric": "accuracy", "direction": "higher", "threshold": 0.3},
        {"metric": "accuracy", "direction": "higher", "beats": "champion", "margin": -0.8},
    ],
}
STORY: dict[str, Any] = FILM | {
    "data": {"source": "story.csv", "format": "csv", "max_tokens": 16},
    "max_new_tokens": 4,
    "gate": [{"metric": "chrf", "direction": "higher", "threshold": 0.0}],
}


def rows(first: int, end: int) -> str:
    """Lines of a CSV: the last word of a text tells its label."""
    labels = list(WORDS)
    return "".join(f"text {n} {WORDS[labels[n % 2]]},{labels[n % 2]}\n" for n in range(first, end))


class Project:
    """A project as a user has it, and what its stores say."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, patch
        self._store: Store | None = None

    def track(self, uri: str) -> None:
        """What MLFLOW_TRACKING_URI does to a process that starts with it."""
        _forget_store()
        self._store = None
        self._patch.setenv("MLFLOW_TRACKING_URI", uri)

    def change(self, path: str, value: object) -> None:
        """Set one key of params.yaml by its path."""
        file = self.root / "params.yaml"
        params = yaml.safe_load(file.read_text(encoding="utf-8"))
        here = params
        *way, last = path.split(".")
        for part in way:
            here = here[part]
        here[last] = value
        file.write_text(yaml.safe_dump(params), encoding="utf-8")

    def retrain(self, task: str = "film", **options: Any) -> Outcome:
        """What ``preface retrain`` runs."""
        from flows import retrain

        return retrain.run(self.root, task, **options)

    @property
    def store(self) -> Store:
        """One for all questions: what a store has downloaded goes with it."""
        from registry.mlflow.store import Store

        self._store = self._store or Store()
        return self._store

    def base_hash(self, task: str = "film") -> str:
        from components.config import params

        declared = params.load(self.root / "params.yaml")
        return declared.bases[declared.task(task).base].hash

    def promote(self, number: int | None = None, task: str = "film") -> Version:
        from registry.releases import lifecycle

        return lifecycle.promote(self.store, task, number, reason="test", base_hash=self.base_hash(task)).version

    def rollback(self, task: str = "film") -> Version:
        from registry.releases import lifecycle

        return lifecycle.rollback(self.store, task, reason="test", base_hash=self.base_hash(task)).version

    def evidence(self, task: str, number: int, name: str) -> bytes:
        """A file of those that a version was judged by."""
        version = self.store.version(task, number)
        return bytes(self.store.read_file(version.run_id, f"{version.gate.report.rpartition('/')[0]}/{name}"))

    def report(self, number: int, task: str = "film") -> Report:
        """The report that is stored with a version."""
        from components.evaluation.report import Report

        stored = self.evidence(task, number, "report.json")
        return Report.model_validate_json(stored)

    def gate(self, number: int, task: str = "film") -> Any:
        """The verdict that is stored with a version."""
        return json.loads(self.evidence(task, number, "gate.json"))

    def mlflow_runs(self, task: str = "film") -> list[Any]:
        """The task's MLflow runs, oldest first."""
        from mlflow import MlflowClient

        client = MlflowClient()
        found = client.get_experiment_by_name(task)
        return client.search_runs([found.experiment_id], order_by=["start_time ASC"]) if found else []

    def kept(self) -> set[str]:
        """Files of runs that are not registered."""
        return {path.name for path in (self.root / ".preface" / "runs").rglob("*") if path.is_file()}

    def prefect_run(self, task: str = "film") -> FlowRun:
        """The last run of a task, as Prefect's server has it."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.sorting import FlowRunSort

        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]
        assert found.name == task
        return found

    def prefect_artifacts(self, task: str = "film") -> dict[str, Artifact]:
        """What the last run of a task shows on its page, by key."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterId, TaskRunFilter
        from prefect.client.schemas.sorting import ArtifactSort

        with get_client(sync_client=True) as client:
            found = client.read_artifacts(
                artifact_filter=ArtifactFilter(),
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[self.prefect_run(task).id])),
                task_run_filter=TaskRunFilter(),
                sort=ArtifactSort.KEY_ASC,
                limit=9,
                offset=0,
            )
        return {str(artifact.key): artifact for artifact in found}


OpenProject = Callable[..., AbstractContextManager[Project]]


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """The one Prefect server of the session, with an empty database."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def planless_api(
    tmp_path_factory: pytest.TempPathFactory, running: Callable[..., Any], free_port: Callable[[], int]
) -> Iterator[str]:
    """A server that plans no runs by itself: what it plans is asked for."""
    port, room = free_port(), tmp_path_factory.mktemp("server")
    own = {"PREFECT_HOME": str(room), "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false"}
    command = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    with running(*command, log=room / "server.log", environment=own):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture
def on_server(planless_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address, and this process asks it.

    A process has one thread that sends events, and it stays with the server that it first sent to: it is emptied and
    ended on both sides, or every later test would go on sending its events to this server when it is gone.
    """
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", planless_api)
    EventsWorker.drain_all()
    with temporary_settings({PREFECT_API_URL: planless_api}):
        yield planless_api
        EventsWorker.drain_all()


@pytest.fixture(scope="session")
def _prepared_project(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Callable[..., Path]) -> Path:
    """A task of classification and one of generation, prepared, and an empty tracking store; each test gets a copy."""
    from components.base.base_hash import hash_base
    from flows.dvc import repro
    from registry.mlflow.store import Store

    root = tmp_path_factory.mktemp("flow") / "project"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, root / name)
    bases = {}
    for name, kind in {"tiny": "llama", "other": "qwen"}.items():
        shutil.copytree(tiny_base_folder(kind), root / "sources" / name)
        bases[name] = {"source": f"sources/{name}", "hash": hash_base(root / "sources" / name).value}
    (root / "film.csv").write_text("text,target\n" + rows(0, 120), encoding="utf-8")
    (root / "story.csv").write_text("text,target\n" + rows(0, 60).replace(",", ",it is "), encoding="utf-8")
    tasks = {"film": FILM, "story": STORY}
    (root / "params.yaml").write_text(yaml.safe_dump({"bases": bases, "tasks": tasks}), encoding="utf-8")
    for command in ("init --quiet", "add .", "-c user.name=Test -c user.email=t@example.org commit --quiet -m Start"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    with pytest.MonkeyPatch.context() as patch:
        _own_dvc_folders(patch, tmp_path_factory.mktemp("dvc"))
        repro.prepare(root)
        Store(f"sqlite:///{root}/.preface/mlflow.db")
        _forget_store()
    return root


def _own_dvc_folders(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Neither a developer's DVC configuration nor DVC's machine-wide cache."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        patch.setenv(name, str(folder / name.lower()))


def _move_addresses(database: Path, old: str, new: str) -> None:
    """MLflow's database holds where files are, in full."""
    with closing(sqlite3.connect(database)) as opened, opened:
        for (table,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, *_ in opened.execute(f'PRAGMA table_info("{table}")').fetchall():
                opened.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                    (old, new, old),
                )


def _forget_store() -> None:
    """A Store points MLflow in this process at itself; whoever comes after should find it as it was.

    MLflow also remembers where a run's files are, by the run: in a copied project the same run has them elsewhere.
    """
    import mlflow
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture(scope="session")
def open_project(_prepared_project: Path, prefect_server: None) -> OpenProject:
    """Make a folder a copy of the prepared project, and this process one that works there and waits for no retry.

    ``open_project(folder, like)``: a copy of the project in ``like``, with the versions that it has.
    """
    from prefect import Task

    from flows.tasks import (
        compare_steps,
        evaluate_steps,
        import_steps,
        reason_steps,
        run_steps,
        steps,
        sweep_steps,
        warm_start,
    )

    @contextmanager
    def at(folder: Path, like: Path | None = None) -> Iterator[Project]:
        root = folder / "project"
        shutil.copytree(like or _prepared_project, root)
        if like:
            _move_addresses(root / ".preface" / "mlflow.db", str(like), str(root))
        with pytest.MonkeyPatch.context() as patch:
            judging = (evaluate_steps, import_steps, compare_steps)
            rooms = (steps, run_steps, reason_steps, sweep_steps, warm_start, *judging)
            for step in {id(each): each for room in rooms for each in vars(room).values()}.values():
                if isinstance(step, Task):
                    patch.setattr(step, "retry_delay_seconds", 0)
            _own_dvc_folders(patch, folder / "dvc")
            patch.setenv("PREFACE_BASES", str(root / "bases"))
            opened = Project(root, patch)
            opened.track(f"sqlite:///{root}/.preface/mlflow.db")
            yield opened
            _forget_store()

    return at


@pytest.fixture
def prepared_folder(_prepared_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project of this test alone, for what needs neither Prefect nor MLflow."""
    _own_dvc_folders(monkeypatch, tmp_path / "dvc")
    shutil.copytree(_prepared_project, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def project(open_project: OpenProject, tmp_path: Path) -> Iterator[Project]:
    """A project of this test alone."""
    with open_project(tmp_path) as opened:
        yield opened
