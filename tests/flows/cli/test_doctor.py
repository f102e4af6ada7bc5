"""The doctor: a planted fault for each check, and that looking changes nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import doctor
from cli.lock import TESTS_ALONE
from cli.main import preface
from components.base.base_hash import hash_base
from flows.process import local_project

PARAMS = """
bases:
  tiny: {{source: nowhere, hash: "{hash}"}}
tasks:
  reviews:
    base: tiny
    data: {{source: reviews.csv, format: csv, labels: [negative, positive]}}
    instruction: Say how it is.
    gate: [{{metric: accuracy, direction: higher, threshold: 0.5}}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS.format(hash="0" * 64))
    monkeypatch.chdir(tmp_path)
    for name, value in local_project.SWITCHES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/.preface/mlflow.db")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".preface" / "prefect"))
    monkeypatch.setenv("PREFACE_BASES", str(tmp_path / "bases"))
    return tmp_path


@pytest.fixture
def health() -> Iterator[str]:
    """A server that is as well as its address says: .../200 or .../503."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def result(check: doctor.Check) -> str:
    assert bool(check.mend) == (check.result != "ok"), "what is not well comes with what to type"
    return check.result


class TestPackages:
    def test_what_is_locked_is_here(self) -> None:
        check = doctor.packages(Path(__file__).parents[3] / "requirements.lock")

        assert result(check) == "ok", check.found

    def test_another_version_and_a_missing_one_are_named(self, tmp_path: Path) -> None:
        lock = tmp_path / "requirements.lock"
        lock.write_text("# versions\nclick==0.0.1\nno-such-thing==1.0\nnumpy==0.1\nrich==0.1\n")

        check = doctor.packages(lock)

        assert result(check) == "fail"
        assert "locked 0.0.1" in check.found
        assert "no-such-thing missing, locked 1.0" in check.found
        assert check.found.endswith("and 1 more")

    def test_the_suffix_of_a_build_is_no_difference(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu130")
        (tmp_path / "lock").write_text("torch==2.13.0\n")

        assert result(doctor.packages(tmp_path / "lock")) == "ok"

    def test_what_tests_alone_ask_for_may_be_missing_but_not_be_another(self, tmp_path: Path) -> None:
        lock = tmp_path / "requirements.lock"
        lock.write_text(f"{TESTS_ALONE}no-such-thing==1.0\n")
        assert result(doctor.packages(lock)) == "ok"

        lock.write_text(f"{TESTS_ALONE}no-such-thing==1.0\npytest==0.1\n")
        assert doctor.packages(lock).found.startswith("pytest ")

    def test_without_a_lock_nothing_is_claimed(self, tmp_path: Path) -> None:
        check = doctor.packages(tmp_path / "requirements.lock")

        assert (result(check), check.found) == ("ok", "preface-adapters 0.1.0, and the project pins no versions")

    def test_a_lock_that_cannot_be_read_is_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "requirements.lock").mkdir()

        assert result(doctor.packages(tmp_path / "requirements.lock")) == "warn"


def test_another_python_is_a_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert result(doctor.python()) == "ok"
    monkeypatch.setattr("platform.python_version", lambda: "3.13.1")
    assert result(doctor.python()) == "fail"


def test_the_device_comes_with_the_precision_and_why() -> None:
    check = doctor.device()

    assert result(check) == "ok"
    assert "float" in check.found
    assert ": " in check.found


def test_faults_of_params_are_told_and_its_bases_then_left(project: Path) -> None:
    assert result(doctor.parameters(project / "params.yaml")) == "ok"
    (project / "params.yaml").write_text("bases: []\n")
    assert result(doctor.parameters(project / "params.yaml")) == "fail"
    assert list(doctor.bases(project)) == []


class TestBases:
    def test_absent_is_a_warning(self, project: Path) -> None:
        (check,) = doctor.bases(project)

        assert (result(check), check.mend) == ("warn", "preface prepare")

    def test_as_pinned_or_not(self, project: Path, tiny_base_folder: object) -> None:
        folder = tiny_base_folder()  # type: ignore[operator]
        (project / "bases").mkdir()
        (project / "bases" / "tiny").symlink_to(folder)

        (other,) = doctor.bases(project)
        (project / "params.yaml").write_text(PARAMS.format(hash=hash_base(folder).value))
        (same,) = doctor.bases(project)

        assert (result(other), result(same)) == ("fail", "ok")
        assert "0" * 64 in other.found

    def test_half_a_base_is_a_fail(self, project: Path) -> None:
        (project / "bases" / "tiny").mkdir(parents=True)

        (check,) = doctor.bases(project)

        assert result(check) == "fail"

    def test_elsewhere_it_is_a_training_that_makes_it(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And not over one that is there, half or whole."""
        elsewhere = project / "elsewhere"
        monkeypatch.setenv("PREFACE_BASES", str(elsewhere))
        (absent,) = doctor.bases(project)
        (elsewhere / "tiny").mkdir(parents=True)
        (half,) = doctor.bases(project)

        assert (result(absent), absent.mend) == ("warn", "preface retrain TASK")
        assert (result(half), half.mend) == ("fail", f"rm -r {elsewhere / 'tiny'} && preface retrain TASK")


class TestStores:
    def test_an_embedded_store_is_left_unmade(self, project: Path) -> None:
        check = doctor.tracking_store(f"sqlite:///{project}/.preface/mlflow.db")

        assert result(check) == "ok"
        assert not (project / ".preface").exists()

    def test_a_broken_store_is_a_fail(self, project: Path) -> None:
        (project / "mlflow.db").write_text("not a database at all, whatever its name says" * 100)

        check = doctor.tracking_store(f"sqlite:///{project}/mlflow.db")

        assert result(check) == "fail"

    def test_artifacts_need_a_folder(self, project: Path) -> None:
        uri = f"sqlite:///{project}/.preface/mlflow.db"
        assert result(doctor.artifact_folder(uri)) == "ok"

        (project / ".preface").write_text("a file where a folder should be")

        assert result(doctor.artifact_folder(uri)) == "fail"
        assert result(doctor.artifact_folder("http://tracking.example")) == "ok"

    def test_artifacts_of_a_database_need_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = "postgresql://ada:secret@db.example/mlflow"
        nowhere = doctor.artifact_folder(uri)
        monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://adapters/here")

        assert result(nowhere) == "fail"
        assert "set MLFLOW_DEFAULT_ARTIFACT_ROOT" in nowhere.mend
        assert doctor.artifact_folder(uri).found == "kept by s3://adapters/here"

    def test_a_prefect_server_that_is_named_must_answer(self, health: str) -> None:
        assert result(doctor.prefect_api(None)) == "ok"
        assert result(doctor.prefect_api(f"{health}/200")) == "ok"
        assert result(doctor.prefect_api(f"{health}/503")) == "fail"
        assert result(doctor.prefect_api("http://127.0.0.1:9")) == "fail"
        for address in ("nonsense", "http://host:port/api", "http://a host/api", "data:x"):
            assert result(doctor.prefect_api(address)) == "fail"
        assert "secret" not in doctor.prefect_api("me:secret@host:4200/api").found


@pytest.mark.flow
def test_dvc_needs_a_repository_and_wants_a_remote(project: Path) -> None:
    assert result(doctor.data_versions(project)) == "fail"

    (project / ".dvc").mkdir()
    (project / "dvc.yaml").write_text("stages: {}\n")
    config = "[core]\n    no_scm = true\n"
    (project / ".dvc" / "config").write_text(config)
    assert result(doctor.data_versions(project)) == "warn"

    (project / ".dvc" / "config").write_text(config + "['remote \"shelf\"']\n    url = /shelf\n")
    check = doctor.data_versions(project)
    assert (result(check), "shelf" in check.found) == ("ok", True)


@pytest.mark.parametrize(("free", "expected"), [(0, "fail"), (2 * doctor.GIB, "warn"), (50 * doctor.GIB, "ok")])
def test_disk(free: int, expected: str) -> None:
    assert result(doctor.disk(free)) == expected


@pytest.mark.flow
def test_the_command_ends_with_1_on_a_fail_and_makes_nothing(project: Path) -> None:
    before = sorted(project.rglob("*"))

    said = CliRunner().invoke(preface, ["doctor", "--json"])

    checks = json.loads(said.stdout)
    assert {"name", "result", "found", "mend"} == set(checks[0])
    assert ("dvc", "fail") in {(check["name"], check["result"]) for check in checks}
    assert said.exit_code == 1
    assert sorted(project.rglob("*")) == before
