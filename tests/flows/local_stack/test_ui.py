"""The pages: which are started, that they are seen, and that nothing is left running."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import SetupError
from flows.local_stack import supervisor, ui
from flows.process import process_list

EMBEDDED = {"MLFLOW_TRACKING_URI": "sqlite:////project/.preface/mlflow.db"}


def serving(name: str, port: int) -> supervisor.Service:
    return supervisor.Service(name, port, ("-m", "http.server", "--bind", process_list.HOST, str(port)))


def test_only_embedded_stores_get_a_page() -> None:
    servers = {"MLFLOW_TRACKING_URI": "http://tracking.example", "PREFECT_API_URL": "http://prefect.example/api"}

    assert [page.name for page in ui.pages(EMBEDDED)] == ["MLflow", "Prefect"]
    assert EMBEDDED["MLFLOW_TRACKING_URI"] in ui.pages(EMBEDDED)[0].command
    assert [page.name for page in ui.pages(EMBEDDED | {"PREFECT_API_URL": "http://x/api"})] == ["MLflow"]
    assert ui.pages(servers) == []


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path, free_port: Callable[[], int]) -> None:
    page, other = serving("one", free_port()), serving("other", free_port())
    with (
        socket.create_server((process_list.HOST, other.port)),
        pytest.raises(SetupError, match=f"port {other.port} is taken"),
    ):
        supervisor.serve([page, other], tmp_path)

    assert not process_list.listening(page.port)
    assert list(tmp_path.iterdir()) == []


def test_when_one_ends_by_itself_the_others_are_stopped(tmp_path: Path, free_port: Callable[[], int]) -> None:
    page, broken = (
        serving("one", free_port()),
        supervisor.Service("broken", free_port(), ("-c", "import sys; sys.exit('no such store')")),
    )

    with pytest.raises(SetupError, match="broken ended by itself, status 1"):
        supervisor.serve([page, broken], tmp_path)

    assert not process_list.listening(page.port)
    assert (tmp_path / "broken.log").read_text() == "no such store\n"


@pytest.mark.slow  # test_up.py starts the same pages, with all the rest
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_both_pages_answer_until_they_are_told_to_stop(
    tmp_path: Path, how: signal.Signals, free_port: Callable[[], int]
) -> None:
    (tmp_path / ".preface").mkdir()
    (tmp_path / "params.yaml").touch()
    mlflow, prefect = free_port(), free_port()
    code = (
        "import os, pathlib; from flows.local_stack import supervisor, ui; from flows.process import local_project;"
        " root = local_project.enter();"
        f"supervisor.serve(ui.pages(os.environ, {mlflow}, {prefect}), root / '.preface')"
    )
    running = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        said = [running.stdout.readline() for _ in range(4)]
        assert said[-1] == f"{supervisor.READY}\n"
        for address in (f"http://{process_list.HOST}:{mlflow}/", f"http://{process_list.HOST}:{prefect}/api/health"):
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert answer.status == 200
    finally:
        running.send_signal(how)
        assert running.communicate(timeout=30)[0] == "stopped\n"

    assert running.returncode == 0
    time.sleep(0.2)
    assert not any(process_list.listening(port) for port in (mlflow, prefect))
    assert {path.name for path in tmp_path.iterdir()} == {".preface", "params.yaml"}
    assert not (tmp_path / ".preface" / process_list.LIST).exists()
