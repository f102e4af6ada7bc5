"""`make up` and `make down`: schedules, worker, Prefect's page and MLflow's in the background, and their end.

What keeps them is `preface schedule --pages`, started without a terminal; it lists its processes, and down stops just
those.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from components.errors import SetupError
from flows.local_stack import supervisor, ui
from flows.process import edge, local_project, process_list

SECONDS = 240.0


def up(root: Path) -> None:
    """Start everything and wait until it answers."""
    folder = root / local_project.STATION
    there = dict(process_list.alive(folder))
    kept = process_list.ITSELF in there
    # A fleet or a rebase keeps workers too, as long as it takes, but no pages: what is started below then refuses.
    pages = {page.name for page in ui.pages({"MLFLOW_TRACKING_URI": "", **os.environ})}
    if kept and pages <= there.keys():
        supervisor.say("running already; `make down` stops it")
        return
    if there and not kept:  # what keeps them was killed, and nobody looks after the schedules
        process_list.stop_all(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "station.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "schedule", "--pages"],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        said = _until_ready(process, log)
    except KeyboardInterrupt:
        process.terminate()  # it stops what it started
        process.wait()
        raise
    supervisor.say(said.replace(supervisor.READY, "").rstrip())
    supervisor.say(f"logs: {folder}; `make down` stops it, `preface schedule --list` says what runs when")


def _until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """What it said until everything ran."""
    deadline = time.monotonic() + SECONDS
    while supervisor.READY not in (said := log.read_text(encoding="utf-8")):
        if process.poll() is not None:
            raise SetupError(f"it ended: {said.strip().splitlines()[-1] if said.strip() else 'no output'}")
        if time.monotonic() > deadline:
            process_list.stop(process.pid)
            raise SetupError(f"it did not answer within {SECONDS:.0f} s; see {log.parent}")
        time.sleep(0.2)
    return said


def down(root: Path) -> None:
    """Stop what was started, and nothing else."""
    stopped = process_list.stop_all(root / local_project.STATION)
    supervisor.say(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def main() -> None:
    root = local_project.find_root(Path.cwd())
    {"up": up, "down": down}[sys.argv[1]](root)


if __name__ == "__main__":
    with edge.guarded(["make", *sys.argv[1:]]):
        main()
