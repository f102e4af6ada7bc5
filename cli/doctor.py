"""Looks at the installation and says what to mend: one check, one line. It mends nothing and makes nothing.

A check never raises: what it cannot find out is its finding. It knows no rule of the registry and trains nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from cli.lock import TESTS_ALONE
from components import distribution
from components.base.base_hash import require
from components.config import params
from components.errors import BaseMismatch, PrefaceError, SetupError, StoreUnavailable
from components.redaction import public, redact
from registry.mlflow import address, tracking_uri

GIB = 1 << 30
SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, and what to type where it does not stand well."""

    name: str
    result: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""

    def __post_init__(self) -> None:
        """Addresses are part of what is found, and each may hold a password."""
        object.__setattr__(self, "found", redact(self.found))
        object.__setattr__(self, "mend", redact(self.mend))


def examine(root: Path) -> Iterator[Check]:
    """Every check, in the order in which things depend on one another."""
    yield python()
    yield packages(root / "requirements.lock")
    yield device()
    yield parameters(root / "params.yaml")
    yield from bases(root)
    yield tracking_store(os.environ["MLFLOW_TRACKING_URI"])
    yield artifact_folder(os.environ["MLFLOW_TRACKING_URI"])
    yield temporary_folder()
    yield data_versions(root)
    yield prefect_api(os.environ.get("PREFECT_API_URL"))
    yield disk(shutil.disk_usage(root).free)


def python() -> Check:
    found = platform.python_version()
    if found.startswith("3.11."):
        return Check("python", "ok", found)
    return Check("python", "fail", f"{found}, the lock is for 3.11", "make clean setup PYTHON=python3.11")


def packages(lock: Path) -> Check:
    """Whether what is installed is what the lock says; a build's suffix (2.13.0+cpu) is not a difference.

    What tests alone ask for may be missing: an image has none of it.
    """
    try:
        run, _, tests = lock.read_text(encoding="utf-8").partition(TESTS_ALONE)
    except FileNotFoundError:  # a project of one's own need not have one
        return Check(
            "packages", "ok", f"{distribution.NAME} {distribution.version()}, and the project pins no versions"
        )
    except OSError:
        return Check("packages", "warn", f"{lock} cannot be read, so versions were not compared", "git checkout .")
    wrong, right = [], 0
    for part in (run, tests):
        for name, version in (line.split("==") for line in part.splitlines() if "==" in line):
            try:
                found = importlib.metadata.version(name).partition("+")[0]
            except importlib.metadata.PackageNotFoundError:
                if part is tests:
                    continue
                found = "missing"
            right += found == version
            if found != version:
                wrong.append(f"{name} {found}, locked {version}")
    if not wrong:
        return Check("packages", "ok", f"{right} as locked")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Check("packages", "fail", "; ".join(wrong[:3]) + more, "make setup")


def device() -> Check:
    """Where models will run, and in which precision and why."""
    from components.base.base_model import pick_device, pick_dtype

    chosen = pick_device()
    dtype, why = pick_dtype(chosen)
    return Check("device", "ok", f"{chosen}, {str(dtype).removeprefix('torch.')}: {why}")


def parameters(path: Path) -> Check:
    try:
        loaded = params.load(path)
    except PrefaceError as error:
        return Check("params.yaml", "fail", str(error), f"edit {path}")
    return Check("params.yaml", "ok", f"{len(loaded.bases)} base(s), {len(loaded.tasks)} task(s)")


def bases(root: Path) -> Iterator[Check]:
    """Whether each declared base is here and is, bit for bit, what its pin says."""
    try:
        declared = params.load(root / "params.yaml").bases
    except PrefaceError:
        return  # said by the check before this one
    folder = Path(os.environ.get("PREFACE_BASES") or root / "bases")
    # `preface prepare` makes those in the project's own folder; from there a training takes them elsewhere.
    made = "preface prepare" if folder == root / "bases" else "preface retrain TASK"
    for name, base in declared.items():
        if not (folder / name).exists():
            yield Check(f"base {name}", "warn", f"not in {folder} yet", made)
            continue
        try:
            yield Check(f"base {name}", "ok", f"hash {require(folder / name, base.hash).value[:12]} as pinned")
        except BaseMismatch as error:
            yield Check(f"base {name}", "fail", str(error), f"rm -r {folder / name} && {made}")
        except PrefaceError as error:
            # A training takes a folder that is there for whole; DVC sees that one of its own is not.
            again = made if folder == root / "bases" else f"rm -r {folder / name} && {made}"
            yield Check(f"base {name}", "fail", str(error), again)


def tracking_store(uri: str) -> Check:
    """Whether the store answers. An embedded one that nobody has used yet is left unmade."""
    try:
        tracking_uri.check(uri)
    except SetupError as error:
        return Check("tracking store", "fail", *_mend(error))
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return Check("tracking store", "ok", f"{uri}, made by the first retrain")
    from registry.mlflow.store import Store

    try:
        count = len(Store(uri).tasks())
    except StoreUnavailable as error:
        return Check("tracking store", "fail", str(error), "start the server, or unset MLFLOW_TRACKING_URI")
    except PrefaceError as error:
        return Check("tracking store", "fail", *_mend(error))
    return Check("tracking store", "ok", f"{uri}, {count} task(s)")


def artifact_folder(uri: str) -> Check:
    """Whether a file can be written where artifacts go; servers and object stores keep their own."""
    try:
        tracking_uri.check(uri)
    except SetupError:
        return Check(
            "artifact folder", "warn", "not looked at: nobody knows the store", f"set {tracking_uri.NAME} right"
        )
    try:
        where = address.beside(uri) or uri
    except SetupError as error:
        return Check("artifact folder", "fail", *_mend(error))
    if not where.startswith("file://"):
        return Check("artifact folder", "ok", f"kept by {where}")
    folder = Path(unquote(urlsplit(where).path))
    place = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return Check("artifact folder", "fail", f"{place}: {error.strerror}", f"make {place} a folder you can write to")
    return Check("artifact folder", "ok", f"{folder} can be written")


def _mend(error: PrefaceError) -> tuple[str, str]:
    """What was found, and what to type: the two halves of a message."""
    found, _, mend = str(error).rpartition("; ")
    return (found, mend) if found else (mend, "see the message")


def temporary_folder() -> Check:
    """Whether what is made for a moment has a place: packed models, fetched adapters, sources on their way in."""
    wanted = os.environ.get("TMPDIR", "")
    try:
        place = tempfile.gettempdir()
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return Check("temporary folder", "fail", str(error.strerror or error), "set TMPDIR to a folder with room")
    if wanted and Path(wanted).absolute() != Path(place):
        return Check(
            "temporary folder", "warn", f"TMPDIR={wanted} cannot be written, {place} is used", f"mkdir -p '{wanted}'"
        )
    free = shutil.disk_usage(place).free
    if free < GIB // 4:
        return Check("temporary folder", "warn", f"{place} has {free >> 20} MiB free", "make room, or set TMPDIR")
    return Check("temporary folder", "ok", place)


def data_versions(root: Path) -> Check:
    """Whether DVC can read the stages here, and has a remote to push prepared data to."""
    # `remote list` alone is content in any folder; `stage list` opens the repository.
    stages, remotes = (
        subprocess.run([sys.executable, "-m", "dvc", what, "list"], cwd=root, capture_output=True, text=True)
        for what in ("stage", "remote")
    )
    if stages.returncode or remotes.returncode:
        reason = ((stages.stderr or remotes.stderr).strip().splitlines() or ["no output"])[-1]
        return Check("dvc", "fail", reason.removeprefix("ERROR: "), "make setup, in a clone of the repository")
    found = [" ".join(line.split()) for line in remotes.stdout.splitlines() if line.strip()]
    if not found:
        return Check("dvc", "warn", "no remote, so prepared data stays on this machine", "dvc remote add -d NAME URL")
    return Check("dvc", "ok", "remote " + "; ".join(found))


def prefect_api(url: str | None) -> Check:
    if not url:
        return Check("prefect", "ok", "no server: each flow run brings its own for as long as it takes")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=SECONDS) as answer:
            return Check("prefect", "ok", f"{public(url)} answers {answer.status}")
    except (OSError, ValueError, HTTPException) as error:
        said = " ".join(str(error).split())
        return Check("prefect", "fail", f"{public(url)}: {said}", "prefect server start, or unset PREFECT_API_URL")


def disk(free: int) -> Check:
    found = f"{free / GIB:.1f} GiB free"
    if free < 1 * GIB:
        return Check("disk", "fail", f"{found}, a run needs 1", "make room")
    if free < 5 * GIB:
        return Check("disk", "warn", f"{found}, bases and datasets add up", "make room")
    return Check("disk", "ok", found)
