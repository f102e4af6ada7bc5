"""The edge: whatever happens inside a command becomes one line and an exit status, and a crash leaves a report."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from cli import main
from components.errors import DataError, RegistryError, SourceUnavailable, without_secrets
from flows.dvc import faults
from flows.process import edge, local_project
from registry import queries

ROOT = Path(__file__).parents[3]
PARAMS = f"""
bases: {{tiny: {{source: nowhere, hash: "{"1" * 64}"}}}}
tasks:
  film:
    base: tiny
    data: {{source: film.csv, format: csv, labels: [neg, pos]}}
    instruction: Say how it is.
    gate: [{{metric: accuracy, direction: higher, threshold: 0.5}}]
"""
SECRET = "hunter2-of-a-test"
LONG = "9" * 5000
LATIN1 = b"caf\xe9"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    for name in (*local_project.SWITCHES, "MLFLOW_TRACKING_URI", "PREFECT_HOME", "PREFACE_BASES"):
        monkeypatch.setenv(name, os.environ.get(name, f"sqlite:///{tmp_path}/.preface/mlflow.db"))
    return tmp_path


def preface(*arguments: str | bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, which alone gets its arguments as bytes."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120
    )


def guarded(fault: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit status of a command that raises, and what it says."""
    with pytest.raises(SystemExit) as ended, edge.guarded(["preface", "retrain", f"https://a:{SECRET}@b"]):
        raise fault
    return ended.value.code, capsys.readouterr().err


def usage(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """The same of a command that was typed."""
    with pytest.raises(SystemExit) as ended:
        main.main(list(arguments))
    return ended.value.code, capsys.readouterr().err


class TestCrashes:
    @pytest.mark.parametrize(
        "fault",
        [
            KeyError("labels"),
            ZeroDivisionError("division by zero"),
            RuntimeError(f"two\nlines, the first of http://bob:{SECRET}@host/x?token={SECRET}"),
            AssertionError(),
            MemoryError(),
            ConnectionError(f"GET https://host/?sig={SECRET}"),
            ExceptionGroup("two at once", [ValueError("a"), OSError("b")]),
            UnicodeEncodeError("utf-8", "a\udc80", 1, 2, "surrogates not allowed"),
        ],
        ids=lambda fault: type(fault).__name__,
    )
    def test_what_nobody_foresaw_is_70_in_one_line_with_a_report(
        self, fault: Exception, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, said = guarded(fault, capsys)

        (report,) = (project / ".preface" / "crashes").iterdir()
        assert status == 70
        assert said.count("\n") == 1
        assert said.startswith(f"error: preface retrain crashed ({type(fault).__name__}")
        assert str(report) in said
        written = report.read_text()
        assert SECRET not in written + said
        assert "command:   preface retrain https://***@b\n" in written
        assert "Traceback (most recent call last)" in written
        assert all(name in written for name in ("python:", "mlflow 3", "prefect 3", "dvc 3"))
        assert stat.S_IMODE(report.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("name", "value", "raised"),
        [
            ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "abc", "Failed to convert 'abc' for MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"),
            ("MLFLOW_LOGGING_LEVEL", "foo", "Unknown level: 'FOO'"),
            ("PREFECT_API_REQUEST_TIMEOUT", "4x", "1 validation error\nrequest_timeout\n  [input_value='4x']"),
        ],
    )
    def test_a_variable_that_a_library_does_not_take_is_no_crash(
        self,
        name: str,
        value: str,
        raised: str,
        project: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv(name, value)
        status, said = guarded(ValueError(raised), capsys)
        assert status == 1
        assert said.startswith(f"error: {name} is '{value}'")
        assert f"`unset {name}`" in said
        assert said.count("\n") == 1
        assert not (project / ".preface" / "crashes").exists()
        assert guarded(ValueError("labels"), capsys)[0] == 70, "another fault is still ours"

    @pytest.mark.parametrize("where", ["no project", "a file lies where the folder belongs"])
    def test_without_a_folder_of_ours_the_report_goes_to_tmpdir(
        self,
        where: str,
        project: Path,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        room = tmp_path_factory.mktemp("room")
        monkeypatch.setattr("tempfile.tempdir", str(room))
        if where == "no project":
            (project / "params.yaml").unlink()
        else:
            (project / ".preface").touch()

        status, said = guarded(KeyError("x"), capsys)

        (report,) = room.iterdir()
        assert status == 70
        assert str(report) in said

    def test_where_nothing_can_be_written_the_line_says_so(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(project / "nowhere"))
        (project / ".preface").touch()

        status, said = guarded(KeyError("x"), capsys)

        assert (status, said.count("\n")) == (70, 1)
        assert "no report of it could be written" in said

    def test_reports_do_not_pile_up(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for _ in range(23):
            guarded(KeyError("x"), capsys)

        assert len(list((project / ".preface" / "crashes").iterdir())) == 20

    def test_an_error_whose_words_are_secret_keeps_its_cause(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        secret = ValueError(f"https://bob:{SECRET}@host")
        fault = without_secrets(secret)
        fault.__cause__ = secret

        status, said = guarded(fault, capsys)

        (report,) = (project / ".preface" / "crashes").iterdir()
        assert status == 70
        assert "ValueError: https://***@host" in said
        assert "ValueError: https://***@host" in report.read_text()
        assert without_secrets(error := ValueError("plain")) is error

    def test_a_stage_that_crashed_is_70_with_all_that_it_said(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = [
            "Running stage 'prepare@film':",
            "Traceback (most recent call last):",
            '  File "data.py", line 1, in main',
            f"KeyError: 'https://bob:{SECRET}@host'",
            "ERROR: failed to reproduce 'prepare@film': failed to run: python -m components.data.prepare film,"
            " exited with 1",
        ]

        status, said = guarded(faults.fault(project, lines, "repro"), capsys)

        (report,) = (project / ".preface" / "crashes").iterdir()
        assert (status, said.count("\n")) == (70, 1)
        assert "the stage prepare@film crashed: KeyError: 'https://***@host'" in said
        assert str(report) in said
        assert "\n".join(lines[:3]) in report.read_text()
        assert SECRET not in report.read_text()


class TestOthers:
    @pytest.mark.parametrize("fault", [DataError("no rows"), SourceUnavailable("no answer")])
    def test_our_errors_are_1(self, fault: Exception, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert guarded(fault, capsys) == (1, f"error: {fault}\n")
        assert not (project / ".preface").exists()

    @pytest.mark.parametrize(
        ("fault", "remedy"),
        [
            (PermissionError(13, "Permission denied", "/p/.preface/x"), "ls -ld"),
            (OSError(30, "Read-only file system", "/p/.preface"), "mount it so that it can be written"),
            (OSError(28, "No space left on device"), "make room"),
            (OSError(24, "Too many open files"), "ulimit -n"),
            (NotADirectoryError(20, "Not a directory", "/p/.preface/x"), "move it away"),
        ],
        ids=str,
    )
    def test_what_is_wrong_with_the_machine_is_1_and_says_what_to_do(
        self, fault: OSError, remedy: str, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, said = guarded(fault, capsys)

        assert status == 1
        assert remedy in said
        assert str(fault.filename or "") in said
        assert not (project / ".preface").exists()

    @pytest.mark.parametrize("fault", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
    def test_what_is_no_fault_passes(self, fault: BaseException, project: Path) -> None:
        with pytest.raises(type(fault)) as raised, edge.guarded(["preface"]):
            raise fault
        assert raised.value is fault

    def test_escapes_in_an_error_do_not_reach_the_terminal(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "\x1b" not in guarded(DataError("label \x1b]8;;http://evil\x1b\\x"), capsys)[1]
        assert "\x1b" not in guarded(KeyError("label \x1b[31m"), capsys)[1]

    def test_nobody_reading_is_no_crash(self, project: Path) -> None:
        command = f"({sys.executable} -m cli.main --help; echo $? >&2) | true"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

        assert done.stderr.strip() in ("0", "1")


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "which"),
        [
            (("predict", "film", LATIN1), 3),
            (("promote", "film", "--reason", LATIN1), 4),
            (("rollback", "film", b"--reason=" + LATIN1), 3),
            (("status", LATIN1), 2),
            (("show", LATIN1 + b"@7"), 2),
            (("import", LATIN1, "--task", "film"), 2),
            (("predict", "film", b"\xed\xa0\x80"), 3),
            ((LATIN1,), 1),
        ],
    )
    def test_bytes_that_are_no_utf8_are_wrong_usage(
        self, arguments: tuple[str | bytes, ...], which: int, project: Path
    ) -> None:
        done = preface(*arguments, folder=project)

        said = done.stderr.decode()
        assert done.returncode == 2, said
        assert said.count("\n") == 1
        assert said.startswith(f"Error: argument {which} is not UTF-8: byte 0x")
        assert not (project / ".preface").exists()

    def test_half_of_a_pair_is_wrong_usage(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, said = usage(capsys, "predict", "film", "a\ud800b")

        assert (status, said.count("\n")) == (2, 1)
        assert "argument 3 is not UTF-8: half of a pair, U+D800, at character 2" in said

    @pytest.mark.parametrize(
        "number", [LONG, "-1", "0", "99999999999999999999", "७", "１", "1_0", "+7", " 7", "7.0", ""]
    )
    @pytest.mark.parametrize("option", [("promote", "film", "--version"), ("rollback", "film", "--to")])
    def test_a_number_is_digits_within_bounds(
        self, number: str, option: tuple[str, ...], project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, said = usage(capsys, *option, number, "--reason", "x")

        last = said.splitlines()[-1]
        assert status == 2
        assert len(last) < 200
        assert "is no whole number from 1 to 2147483647" in last

    @pytest.mark.parametrize("which", [LONG, "-1", "0x7", "99999999999999999999", "७", "", "@", "\x1b[31m"])
    def test_an_address_without_a_version_is_refused_before_a_store_is_asked(self, which: str) -> None:
        with pytest.raises(RegistryError, match="names no version; write TASK@NUMBER") as raised:
            queries.find(Mock(spec_set=()), f"film@{which}")
        assert len(str(raised.value)) < 600
        assert str(raised.value).isprintable()

    @pytest.mark.parametrize("when", ["9999-12-31T23:59", LONG, "७h", "", "\x1b[31m"])
    def test_a_moment_outside_of_time_is_wrong_usage(
        self, when: str, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, said = usage(capsys, "rollback", "--all", "--since", when, "--reason", "x")

        assert status == 2
        assert "\x1b" not in said
        assert max(map(len, said.splitlines())) < 600

    def test_escapes_that_were_typed_are_not_typed_back(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for arguments in (["status", "a", "\x1b[31m"], ["\x1b[31m"], ["--\x1b[31m"]):
            assert "\x1b" not in usage(capsys, *arguments)[1]


def test_a_folder_that_was_deleted_under_the_shell_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(SystemExit) as ended, edge.guarded(["preface", "status"]):
        pass

    assert ended.value.code == edge.REFUSED
    assert "was deleted; cd into your project" in capsys.readouterr().err
