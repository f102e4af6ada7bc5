"""Which project folder an MLflow run belongs to: that in which its fingerprint is locked and its checkpoint lies.

Knows neither stores nor runs.
"""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from flows.process import local_project

FILE = Path(local_project.FOLDER) / "id"


def of(root: Path) -> str:
    """The folder's id, made when it is first asked for. A copy of the folder has another."""
    file = root / FILE
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".id.") as new:
            new.write(uuid.uuid4().hex)
            new.flush()
            os.fsync(new.fileno())
            with suppress(FileExistsError):  # of two that make one, the first wins
                os.link(new.name, file)
    # The number of the file itself: whoever copies the folder copies what is in it.
    return f"{file.read_text(encoding='utf-8').strip()}-{file.stat().st_ino}"


def tags(root: Path) -> dict[str, str]:
    """What a run says of where it is at work."""
    return {"preface.host": socket.gethostname(), "preface.place": of(root)}
