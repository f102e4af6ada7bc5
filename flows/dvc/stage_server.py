"""A process that runs the stages of one `dvc repro`, each in a fork of its own that has imported already what it needs.

DVC starts a Python for every stage, and importing is most of what a small stage does. What is imported is chosen by the
first stage of its kind; a stage that nobody asks for costs nothing. Knows nothing of what a stage does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from components import stage
from components.tied import tied

_ORDER = 1 << 16  # bytes: a stage, a name and a folder


@contextmanager
def at_hand(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A server for as long as the block runs, and the environment that `dvc repro` is to have, which names it."""
    with tempfile.TemporaryDirectory(prefix="preface-stages-") as room:
        address = str(Path(room) / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                listener.bind(address)
            except OSError:  # TMPDIR is too long for a socket's path: every stage runs by itself
                yield dict(environment)
                return
            # It listens before the server is there, so that no stage comes too early.
            listener.listen()
            command = tied([sys.executable, "-P", "-m", __name__, str(listener.fileno())])
            server = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
        try:
            yield {**environment, stage.SERVER: address}
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Answer whoever connects, one fork each, until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stages; whoever started this ends it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork: it says itself how it ended
    listener = socket.socket(fileno=int(sys.argv[1]))
    while True:
        client, _ = listener.accept()
        with client:
            order, descriptors, *_ = socket.recv_fds(client, _ORDER, 2)
            if order:
                said = json.loads(order)
                with suppress(Exception):  # the fork meets it again, and says so where it is read
                    importlib.import_module(stage.MODULES[said["stage"]])
                if os.fork() == 0:
                    listener.close()
                    _stage(client, said, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _stage(client: socket.socket, order: dict[str, str], output: list[int]) -> None:
    """Run a stage as if it were a command by itself, and say how it ended. Does not return."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor, standard in zip(output, (1, 2), strict=True):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        os.chdir(order["folder"])
        threading.Thread(target=_end_with, args=[client], daemon=True).start()
        stage.run(order["stage"], order["name"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):  # whoever reads them is gone
            sys.stdout.flush()
            sys.stderr.flush()
        with suppress(OSError):
            client.sendall(str(status).encode())
        os._exit(status)


def _end_with(client: socket.socket) -> None:
    """End this process when whoever asked for the stage is gone."""
    with suppress(OSError):
        while client.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
