"""dvc.yaml names what its stages really depend on, and a preparation notices every change and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock

from components.base.base_hash import hash_base
from components.config.params import load
from components.data.prepare import read_examples, read_report
from components.errors import DataError, ParamsError, PrefaceError, SetupError, SourceError, SourceUnavailable
from components.provenance import stage_code
from components.redaction import redact
from components.sources import identity
from flows.dvc import faults, repro
from tests.planted_stage import plant

ROOT = Path(__file__).parents[3]
ROWS = b"text,target\n" + b"".join(b"text number %d,%s\n" % (n, (b"neg", b"pos")[n % 2]) for n in range(60))


def stage_definitions() -> Any:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


# --- what dvc.yaml and dvc.lock say -----------------------------------------------------------------------------------


def at(said: Any, path: str) -> Any:
    """What stands at a key path."""
    for part in path.split("."):
        said = said.get(part)
    return said


def stale_entries(root: Path) -> list[str]:
    """What dvc.lock says otherwise than the code and the parameters, found without running or fetching anything."""
    declared = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    locked = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    found = []
    for stage, definition in yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        for key, item in declared["bases" if stage == "base" else "tasks"].items():
            name = f"{stage}@{key}"
            if name not in locked:
                found.append(f"{name}: not in dvc.lock")
                continue
            entry = locked[name]
            named = {
                d.replace("${key}", key).replace("${item.base}", item.get("base", ""))
                for d in definition["do"].get("deps", ())
            }
            if named != {dep["path"] for dep in entry.get("deps", ())}:
                found.append(f"{name}: other dependencies")
            for dep in entry.get("deps", ()):
                if dep["path"].startswith("data/sources/"):
                    content = (root / dep["path"]).read_bytes() if (root / dep["path"]).is_file() else b""
                    if hashlib.md5(content, usedforsecurity=False).hexdigest() != dep["md5"]:
                        found.append(f"{name}: another {dep['path']}")
            for file, values in entry.get("params", {}).items():
                said = yaml.safe_load((root / file).read_text(encoding="utf-8")) if (root / file).is_file() else {}
                found += [
                    f"{name}: another {path} in {file}" for path, value in values.items() if at(said, path) != value
                ]
    for key, item in declared["bases"].items():
        said = json.loads((root / f"data/sources/bases/{key}.json").read_text(encoding="utf-8"))
        if said["hash"] != item["hash"]:
            found.append(f"data/sources/bases/{key}.json: another hash")
        if said["code"] != {"base": stage_code.digest("base")}:
            found.append(f"data/sources/bases/{key}.json: other code")
    for key, task in load(root / "params.yaml").tasks.items():
        said = json.loads((root / f"data/sources/{key}.json").read_text(encoding="utf-8"))
        if (said["source"], said["data"]) != (redact(task.data.source), identity.settings(task.data)):
            found.append(f"data/sources/{key}.json: other than params.yaml")
        if said["code"] != {stage: stage_code.digest(stage) for stage in ("fetch", "prepare")}:
            found.append(f"data/sources/{key}.json: other code")
    return found


def test_the_committed_lock_is_that_of_the_committed_code_and_parameters() -> None:
    stale = stale_entries(ROOT)
    assert not stale, "run `preface prepare` and commit dvc.lock and data/sources"


# --- what a preparation does ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _prepared(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Callable[..., Path]) -> Path:
    """A project of two tasks on a tiny base, prepared once; each test gets a copy."""
    root = tmp_path_factory.mktemp("project")
    (root / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(tiny_base_folder("llama"), root / "tiny")
    (root / "film.csv").write_bytes(ROWS)
    (root / "news.csv").write_bytes(ROWS)
    task = {
        "base": "tiny",
        "data": {"source": "film.csv", "format": "csv", "labels": ["neg", "pos"], "max_tokens": 16},
        "instruction": "Say it.",
        "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.5}],
    }
    news = task | {"data": task["data"] | {"source": "news.csv"}}  # type: ignore[operator]
    base = {"source": "tiny", "hash": hash_base(root / "tiny").value}
    write_params(root, {"bases": {"tiny": base}, "tasks": {"film": task, "news": news}})
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    with pytest.MonkeyPatch.context() as patch:
        _own_dvc_folders(patch, tmp_path_factory.mktemp("dvc"))
        repro.prepare(root)
    return root


def _own_dvc_folders(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Neither a developer's DVC configuration nor DVC's machine-wide cache."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        patch.setenv(name, str(folder / name.lower()))


@pytest.fixture
def project(_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _own_dvc_folders(monkeypatch, tmp_path / "dvc")
    shutil.copytree(_prepared, tmp_path / "project")
    return tmp_path / "project"


def write_params(root: Path, params: Any) -> None:
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def change(root: Path, path: str, value: object) -> None:
    """Set one key of params.yaml by its path."""
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    here = params
    *way, last = path.split(".")
    for part in way:
        here = here[part]
    here[last] = value
    write_params(root, params)


def prepare(root: Path, *tasks: str) -> tuple[dict[str, repro.DataVersion], set[str]]:
    """The versions, and the stages that ran."""
    lines: list[str] = []
    versions = repro.prepare(root, tasks or None, lines.append)
    return versions, {line.split("'")[1] for line in lines if line.startswith("Running stage")}


@pytest.mark.flow
def test_a_second_preparation_does_nothing(project: Path) -> None:
    def state() -> dict[Path, int]:
        made = [project / "dvc.lock", *(project / "data").rglob("*"), *(project / "bases").rglob("*")]
        return {path: path.stat().st_mtime_ns for path in made}

    before = state()
    versions, ran = prepare(project)
    assert ran == set()
    assert state() == before
    for task, version in versions.items():
        assert version.content_hash == read_examples(project / "data/prepared" / task).content_hash
        assert version.dvc_md5.endswith(".dir")
        assert version.lock_entry == repro.lock_entry(project, task)
        assert set(version.lock_entry) == {f"fetch@{task}", f"prepare@{task}"}


@pytest.mark.flow
def test_git_sees_the_lock_and_the_identities_and_none_of_the_data(project: Path) -> None:
    listing = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    made = {line[3:] for line in listing.stdout.splitlines() if not line[3:].startswith(("tiny/", ".tiny."))}
    written = {"dvc.lock", "data/sources/film.json", "data/sources/news.json", "data/sources/bases/tiny.json"}
    own = {".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"}
    assert made == written | own | {"film.csv", "news.csv"}


@pytest.mark.flow
def test_a_fresh_clone_makes_the_same_lock_byte_for_byte(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    for made in ("bases", "data", ".dvc/cache", ".dvc/tmp", ".preface", "dvc.lock"):
        path = project / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, ran = prepare(project)
    assert len(ran) == 5
    assert (project / "dvc.lock").read_bytes() == lock


@pytest.mark.flow
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("tasks.film.data.max_tokens", 32, {"prepare@film"}),
        ("tasks.film.gate", [{"metric": "accuracy", "direction": "higher", "threshold": 0.9}], set()),
        ("tasks.film.data.source", "news.csv", {"fetch@film", "prepare@film"}),
    ],
)
def test_changing_keys_of_one_task_reruns_that_task_alone(
    project: Path, path: str, value: object, expected: set[str]
) -> None:
    change(project, path, value)
    _, ran = prepare(project)
    assert ran == expected


@pytest.mark.flow
def test_changed_code_reruns_the_stages_that_run_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_code(monkeypatch, "prepare")
    _, ran = prepare(project, "news")
    assert ran == {"prepare@news"}


@pytest.mark.flow
def test_a_folder_of_the_same_name_in_a_project_is_not_taken_for_ours(project: Path) -> None:
    (project / "components").mkdir()
    (project / "components/__init__.py").write_text("raise SystemExit('not ours')\n", encoding="utf-8")
    change(project, "tasks.film.data.max_tokens", 32)
    _, ran = prepare(project)
    assert ran == {"prepare@film"}


def other_code(patch: pytest.MonkeyPatch, changed: str) -> None:
    """As if a file that this stage runs had changed."""
    real = stage_code.digest
    patch.setattr(stage_code, "digest", lambda stage: "0" * 32 if stage == changed else real(stage))


@pytest.mark.flow
def test_a_lock_behind_its_code_parameters_or_sources_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stale_entries(project) == []
    change(project, "tasks.film.data.max_tokens", 8)
    other_code(monkeypatch, "prepare")
    news = project / "data/sources/news.json"
    said = json.loads(news.read_text(encoding="utf-8"))
    news.write_text(json.dumps(said | {"identity": {"sha256": "0" * 64}}), encoding="utf-8")
    assert stale_entries(project) == [
        "fetch@news: another identity in data/sources/news.json",
        "data/sources/film.json: other than params.yaml",
        "data/sources/film.json: other code",
        "data/sources/news.json: other code",
    ]


@pytest.mark.flow
@pytest.mark.parametrize("kind", ["file", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("s3", "http"))])
def test_rows_appended_at_the_source_are_noticed(project: Path, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "s3":
        bucket = request.getfixturevalue("bucket")
        source, put = "s3://reviews/film.csv", lambda body: bucket.put_object(Key="film.csv", Body=body)
    elif kind == "http":
        site = request.getfixturevalue("site")
        source, put = f"{site.url}/film.csv", lambda body: site.put("/film.csv", body)
    else:
        source, put = "film.csv", (project / "film.csv").write_bytes
    put(ROWS)
    change(project, "tasks.film.data.source", source)
    first = prepare(project, "film")[0]["film"]
    assert prepare(project, "film")[1] == set()

    put(ROWS + b"text number 60,neg\n")
    versions, ran = prepare(project, "film")
    assert ran == {"fetch@film", "prepare@film"}
    assert versions["film"].content_hash != first.content_hash
    assert read_report(project / "data/prepared/film")["rows_read"] == 61


@pytest.mark.flow
def test_a_refusal_is_told_as_the_stage_said_it_and_leaves_no_data(project: Path) -> None:
    with (project / "film.csv").open("ab") as file:
        file.write(b"fine,good\n" * 30)
    with pytest.raises(DataError, match=r"^film: 30 of 90 rows are bad, .*film\.csv:62: label 'good' is none of .*\Z"):
        prepare(project, "film")
    assert not (project / "data/prepared/film").exists()
    assert prepare(project, "news")[1] == set()


@pytest.mark.flow
def test_a_stage_that_crashes_is_told_in_one_line(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", plant(tmp_path / "planted", "raise KeyError('planted')\n"))
    other_code(monkeypatch, "prepare")
    with pytest.raises(
        PrefaceError, match=r"^the stage prepare@film crashed: KeyError: 'planted'; report it with the file \S+$"
    ) as raised:
        prepare(project, "film")
    report = Path(str(raised.value).split()[-1])
    assert report.parent == project / ".preface" / "crashes"
    assert "Traceback (most recent call last)" in report.read_text(encoding="utf-8")


@pytest.mark.flow
def test_of_many_tasks_each_has_its_own_fault_out_of_one_preparation(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is not there, rows that are refused, a base that is not as pinned; and one task that is well."""
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    tasks, film = params["tasks"], params["tasks"]["film"]
    (project / "other.csv").write_text("text,target\n" + "fine,good\n" * 30, encoding="utf-8")
    for name, source in {"lost": "nowhere.csv", "wrong": "other.csv"}.items():
        tasks[name] = film | {"data": film["data"] | {"source": source}}
    params["bases"]["altered"] = params["bases"]["tiny"] | {"hash": "0" * 64}
    tasks["unlike"] = film | {"base": "altered"}
    write_params(project, params)
    started: list[str] = []
    real = repro._run

    def counted(root: Path, arguments: Any, say: Any) -> Any:
        started.append(arguments[0])
        return real(root, arguments, say)

    monkeypatch.setattr(repro, "_run", counted)
    found = repro.prepare_each(project, list(tasks))

    assert list(found) == list(tasks)
    assert isinstance(found["film"], repro.DataVersion)
    assert isinstance(found["news"], repro.DataVersion)
    assert "nowhere.csv" in str(found["lost"])
    assert "label 'good' is none of" in str(found["wrong"])
    assert str(found["wrong"]).startswith("wrong: ")
    assert "0000" in str(found["unlike"])
    assert started == ["repro"], "DVC was asked once, for all"


SAID_BY_DVC = """\
Stage 'base@tiny' didn't change, skipping
Running stage 'fetch@bad1':
> python -m components.sources.byte_source bad1
SourceError: bad1: nowhere.csv is not there
WARNING: failed to run: python -m components.sources.byte_source bad1, exited with 1
Running stage 'fetch@bad2':
> python -m components.sources.byte_source bad2
Updating lock file 'dvc.lock'
Running stage 'prepare@bad2':
> python -m components.data.prepare bad2
DataError: bad2: nothing is left for train; add rows
WARNING: failed to run: python -m components.data.prepare bad2, exited with 1
Running stage 'prepare@good':
> python -m components.data.prepare good
Updating lock file 'dvc.lock'
ERROR: failed to reproduce stages: 'fetch@bad1' and 'prepare@bad2'
"""


def test_each_task_s_fault_is_read_off_what_dvc_said_of_all(tmp_path: Path) -> None:
    tasks: Any = {name: SimpleNamespace(base="tiny") for name in ("bad1", "bad2", "good")}

    found = repro._faults(tmp_path, SAID_BY_DVC.splitlines(), tasks)

    assert {task: (type(fault), str(fault)) for task, fault in found.items()} == {
        "bad1": (SourceError, "bad1: nowhere.csv is not there"),
        "bad2": (DataError, "bad2: nothing is left for train; add rows"),
    }


def test_a_base_that_fails_fails_every_task_on_it(tmp_path: Path) -> None:
    lines = [
        "Running stage 'base@tiny':",
        "BaseMismatch: base tiny is not as pinned",
        "ERROR: failed to reproduce stages: 'base@tiny'",
    ]
    tasks: Any = {"film": SimpleNamespace(base="tiny"), "news": SimpleNamespace(base="other")}

    assert {task: str(fault) for task, fault in repro._faults(tmp_path, lines, tasks).items()} == {
        "film": "base tiny is not as pinned"
    }


def test_where_dvc_itself_fails_every_task_has_its_words(tmp_path: Path) -> None:
    lines = ["ERROR: Lock file 'dvc.lock' is corrupted"]
    tasks: Any = {"film": SimpleNamespace(base="tiny"), "news": SimpleNamespace(base="tiny")}

    found = repro._faults(tmp_path, lines, tasks)

    assert {task: str(fault) for task, fault in found.items()} == dict.fromkeys(
        tasks,
        "dvc repro failed: ERROR: Lock file 'dvc.lock' is corrupted; `git checkout dvc.lock` brings it back; or delete"
        " it, and it is made anew",
    )


@pytest.mark.flow
def test_a_source_that_is_gone_for_now_or_for_good_leaves_the_data_as_it_was(project: Path, site: Any) -> None:
    before = read_examples(project / "data/prepared/film")
    for status, kind in ((503, SourceUnavailable), (404, SourceError)):
        change(project, "tasks.film.data.source", site.put("/film.csv", status=status))
        with pytest.raises(kind, match=rf"{status}"):
            prepare(project, "film")
    assert read_examples(project / "data/prepared/film") == before


@pytest.mark.flow
def test_a_corrupted_cache_object_is_checked_out_by_dvc_and_refused_by_us(project: Path) -> None:
    prepared = project / "data/prepared/film"
    digest = hashlib.md5((prepared / "examples.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    rows = pq.read_table(prepared / "examples.parquet")
    cached = project / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    cached.chmod(0o644)
    pq.write_table(rows.slice(1), cached)
    cached.chmod(0o444)  # a faulty disk leaves the mode as it was, and DVC looks at no more
    shutil.rmtree(prepared)

    assert prepare(project, "film")[1] == set()
    with pytest.raises(DataError, match=r"holds rows of hash .*delete the folder and \.dvc/cache"):
        read_examples(prepared)

    for remedy in (prepared, project / ".dvc/cache"):
        shutil.rmtree(remedy)
    prepare(project, "film")
    read_examples(prepared)


@pytest.mark.flow
def test_push_copies_raw_and_prepared_data_to_the_remote(project: Path) -> None:
    version = prepare(project, "film")[0]["film"]
    repro.push(project, ["film"])
    remote = project / ".preface/dvc-remote/files/md5"
    for stage in version.lock_entry.values():
        digest = stage["outs"][0]["md5"]
        listed = json.loads((remote / digest[:2] / digest[2:]).read_text(encoding="utf-8"))
        assert all((remote / file["md5"][:2] / file["md5"][2:]).is_file() for file in listed)


@pytest.mark.flow
def test_a_push_of_what_the_cache_has_not_whole_is_a_failure(project: Path) -> None:
    version = prepare(project, "film")[0]["film"]
    digest = version.lock_entry["prepare@film"]["outs"][0]["md5"]
    (project / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).unlink()

    with pytest.raises(DataError, match="cache lacks files of the raw or prepared data of film"):
        repro.push(project, ["film"])


def test_one_preparation_at_a_time(project_of_one: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = project_of_one("{source: rows.csv, format: csv, labels: [neg, pos]}")
    (root / ".preface").mkdir()
    monkeypatch.setattr(repro, "WAIT", 0.01)
    with FileLock(root / ".preface/prepare.lock"), pytest.raises(SetupError, match="held by another preparation"):
        repro.prepare(root)


def test_without_a_task_there_is_nothing_to_prepare(tmp_path: Path) -> None:
    write_params(tmp_path, {"bases": {}, "tasks": None})

    with pytest.raises(ParamsError, match="has no task; describe one under `tasks:`"):
        repro.prepare(tmp_path)


def test_a_task_that_was_never_prepared_has_no_entry(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dvc\.lock has no complete entry of 'film' .*run `preface prepare film`"):
        repro.lock_entry(tmp_path, "film")
    (tmp_path / "dvc.lock").write_text("stages: {fetch@film: {}}", encoding="utf-8")
    with pytest.raises(DataError, match="no complete entry of 'film'"):
        repro.lock_entry(tmp_path, "film")


# --- nobody's file is lost --------------------------------------------------------------------------------------------


def everything(root: Path) -> dict[str, bytes]:
    """All files but what DVC and we keep of our own doings."""
    own = (".git", ".dvc/tmp", ".preface")
    return {
        name: path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not (name := path.relative_to(root).as_posix()).startswith(own)
    }


@pytest.mark.flow
@pytest.mark.parametrize(
    ("key", "source"),
    [
        ("tasks.film.data.source", "data/raw/film/mine.csv"),
        ("tasks.film.data.source", "data/raw/news/mine.csv"),
        ("tasks.news.data.source", "data/prepared/film/mine.csv"),
        ("tasks.film.data.source", "link.csv"),
        ("tasks.film.data.source", "data"),
        ("bases.tiny.source", "bases/tiny"),
    ],
)
def test_a_source_that_would_be_deleted_is_refused_before_anything_is_touched(
    project: Path, key: str, source: str
) -> None:
    for folder in ("data/raw/film", "data/raw/news", "data/prepared/film", "bases/tiny"):
        (project / folder / "mine.csv").write_bytes(ROWS)
    (project / "link.csv").symlink_to("data/raw/film/mine.csv")
    change(project, key, source)
    (project / "film.csv").write_bytes(ROWS + b"text number 60,neg\n")  # there is work to do
    before = everything(project)
    for tasks in ((), ("film",)):
        with pytest.raises(SourceError, match=rf"^{key} "):
            prepare(project, *tasks)
        assert everything(project) == before


@pytest.mark.flow
@pytest.mark.parametrize(
    ("key", "source", "stage"),
    [
        ("tasks.film.data.source", "data/raw/film/mine.csv", "fetch@film"),
        ("tasks.film.data.source", "data/raw/news/mine.csv", "fetch@news"),
        ("bases.tiny.source", "bases/tiny", "base@tiny"),
    ],
)
def test_a_repro_by_hand_deletes_no_source_either(project: Path, key: str, source: str, stage: str) -> None:
    change(project, key, source)
    mine = project / source if source.endswith(".csv") else project / source / "mine.txt"
    mine.write_bytes(b"only copy")
    with pytest.raises(SourceError, match=rf"^{key} lies in"):
        repro.dvc(project, ["repro", "--force", "--single-item", stage])
    assert mine.read_bytes() == b"only copy"


@pytest.mark.flow
def test_a_preparation_writes_and_deletes_in_our_folders_alone(project: Path) -> None:
    (project.parent / "beside.csv").write_bytes(b"somebody's")
    (project / "data/mine.csv").write_bytes(b"somebody's")
    (project / "bases/notes.txt").write_bytes(b"somebody's")
    for made in ("data/raw", "data/prepared", "bases/tiny"):
        shutil.rmtree(project / made)
    made = ("project/data/raw/", "project/data/prepared/", "project/data/sources/", "project/bases/tiny/")
    own = (*made, "project/.dvc/", "project/.preface/", "project/.git/", "project/dvc.lock", "dvc/")

    def others() -> dict[str, tuple[int, bytes]]:
        return {
            name: (path.stat().st_mtime_ns, path.read_bytes())
            for path in project.parent.rglob("*")
            if path.is_file()
            and not (name := path.relative_to(project.parent).as_posix()).startswith(own)
            and "__pycache__" not in name
        }

    (project / "film.csv").write_bytes(ROWS + b"text number 60,neg\n")
    before = others()
    prepare(project)
    assert others() == before


@pytest.mark.flow
def test_of_many_tasks_the_one_whose_source_lies_in_ours_keeps_no_other_from_its_data(project: Path) -> None:
    change(project, "tasks.film.data.source", "data/raw/film/film.csv")
    found = repro.prepare_each(project, ["film", "news"])
    assert isinstance(found["film"], SourceError)
    assert isinstance(found["news"], repro.DataVersion)


# --- no secret is written, and no new signature is a change -----------------------------------------------------------


@pytest.mark.flow
def test_a_presigned_address_leaves_no_secret_and_runs_nothing_when_signed_anew(project: Path, site: Any) -> None:
    address = site.put("/film.csv", ROWS, headers={"ETag": '"1"'}, head=False)
    change(project, "tasks.film.data.source", f"{address}?X-Amz-Expires=60&X-Amz-Signature=planted-one")
    lines: list[str] = []
    versions = repro.prepare(project, ["film"], lines.append)
    assert "Running stage 'fetch@film':" in lines
    change(project, "tasks.film.data.source", f"{address}?X-Amz-Expires=99&X-Amz-Signature=planted-two")
    assert prepare(project, "film")[1] == set()

    site.put("/film.csv", ROWS + b"text number 60,neg\n", headers={"ETag": '"2"'}, head=False)
    assert prepare(project, "film")[1] == {"fetch@film", "prepare@film"}

    site.put("/film.csv", status=403)
    with pytest.raises(SourceError, match="403, access is denied; its signature may have expired") as raised:
        prepare(project, "film")
    (project / "params.yaml").unlink()
    written = b"".join(path.read_bytes() for path in project.rglob("*") if path.is_file())
    assert b"planted" not in written + "".join([str(versions), str(raised.value), *lines]).encode()


@pytest.mark.flow
def test_a_stage_that_says_a_secret_is_not_repeated(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "raise OSError('GET http://bob:planted-pw@host/rows.csv?sig=planted-sig failed')"
    code = f"print('http://bob:planted-pw@host')\n{said}\n"
    monkeypatch.setenv("PYTHONPATH", plant(tmp_path / "planted", code))
    other_code(monkeypatch, "prepare")
    with pytest.raises(PrefaceError, match="the stage prepare@film crashed") as raised:
        prepare(project, "film")
    assert "planted" not in str(raised.value)
    assert "planted-" not in Path(str(raised.value).split()[-1]).read_text(encoding="utf-8")


# --- params.yaml as DVC reads it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["https://host/rows.csv", "s3://b/rows.csv", f"hf://a/b@{'0' * 40}/rows.csv"])
def test_an_address_that_dvc_cannot_read_is_told_before_dvc_is_called(
    project_of_one: Callable[[str], Path], address: str
) -> None:
    root = project_of_one(f"{{source: {address}, format: csv, labels: [neg, pos]}}")
    with pytest.raises(ParamsError, match=rf'line 4: .*in quotes: write "{address}"'):
        repro.prepare(root)
    assert not (root / "data").exists()


@pytest.mark.parametrize("name", ["5e3", "0o7"])
def test_a_name_that_dvc_reads_as_a_number_is_told(project_of_one: Callable[..., Path], name: str) -> None:
    root = project_of_one("{source: rows.csv, format: csv, labels: [neg, pos]}", name)
    with pytest.raises(ParamsError, match=r"DVC reads the name .* otherwise; write it in quotes"):
        repro.prepare(root)


def test_a_date_that_there_is_not_is_told(project_of_one: Callable[..., Path]) -> None:
    root = project_of_one("{source: rows.csv, format: csv, labels: [2026-13-01, pos]}")
    with pytest.raises(ParamsError, match=r"cannot be read by DVC: month must be in 1..12; put .* in quotes"):
        repro.prepare(root)


@pytest.fixture
def project_of_one(tmp_path: Path) -> Callable[..., Path]:
    """A params.yaml as somebody types it, the data of its one task given."""

    def make(data: str, name: str = "film") -> Path:
        gate = "[{metric: accuracy, direction: higher, threshold: 0.5}]"
        text = f"bases: {{tiny: {{source: tiny, hash: '{'0' * 64}'}}}}\ntasks:\n  {name}:\n    data: {data}\n"
        text += f"    base: tiny\n    instruction: Say it.\n    gate: {gate}\n"
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ERROR: /srv/project is not a git repository", "type `git init` there"),
        ("'./dvc.lock' validation failed: expected a dictionary.", "`git checkout dvc.lock`"),
        ("ERROR: unexpected error - disk I/O error", "make room"),
        ("ERROR: unexpected error - [Errno 17] File exists: '/srv/project/.dvc/tmp'", "move it away"),
        ("ERROR: unexpected error - [Errno 30] Read-only file system: '/srv/project/.dvc/tmp'", "read-only"),
    ],
)
def test_a_fault_of_the_machine_comes_with_what_to_do(tmp_path: Path, said: str, remedy: str) -> None:
    fault = faults.fault(tmp_path, [said, "Having any troubles? Hit us up at https://dvc.org/support"], "repro")

    assert isinstance(fault, SetupError)
    assert said in str(fault)
    assert remedy in str(fault)
    assert "troubles" not in str(fault)
