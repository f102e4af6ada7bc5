"""Processes kept running side by side for as long as some work takes: what ends the work, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from components.errors import SetupError, Stopped
from flows.local_stack import station, supervisor
from flows.local_stack.supervisor import Service
from flows.process import local_project, process_list
from flows.process.process_list import HOST

Port = Callable[[], int]


def web(port: int) -> Service:
    return Service("web", port, ("-m", "http.server", "--bind", HOST, str(port)))


def idle(**options: bool) -> Service:
    return Service("idle", None, ("-c", "import time; time.sleep(600)"), needs="web", **options)


def pid_of(name: str, folder: Path) -> int | None:
    return dict(process_list.alive(folder)).get(name)


def awaited(look: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def nothing_is_left(folder: Path, *pids: int | None) -> bool:
    return process_list.alive(folder) == [] and not any(psutil.pid_exists(pid) for pid in pids if pid)


def test_while_the_work_is_done_they_run_and_are_looked_after(tmp_path: Path, free_port: Port) -> None:
    port, ticks = free_port(), [0]

    def tick() -> None:
        ticks[0] += 1

    def work() -> tuple[int | None, int | None]:
        awaited(lambda: ticks[0] > 2)
        assert process_list.port_of(tmp_path, "web") == port
        return pid_of("web", tmp_path), pid_of("idle", tmp_path)

    pids = supervisor.around([web(port), idle()], tmp_path, tick, work)

    assert None not in pids
    assert nothing_is_left(tmp_path, *pids)
    assert process_list.port_of(tmp_path, "web") is None


def test_one_that_may_fail_is_started_again_and_what_it_had_started_goes_with_the_others(
    tmp_path: Path, free_port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", 0.2)
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

    child, parent_again = supervisor.around([web(free_port()), parent], tmp_path, lambda: None, work)

    awaited(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert nothing_is_left(tmp_path, parent_again)


def test_ctrl_c_ends_the_work_in_our_own_words(tmp_path: Path, free_port: Port) -> None:
    def work() -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(60)

    with pytest.raises(Stopped, match="type it again"):
        supervisor.around([web(free_port())], tmp_path, lambda: None, work)

    assert nothing_is_left(tmp_path)


def test_a_service_that_the_work_needs_and_that_ends_by_itself_ends_the_work(tmp_path: Path, free_port: Port) -> None:
    def work() -> None:
        pid = pid_of("web", tmp_path)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for _ in range(600):
            time.sleep(0.1)

    with pytest.raises(SetupError, match="web ended by itself, status -9"):
        supervisor.around([web(free_port())], tmp_path, lambda: None, work)

    assert nothing_is_left(tmp_path)


def test_what_the_work_raises_is_what_comes_of_it(tmp_path: Path, free_port: Port) -> None:
    def work() -> None:
        raise SetupError("planted")

    with pytest.raises(SetupError, match="planted"):
        supervisor.around([web(free_port())], tmp_path, lambda: None, work)

    assert nothing_is_left(tmp_path)


def test_it_says_that_everything_runs_whichever_answers_last(
    tmp_path: Path, free_port: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    def once() -> None:
        raise KeyboardInterrupt

    for parts in ([web(free_port())], [web(free_port()), idle()]):
        supervisor.serve(parts, tmp_path, once)
        assert capsys.readouterr().out.splitlines()[-2:] == [supervisor.READY, "stopped"]


def test_a_dead_process_that_nobody_has_asked_for_yet_is_not_alive(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        awaited(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        process_list.note([("web", process.pid, 1)], tmp_path)
        assert [name for name, _ in process_list.alive(tmp_path)] == [process_list.ITSELF]
    finally:
        process.wait()


def test_a_process_is_known_when_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel then says another time at which the machine started, and so do all processes."""
    process_list.note([], tmp_path)
    start, now = psutil.boot_time(), psutil.Process().create_time()

    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: start + 3600)

    assert psutil.Process().create_time() == pytest.approx(now + 3600), "planted"
    assert process_list.alive(tmp_path) == [(process_list.ITSELF, os.getpid())]


SLEEPS = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); {SLEEPS}"


@pytest.fixture
def started() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a process in a session of its own; ready once it says something."""
    made: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        made.append(process)
        assert process.stdout is not None
        if "print" in code:
            process.stdout.readline()
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def listed(folder: Path, keeper: subprocess.Popen[bytes], **others: subprocess.Popen[bytes]) -> None:
    """As if the keeper had started the others."""
    process_list.note([(name, process.pid, None) for name, process in others.items()], folder)
    said = json.loads((folder / process_list.LIST).read_text())
    said[0] |= {"pid": keeper.pid, "began": process_list.began(keeper.pid)}
    (folder / process_list.LIST).write_text(json.dumps(said))


def ended(*processes: subprocess.Popen[bytes]) -> bool:
    return all(process_list.began(process.pid) is None for process in processes)


Started = Callable[[str], subprocess.Popen[bytes]]


@pytest.mark.parametrize("code", [SLEEPS, DEAF])
@pytest.mark.parametrize("frozen", [False, True])
def test_down_ends_all_of_it_whatever_state_it_is_in(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch, code: str, frozen: bool
) -> None:
    """One that hears no SIGTERM, and one that was stopped by Ctrl-Z, and the keeper as well as what it keeps."""
    monkeypatch.setattr(process_list, "STOP_SECONDS", 0.5)
    keeper, worker, server = started(code), started(code), started(SLEEPS)
    listed(tmp_path, keeper, Worker=worker, Prefect=server)
    for process in (keeper, worker) if frozen else ():
        process.send_signal(signal.SIGSTOP)

    assert process_list.stop_all(tmp_path) == ["Worker", "Prefect"]

    assert ended(keeper, worker, server)
    assert not (tmp_path / process_list.LIST).exists()


def test_a_process_that_ends_between_two_looks_is_ended(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when it was looked for, and is not when it is asked how it does."""
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: True)
    keeper, worker = started(SLEEPS), started(SLEEPS)
    listed(tmp_path, keeper, Worker=worker)
    for process in (keeper, worker):  # reaped as soon as it ends, as by a shell
        threading.Thread(target=process.wait, daemon=True).start()

    assert process_list.stop_all(tmp_path) == ["Worker"]

    assert ended(keeper, worker)


def test_what_cannot_be_ended_is_told_and_stays_on_the_list(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_list, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(os, "killpg", lambda pid, kind: None)
    keeper, worker = started(SLEEPS), started(SLEEPS)
    listed(tmp_path, keeper, Worker=worker)

    with pytest.raises(SetupError, match=rf"Worker \(process {worker.pid}\) did not end within"):
        process_list.stop_all(tmp_path)

    assert process_list.alive(tmp_path) == [("Worker", worker.pid)]


def test_what_was_kept_by_somebody_who_was_killed_is_ended_by_who_comes_next(
    tmp_path: Path, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper, worker = started(SLEEPS), started(SLEEPS)
    folder = tmp_path / local_project.STATION
    folder.mkdir(parents=True)
    listed(folder, keeper, Worker=worker)

    with pytest.raises(SetupError, match=rf"kept running already, by the process {keeper.pid} "):
        station._folder(tmp_path)
    keeper.kill()
    keeper.wait()

    assert station._folder(tmp_path) == folder
    assert ended(worker)
    assert "ended Worker" in capsys.readouterr().out
