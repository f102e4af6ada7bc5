"""The frozen bases that a run needs: found by their hash, made where they are not yet, loaded once a process.

DVC makes the bases of a project (``base@NAME``) in its folder ``bases``. A worker on another machine has a checkout and
no bases: it makes those that it needs from their own source, as DVC's stage does, and compares the hash. Where
PREFACE_BASES is another folder, each of the two is copied from the other before it is fetched. Knows no Prefect.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from components.base.base_hash import require
from components.base.base_model import bases_folder, find, materialise
from components.config import params as params_file
from components.config.addresses import scheme_of
from components.config.params import BaseParams
from components.sources.own_folders import local_path
from flows.run.job import Job

if TYPE_CHECKING:
    from components.base.base_model import Base


def of_job(job: Job) -> Base:
    """The job's frozen base."""
    return load(job.base_folder, job.base.hash, job.params.base)


@lru_cache(maxsize=2)  # that of a candidate, and that of a champion on another one
def load(folder: Path, expected_hash: str, name: str) -> Base:
    """Loaded and verified once a process however many steps need it."""
    from components.base import base_model

    return base_model.load(folder, expected_hash, name)


def by_hash(root: Path, wanted: str, name: str) -> Base | None:
    """The base of a hash, None where it is not materialised here."""
    folder = find(bases_folder(root), wanted, name)
    return load(folder, wanted, name) if folder else None


def obtain(root: Path, wanted: str) -> None:
    """See that the base of a hash is here, if params.yaml declares one; errors as in ``ensure``."""
    for name, base in params_file.load(root / "params.yaml").bases.items():
        if base.hash == wanted:
            ensure(root, name, base)


def _seen_from(root: Path, base: BaseParams) -> BaseParams:
    """The base, with a source that is a path found wherever this process works."""
    if scheme_of(base.source):
        return base
    return base.model_copy(update={"source": str(local_path(base.source, root))})


def ensure(root: Path, name: str, base: BaseParams) -> None:
    """See that a base is here and is the pinned one; make it if it is not here.

    Raises:
        SourceError: its bytes cannot be had.
        BaseMismatch: what is here, or what its source gives, is another one.
    """
    folder = bases_folder(root) / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{name}.lock"):
            if not folder.is_dir():
                materialise(name, _seen_from(root, base), folder, others=root / "bases")
    require(folder, base.hash)
