"""The folders that Preface and DVC write and empty, and the refusal of sources that lie in them or around them.

DVC removes what a stage makes before the stage runs, so the only copy of somebody's rows or weights would be gone. What
counts is what the disk says: links, other spellings of a path and mounts are seen through. It does not know what the
files hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from components.config.addresses import scheme_of
from components.config.params import Params
from components.errors import SourceError

# Below the project's root; every output of dvc.yaml lies in one of these, and `make clean` removes most of them.
OWN = ("data/raw", "data/prepared", "data/sources", "bases", ".dvc", ".preface")


def refuse_sources(declared: Params, root: Path, tasks: Iterable[str] = (), bases: Iterable[str] = ()) -> None:
    """Refuse to make the raw and prepared data of ``tasks`` and the folders of ``bases`` where a source would be lost.

    Their own sources may touch none of our folders. The sources of all others may not touch what is made now.

    Raises:
        SourceError: naming the key of the source, where it lies, and what to do. Nothing has been touched.
    """
    tasks, bases = list(tasks), list(bases)
    chosen = {f"tasks.{task}.data.source" for task in tasks} | {f"bases.{base}.source" for base in bases}
    made = [f"data/{kind}/{task}" for task in tasks for kind in ("raw", "prepared")]
    made += [f"bases/{base}" for base in bases]
    elsewhere = os.environ.get("PREFACE_BASES")
    own = [*OWN, *([f"{elsewhere}/{base}" for base in declared.bases] if elsewhere else ())]
    for key, source in _sources(declared).items():
        if not scheme_of(source):
            _refuse(key, source, own if key in chosen else made, root)


def local_path(source: str, root: Path) -> Path:
    """Where a source without a scheme lies."""
    return root / os.path.expanduser(source)  # that of pathlib fails where there is no such user


def overlap(path: Path, own: Path) -> bool:
    """Whether one of two is the other or lies in it. The second need not be there yet."""
    return _holds(own, path) or _holds(path, own)


def _sources(declared: Params) -> Mapping[str, str]:
    rows = {f"tasks.{name}.data.source": task.data.source for name, task in declared.tasks.items()}
    return rows | {f"bases.{name}.source": base.source for name, base in declared.bases.items()}


def _refuse(key: str, source: str, folders: Sequence[str], root: Path) -> None:
    path = local_path(source, root)
    if not os.path.lexists(path):
        return  # told by whoever reads it
    for folder in folders:
        own = root / folder
        if overlap(path, own):
            inside = _holds(own, path)
            what = "lies in" if inside else "is a folder around"
            raise SourceError(
                f"{key} {what} {folder}: {source}. What is there is made by Preface and DVC and deleted before it is"
                f" made anew. Nothing was touched; move {'it' if inside else 'your own files'} into a folder of your"
                " own and name that as the source"
            )
    for link in _links(path):
        if holding := [folder for folder in folders if _holds(root / folder, link)]:
            raise SourceError(
                f"{key} holds the link {link.relative_to(path)}, which leads into {holding[0]}: {source}. What is there"
                " is made by Preface and DVC and deleted before it is made anew. Nothing was touched; put the file"
                " itself in the link's place"
            )


def _links(folder: Path) -> Iterator[Path]:
    """The links in a folder, to whatever depth."""
    for place, folders, files in os.walk(folder):
        yield from (path for name in (*folders, *files) if (path := Path(place, name)).is_symlink())


def _holds(folder: Path, path: Path) -> bool:
    """Whether ``path``, as it is written or with its links followed, is ``folder`` or something below it."""
    try:
        wanted = folder.stat()
    except OSError:
        return False
    ways = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))  # resolve() would follow links
    return any(_is(step, wanted) for way in ways for step in (way, *way.parents))


def _is(path: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), wanted)
    except OSError:
        return False
