"""Stages behave alike by themselves and in the server that keeps their imports: output, status, faults, end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from components import stage
from flows.dvc import stage_server
from tests.planted_stage import plant

PLANTED = """
import os, pathlib, sys, time
print("imported", file=open(os.environ["IMPORTS"], "a"))

def run_stage(name):
    from components.errors import DataError
    if name == "says":
        print("out", os.getcwd())
        print("err", file=sys.stderr)
    elif name == "refuses":
        raise DataError("no rows")
    elif name == "leaves":
        sys.exit(7)
    elif name == "crashes":
        raise KeyError("planted")
    elif name == "dies":
        os.kill(os.getpid(), 9)
    else:
        try:
            pathlib.Path("begun").write_text(str(os.getpid()))
            time.sleep(60)
        finally:
            pathlib.Path("ended").touch()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": plant(tmp_path, PLANTED), "IMPORTS": str(tmp_path / "imports")}


@pytest.fixture(params=["by itself", "in the server"])
def settled(environment: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """What stages find in their environment: no server, or one."""
    with stage_server.at_hand(environment) if "server" in request.param else nullcontext(environment) as found:
        yield found


def command(name: str) -> list[str]:
    return [sys.executable, "-P", "-m", "components.stage", "prepare", name]


def ran(settled: Mapping[str, str], name: str, folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(command(name), env=settled, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def appears(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_it_says_and_where_it_works(settled: Mapping[str, str], tmp_path: Path) -> None:
    assert ran(settled, "says", tmp_path) == (0, f"out {tmp_path}\n", "err\n")


def test_how_it_ends(settled: Mapping[str, str], tmp_path: Path) -> None:
    assert ran(settled, "refuses", tmp_path) == (1, "", "DataError: no rows\n")
    assert ran(settled, "leaves", tmp_path) == (7, "", "")
    status, _, said = ran(settled, "crashes", tmp_path)
    assert (status, said.splitlines()[0], said.splitlines()[-1]) == (
        1, "Traceback (most recent call last):", "KeyError: 'planted'",
    )  # fmt: skip


def test_told_to_end_it_cleans_up(settled: Mapping[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(command("waits"), env=settled, cwd=tmp_path) as process:
        appears(tmp_path / "begun")
        process.terminate()

    appears(tmp_path / "ended")


def test_one_that_is_killed_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    with stage_server.at_hand(environment) as settled:
        status, _, said = ran(settled, "dies", tmp_path)

        assert (status, "ended without a word" in said) == (1, True)
        assert ran(settled, "says", tmp_path)[0] == 0, "the others still run"


def test_what_it_needs_is_imported_once(environment: dict[str, str], tmp_path: Path) -> None:
    with stage_server.at_hand(environment) as settled:
        for _ in range(3):
            ran(settled, "says", tmp_path)

    assert (tmp_path / "imports").read_text() == "imported\n"


def test_nothing_of_it_is_left(environment: dict[str, str]) -> None:
    before = set(psutil.Process().children())
    with stage_server.at_hand(environment) as settled:
        folder, [server] = Path(settled[stage.SERVER]).parent, set(psutil.Process().children()) - before

    assert not folder.exists()
    assert not server.is_running()


def test_without_room_for_a_socket_stages_run_by_themselves(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))

    with stage_server.at_hand(environment) as settled:
        assert ran(settled, "says", tmp_path)[0] == 0


def test_a_server_that_is_gone_is_no_fault(environment: dict[str, str], tmp_path: Path) -> None:
    assert ran({**environment, stage.SERVER: str(tmp_path / "socket")}, "says", tmp_path)[0] == 0
