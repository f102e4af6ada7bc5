"""Processes kept running side by side for as long as some work takes: what ends the work, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from components.errors import SetupError, Stopped
from flows import service_list, services
from flows.service_list import HOST
from flows.services import Service

Port = Callable[[], int]


def web(port: int) -> Service:
    return Service("web", port, ("-m", "http.server", "--bind", HOST, str(port)))


def idle(**options: bool) -> Service:
    return Service("idle", None, ("-c", "import time; time.sleep(600)"), needs="web", **options)


def pid_of(name: str, folder: Path) -> int | None:
    return dict(service_list.alive(folder)).get(name)


def awaited(look: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def nothing_is_left(folder: Path, *pids: int | None) -> bool:
    return service_list.alive(folder) == [] and not any(psutil.pid_exists(pid) for pid in pids if pid)


def test_while_the_work_is_done_they_run_and_are_looked_after(tmp_path: Path, free_port: Port) -> None:
    port, ticks = free_port(), [0]

    def tick() -> None:
        ticks[0] += 1

    def work() -> tuple[int | None, int | None]:
        awaited(lambda: ticks[0] > 2)
        assert service_list.port_of(tmp_path, "web") == port
        return pid_of("web", tmp_path), pid_of("idle", tmp_path)

    pids = services.around([web(port), idle()], tmp_path, tick, work)

    assert None not in pids
    assert nothing_is_left(tmp_path, *pids)
    assert service_list.port_of(tmp_path, "web") is None


def test_one_that_may_fail_is_started_again_and_what_it_had_started_goes_with_the_others(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "RESTART_SECONDS", 0.2)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    parent = Service("parent", None, ("-c", code), needs="web", restart=True)

    def work() -> tuple[int, int]:
        first = pid_of("parent", tmp_path)
        assert first is not None
        awaited(lambda: psutil.Process(first).children())
        [child] = psutil.Process(first).children()
        os.kill(first, signal.SIGKILL)
        awaited(lambda: pid_of("parent", tmp_path) not in (None, first))
        assert psutil.pid_exists(child.pid), "what was at work goes on"
        return child.pid, pid_of("parent", tmp_path) or 0

    child, parent_again = services.around([web(free_port()), parent], tmp_path, lambda: None, work)

    awaited(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert nothing_is_left(tmp_path, parent_again)


def test_ctrl_c_ends_the_work_in_our_own_words(tmp_path: Path, free_port: Port) -> None:
    def work() -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(60)

    with pytest.raises(Stopped, match="type it again"):
        services.around([web(free_port())], tmp_path, lambda: None, work)

    assert nothing_is_left(tmp_path)


def test_a_service_that_the_work_needs_and_that_ends_by_itself_ends_the_work(tmp_path: Path, free_port: Port) -> None:
    def work() -> None:
        pid = pid_of("web", tmp_path)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for _ in range(600):
            time.sleep(0.1)

    with pytest.raises(SetupError, match="web ended by itself, status -9"):
        services.around([web(free_port())], tmp_path, lambda: None, work)

    assert nothing_is_left(tmp_path)


def test_what_the_work_raises_is_what_comes_of_it(tmp_path: Path, free_port: Port) -> None:
    def work() -> None:
        raise SetupError("planted")

    with pytest.raises(SetupError, match="planted"):
        services.around([web(free_port())], tmp_path, lambda: None, work)

    assert nothing_is_left(tmp_path)


def test_it_says_that_everything_runs_whichever_answers_last(
    tmp_path: Path, free_port: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    def once() -> None:
        raise KeyboardInterrupt

    for parts in ([web(free_port())], [web(free_port()), idle()]):
        services.serve(parts, tmp_path, once)
        assert capsys.readouterr().out.splitlines()[-2:] == [services.READY, "stopped"]


def test_a_dead_process_that_nobody_has_asked_for_yet_is_not_alive(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        awaited(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        service_list.note([("web", process.pid, 1)], tmp_path)
        assert [name for name, _ in service_list.alive(tmp_path)] == [service_list.ITSELF]
    finally:
        process.wait()


def test_a_process_is_known_when_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel then says another time at which the machine started, and so do all processes."""
    service_list.note([], tmp_path)
    start, now = psutil.boot_time(), psutil.Process().create_time()

    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: start + 3600)

    assert psutil.Process().create_time() == pytest.approx(now + 3600), "planted"
    assert service_list.alive(tmp_path) == [(service_list.ITSELF, os.getpid())]
