"""A Python distribution's file, wheel or sdist, downloaded by pip and pinned by its digest. It is never installed.

Index, proxy and certificates are pip's own settings. This module does not know what is in the file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from components.errors import SourceError, SourceUnavailable

# What pip says when an index did not answer; it then ends with "no matching distribution", as for a wrong name.
_NO_ANSWER = re.compile(r"Retrying \(|connection broken|Connection(Error|Reset)|ReadTimeout|HTTP error 5\d\d|SSLError")
_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
_OPTIONS = ("--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check", "--progress-bar=off")


def download(requirement: str, sha256: str, to: Path) -> Path:
    """The file of ``NAME==VERSION`` that has this digest, put somewhere into the folder ``to``.

    pip takes the one that has the digest among a version's wheel and source distribution, and compares it before it
    asks a source distribution for its metadata, which runs code of it.

    Raises:
        SourceUnavailable: the index did not answer.
        SourceError: it has no such distribution, or none with this digest.
    """
    wanted, place = to / "requirements.txt", to / "files"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", *_OPTIONS, f"--dest={place}", f"--requirement={wanted}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return next(place.iterdir())
    said = done.stdout + done.stderr
    if got := _GOT.search(said):
        raise SourceError(
            f"{requirement} has the sha256 {got[1]}, params.yaml pins {sha256}; find out why before you change the pin"
        )
    if _NO_ANSWER.search(said):
        raise SourceUnavailable(f"pip could not reach its index for {requirement}; check the network and try again")
    faults = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    raise SourceError(f"pip cannot download {requirement}: {faults[-1] if faults else 'it did not say why'}")
