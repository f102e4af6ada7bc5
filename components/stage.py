"""Runs one stage of dvc.yaml: `python -P -m components.stage STAGE NAME`, in the project's root.

Where a stage server is at hand (flows/dvc/stage_server.py), it runs the stage in a process that has imported already
what stages import, which takes seconds; without one the stage runs here. Imports nothing that is slow.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys

SERVER = "PREFACE_STAGE_SERVER"  # the environment variable that names its socket
MODULES = {
    "base": "components.base.base_model",
    "fetch": "components.sources.byte_source",
    "prepare": "components.data.prepare",
}


def run(stage: str, name: str) -> None:
    """Run a stage in this process; a fault of ours ends it as `CLASS: message` with status 1."""
    from components.errors import PrefaceError

    # Told to end, it takes its temporary files along.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        importlib.import_module(MODULES[stage]).run_stage(name)
    except PrefaceError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def run_by_server(address: str, stage: str, name: str) -> int | None:
    """Have the server run a stage, with this process's folder and output; its exit status, None without a server.

    Where this process ends first, the server ends the stage.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.connect(address)
        except OSError:
            return None
        order = json.dumps({"stage": stage, "name": name, "folder": os.getcwd()}).encode()
        socket.send_fds(server, [order], [sys.stdout.fileno(), sys.stderr.fileno()])
        status = server.recv(8)
    if not status:
        sys.exit(f"the process of the stage {stage}@{name} ended without a word: killed, perhaps for want of memory")
    return int(status)


def main() -> None:
    """Run the stage that the arguments name."""
    stage, name = sys.argv[1:]
    status = run_by_server(os.environ[SERVER], stage, name) if os.environ.get(SERVER) else None
    if status is None:
        run(stage, name)
    else:
        sys.exit(status)


if __name__ == "__main__":
    main()
