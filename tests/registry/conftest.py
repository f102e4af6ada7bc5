"""What the registry's tests share: drafts and adapters that are right, and a store to put them in.

A store is a dictionary or MLflow on SQLite: what is promised of one holds of the other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.base.base_hash import BaseHash
from components.errors import NotFound
from registry import queries
from registry.artifact import adapter_folder
from registry.artifact.manifest import BasePin, CodePin, DataPin, Draft, Shape
from registry.protocol import Head, Run, Stage, Version
from registry.release_log import PREFIX, Release
from registry.releases import lifecycle, registration

MakeDraft = Callable[..., Draft]
MakeAdapter = Callable[..., Path]
DVC_MD5 = "0123456789abcdef0123456789abcdef.dir"
BASE = BaseHash("1" * 64, "2" * 64, "3" * 64)


def pin(base: BaseHash) -> BasePin:
    return BasePin(name="tiny", hash=base.value, weights=base.weights, config=base.config, tokenizer=base.tokenizer)


@pytest.fixture(scope="session")
def draft() -> MakeDraft:
    """A factory of drafts: ``draft("prefix", seed=3)``."""

    def make(method: str = "prompt", **changes: Any) -> Draft:
        fields: dict[str, Any] = {
            "task": "movie-sentiment",
            "method": method,
            "kind": "classification",
            "virtual_tokens": 3,
            "shape": Shape(layers=2, kv_heads=2, head_size=8, hidden=32, heads=4),
            "base": pin(BASE),
            "data": DataPin(hash="d" * 64, lock={"cmd": "python -m components.data.prepare movie-sentiment"}),
            "fingerprint": "f" * 64,
            "seed": 0,
            "recipe": 1,
            "machine": None,
            "params": {"steps": 200, "learning_rate": 0.01},
            "template": "Review: {text}\nSentiment:",
            "labels": {"positive": "positive", "negative": "negative"},
            "max_tokens": 256,
            "max_new_tokens": 8,
            "metrics": {"accuracy": 0.9, "macro_f1": 1},
            "code": CodePin(version="0.1.0", git_commit=""),
            "libraries": {"torch": "2.13.0"},
            "created": "2026-11-23T20:00:00Z",
        }
        return Draft(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def write_adapter(draft: MakeDraft) -> MakeAdapter:
    """A factory of good adapter folders: ``write_adapter(folder, "prefix", seed=3)``. The seed makes the values."""

    def make(folder: Path, method: str = "prompt", **changes: Any) -> Path:
        made = draft(method, **changes)
        values = np.random.default_rng(made.seed).standard_normal(made.tensor_shape).astype(np.float32)
        adapter_folder.write(folder, values, made)
        return folder

    return make


class MemoryStore:
    """A registry in dictionaries, with MLflow's own habits: numbers from 1, one stage each, aliases beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[str, list[Version]] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.task_tags_kept: dict[tuple[str, str], str] = {}
        self.logs: dict[str, list[dict[str, str]]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.runs: dict[str, Run] = {}

    def start_run(self, task: str, name: str, tags: dict[str, str], params: dict[str, Any]) -> str:
        run_id = str(len(self.runs) + 1)
        self.runs[run_id] = Run("RUNNING", False, dict(tags), ())
        return run_id

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        self.runs[run_id] = replace(self.runs[run_id], datasets=(*self.runs[run_id].datasets, digest))

    def end_run(self, run_id: str, status: str) -> None:
        self.runs[run_id] = replace(self.runs[run_id], status=status)

    def run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise NotFound(f"run {run_id}")
        return self.runs[run_id]

    def log_files(self, run_id: str, paths: Sequence[Path], artifact_path: str) -> None:
        for path in paths:
            self.files[run_id, f"{artifact_path}/{path.name}"] = path.read_bytes()

    def read_file(self, run_id: str, path: str) -> bytes:
        if (run_id, path) not in self.files:
            raise NotFound(path)
        return self.files[run_id, path]

    def register(self, task: str, folder: Path, run_id: str, tags: dict[str, str], description: str) -> Version:
        versions = self.kept.setdefault(task, [])
        source = shutil.copytree(folder, self.folder / task / str(len(versions) + 1))
        now = datetime.now(UTC)
        versions.append(
            Version(task, len(versions) + 1, "None", dict(tags), run_id, str(source), now, ready=True, aliases=())
        )
        return versions[-1]

    def version(self, task: str, number: int) -> Version:
        if not 0 < number <= len(self.kept.get(task, [])):
            raise NotFound(f"{task}@{number}")
        aliases = (alias for (of, alias), at in self.aliases.items() if (of, at) == (task, number))
        return replace(self.kept[task][number - 1], aliases=tuple(sorted(aliases)))

    def versions(self, task: str) -> list[Version]:
        if task not in self.kept:
            raise NotFound(task)
        return [self.version(task, version.number) for version in self.kept[task]]

    def task_tags(self, task: str) -> dict[str, str]:
        if task not in self.kept:
            raise NotFound(task)
        return {key: value for (of, key), value in self.task_tags_kept.items() if of == task}

    def overview(self) -> list[Head]:
        heads = []
        for task, versions in self.kept.items():
            latest = {version.stage: self.version(task, version.number) for version in versions}
            aliases = {alias: at for (of, alias), at in self.aliases.items() if of == task}
            last = self.releases(task)[-1:]
            heads.append(Head(task, self.task_tags(task), aliases, list(latest.values()), last[0] if last else None))
        return heads

    def by_fingerprint(self, task: str, fingerprint: str) -> list[Version]:
        return [version for version in self.kept.get(task, []) if version.tag("fingerprint") == fingerprint]

    def tasks(self) -> list[str]:
        return sorted(self.kept)

    def download(self, version: Version) -> Path:
        return Path(version.source)

    def set_stage(self, task: str, number: int, stage: Stage) -> None:
        for version in self.kept[task]:
            if version.number == number:
                self.kept[task][number - 1] = replace(version, stage=stage)
            elif version.stage == stage and stage in ("Staging", "Production"):
                self.kept[task][version.number - 1] = replace(version, stage="Archived")

    def set_alias(self, task: str, alias: str, number: int | None) -> None:
        if number is None:
            del self.aliases[task, alias]
        else:
            self.aliases[task, alias] = number

    def tag_version(self, task: str, number: int, key: str, value: str) -> None:
        version = self.kept[task][number - 1]
        self.kept[task][number - 1] = replace(version, tags={**version.tags, key: value})

    def tag_task(self, task: str, key: str, value: str) -> None:
        self.task_tags_kept[task, key] = value

    def untag_task(self, task: str, key: str) -> None:
        self.task_tags_kept.pop((task, key), None)

    def append_release(self, task: str, release: Release) -> int:
        log = self.logs.setdefault(task, [])
        log.append(release.tags())
        return len(log)

    def releases(self, task: str) -> list[Release]:
        read = (Release.from_tags(number, tags) for number, tags in enumerate(self.logs.get(task, []), 1))
        return [release for release in read if release is not None]


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One real store on SQLite for the whole session, since its first opening costs more than a second."""
    import mlflow

    from registry.mlflow.store import Store

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        # Making a Store points the process at it; whoever comes after should find it as it was.
        yield Store(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)


@pytest.fixture
def same_store_afterwards(mlflow_store: Any) -> Iterator[None]:
    """A test that makes a Store of its own points the process at it: put it back."""
    import mlflow

    yield
    mlflow.set_tracking_uri(mlflow_store.uri)
    mlflow.set_registry_uri(mlflow_store.uri)


STORES = ["memory", pytest.param("mlflow", marks=pytest.mark.flow), pytest.param("aliases", marks=pytest.mark.flow)]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The same rules on a dictionary, on MLflow, and on an MLflow whose stages are gone."""
    if request.param == "memory":
        return MemoryStore(tmp_path / "store")
    whole = request.getfixturevalue("mlflow_store")
    return type(whole)(whole.uri, stages=False) if request.param == "aliases" else whole


@pytest.fixture
def task() -> str:
    """A task that no other test has heard of."""
    return f"task-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def candidate(task: str, tmp_path: Path, write_adapter: MakeAdapter) -> Callable[..., Version]:
    """Register an evaluated candidate of the test's task: ``candidate(store, passed=False)``."""
    made = itertools.count()

    def register(store: Any, passed: bool = True, forced: bool = False, **changes: Any) -> Version:
        seed = next(made)
        fingerprint = hashlib.sha256(str(seed).encode()).hexdigest()
        rows = DataPin(hash="d" * 64, lock={f"prepare@{task}": {"outs": [{"md5": DVC_MD5}]}})
        said = {"seed": seed, "fingerprint": fingerprint, "data": rows} | changes | {"task": task}
        folder = write_adapter(tmp_path / f"adapter-{seed}", **said)
        report = tmp_path / f"gate-{seed}.json"
        champion = queries.current(store, task, "Production")
        report.write_text(json.dumps({"passed": passed, "seed": seed, "champion": champion and champion.number}))
        mark = adapter_folder.read(folder).manifest.fingerprint
        run = store.start_run(task, f"run-{seed}", {f"{PREFIX}fingerprint": mark}, {})
        store.log_dataset(run, task, DVC_MD5, "reviews.csv", "training")
        return registration.register(store, folder, run, report, DVC_MD5, forced)

    return register


@pytest.fixture
def base_hash(draft: MakeDraft) -> str:
    """What params.yaml declares in these tests."""
    return draft().base.hash


@pytest.fixture
def promote(store: Any, task: str, base_hash: str) -> Callable[..., lifecycle.ReleaseResult]:
    """``promote(2)``: put version 2 into Production, without a number the one in Staging."""

    def move(number: int | None = None, reason: str = "better", **options: Any) -> lifecycle.ReleaseResult:
        return lifecycle.promote(store, task, number, reason=reason, base_hash=base_hash, **{"who": "ada"} | options)

    return move


@pytest.fixture
def rollback(store: Any, task: str, base_hash: str) -> Callable[..., lifecycle.ReleaseResult]:
    """``rollback(1)``: back to version 1, without a number to the last good one."""

    def move(to: int | None = None, reason: str = "worse", **options: Any) -> lifecycle.ReleaseResult:
        return lifecycle.rollback(store, task, to, reason=reason, base_hash=base_hash, **{"who": "bob"} | options)

    return move


@pytest.fixture
def released(store: Any, candidate: Callable[..., Version], promote: Any) -> Callable[[int], None]:
    """``released(2)``: two more versions that went into Production, one after the other."""

    def release(count: int) -> None:
        for _ in range(count):
            candidate(store)
            promote()

    return release


class Seen:
    """What anybody sees of the test's task in the store."""

    def __init__(self, store: Any, task: str) -> None:
        self._store, self._task = store, task

    @property
    def stages(self) -> list[str]:
        """Of each version; Archived is None, since not every store tells them apart."""
        return [version.stage.replace("Archived", "None") for version in self._store.versions(self._task)]

    @property
    def aliases(self) -> dict[str, int]:
        return {alias: version.number for version in self._store.versions(self._task) for alias in version.aliases}

    @property
    def log(self) -> list[tuple[str, int]]:
        """Action and version of each entry that took effect."""
        return [(e.release.action, e.release.version) for e in queries.history(self._store, self._task) if not e.void]


@pytest.fixture
def seen(store: Any, task: str) -> Seen:
    return Seen(store, task)


@pytest.fixture
def damage(store: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """``damage()``: one byte of the weights is flipped in whatever is downloaded from now on."""

    def begin() -> None:
        real = store.download

        def damaged(version: Version) -> Path:
            folder: Path = real(version)
            raw = bytearray((folder / adapter_folder.WEIGHTS).read_bytes())
            raw[-1] ^= 1
            (folder / adapter_folder.WEIGHTS).write_bytes(raw)
            return folder

        monkeypatch.setattr(store, "download", damaged)

    return begin


@pytest.fixture
def edit_entry(store: Any, task: str) -> Callable[..., None]:
    """``edit_entry(2, version="1")``: write over a release in the log, as anybody may in MLflow's page."""

    def edit(number: int, **fields: str) -> None:
        for name, value in fields.items():
            if isinstance(store, MemoryStore):
                store.logs[task][number - 1][PREFIX + name] = value
            else:
                store.tag_version(task + ".releases", number, PREFIX + name, value)

    return edit
