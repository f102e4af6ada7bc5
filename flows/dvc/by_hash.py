"""Prepared rows by DVC's hash of them: back out of the cache or a remote, and into the remote.

DVC finds data by its workspace's dvc.lock, which may have moved on. So a scratch project is made for one command, which
has the project's cache and remotes and holds one output, of the hash in a lock entry. The workspace, its dvc.yaml and
its dvc.lock are neither read nor written. What the rows are is not known here: whoever gets some back compares them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.data.prepare import read_report
from components.errors import DataError, PrefaceError, SourceUnavailable
from flows.dvc.repro import DataVersion, dvc, lacks_files

_SETTING = re.compile(r"((?:core|cache|remote)\.[^=]+)=(.*)")
_PASSWORD = re.compile(r"(?<=//)[^/@]*@")
OUT = "data"


@dataclass(frozen=True)
class _Scratch:
    """A DVC project of one output. ``remotes``: address by name, the default first; ``cache``: the real project's."""

    folder: Path
    md5: str
    cache: Path
    remotes: Mapping[str, str]
    default: str

    def run(self, *arguments: str) -> list[str]:
        return dvc(self.folder, [*arguments, f"{OUT}.dvc"])


def restore(root: Path, task: str, lock: Mapping[str, Any], to: Path) -> None:
    """Make the folder ``to``, which is not there yet, the prepared rows that a lock entry is of.

    Args:
        root: the project whose cache and remotes are asked.
        lock: a task's complete lock entry, as ``repro.lock_entry`` gives it and a manifest keeps it.

    Raises:
        SourceUnavailable: the cache has them not, and a remote did not answer.
        DataError: they are nowhere; the message names their hash, where they were looked for, and what to do.
    """
    with _scratch(root, task, lock, to.parent) as scratch:
        found = [f"the cache {scratch.cache}: not there"]
        try:
            scratch.run("checkout")  # asks no remote, so that one which is down does not matter
        except PrefaceError:
            down = False
            for name, url in scratch.remotes.items():
                try:
                    scratch.run("pull", "--remote", name)
                    break
                except PrefaceError as error:
                    absent = "missing-files" in str(error)
                    found.append(f"the remote {name} ({url}): {'not there' if absent else error}")
                    down = down or isinstance(error, SourceUnavailable)
            else:
                raise (SourceUnavailable if down else DataError)(_nowhere(task, scratch, found)) from None
        (scratch.folder / OUT).rename(to)


def place(root: Path, task: str, data: DataVersion, to: Path) -> None:
    """Make the folder ``to`` the rows of a data version, if it does not hold them yet: today's, or as ``restore``.

    Where the workspace holds just these rows they are linked and not copied: DVC replaces files, it does not edit them.
    """
    if to.is_dir():
        if read_report(to).get("content_hash") == data.content_hash:
            return
        shutil.rmtree(to)  # of a run that was killed on another day
    to.parent.mkdir(parents=True, exist_ok=True)
    here = root / "data" / "prepared" / task
    with tempfile.TemporaryDirectory(prefix=".rows-", dir=to.parent) as room:
        part = Path(room) / "rows"
        try:
            shutil.copytree(here, part, copy_function=_link)
        except OSError:  # not prepared here, or prepared anew just now
            shutil.rmtree(part, ignore_errors=True)
        if not part.is_dir() or read_report(part).get("content_hash") != data.content_hash:
            shutil.rmtree(part, ignore_errors=True)
            restore(root, task, data.lock_entry, part)
        part.rename(to)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def push(root: Path, task: str, lock: Mapping[str, Any]) -> None:
    """Copy the prepared rows that a lock entry is of from the cache to the default remote.

    Raises:
        SourceUnavailable: the remote did not answer.
        DataError: there is no remote, or the cache does not have all of the rows.
    """
    with _scratch(root, task, lock, root / ".preface") as scratch:
        if scratch.default not in scratch.remotes:
            raise DataError(
                f"the prepared rows of {task} ({scratch.md5}) can be pushed nowhere: DVC has no default remote here;"
                " add one with `dvc remote add --default NAME URL`"
            )
        if lacks_files(scratch.run("push")):
            raise DataError(
                f"the cache {scratch.cache} lacks files of the prepared rows of {task} ({scratch.md5});"
                f" delete data/prepared/{task} and run `preface prepare {task}`"
            )


@contextmanager
def _scratch(root: Path, task: str, lock: Mapping[str, Any], beside: Path) -> Iterator[_Scratch]:
    """A scratch project with the cache and remotes of the one in ``root``."""
    try:
        output = dict(lock[f"prepare@{task}"]["outs"][0])
        md5 = str(output["md5"])
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"the lock entry of {task} names no prepared rows (no {error}), so DVC cannot find them by their hash;"
            f" `preface retrain {task}` trains on today's"
        ) from error
    read = (_SETTING.fullmatch(line) for line in dvc(root, ["config", "--list"]))
    settings = {found[1]: found[2] for found in read if found}
    cache = settings.get("cache.dir", str(root.resolve() / ".dvc" / "cache"))
    urls = {
        key.removeprefix("remote.").removesuffix(".url"): _PASSWORD.sub("", value)
        for key, value in settings.items()
        if key.startswith("remote.") and key.endswith(".url")
    }
    default = settings.get("core.remote", "")
    remotes = dict(sorted(urls.items(), key=lambda pair: pair[0] != default))
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dvc-", dir=beside) as room:
        folder = Path(room)
        own = {"cache.dir": cache, "core.no_scm": "true", "core.site_cache_dir": str(folder / ".dvc" / "site")}
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text(_config(settings | own), encoding="utf-8")
        said = yaml.safe_dump({"outs": [output | {"path": OUT}]})
        (folder / f"{OUT}.dvc").write_text(said, encoding="utf-8")
        yield _Scratch(folder, md5, Path(cache), remotes, default)


def _config(settings: Mapping[str, str]) -> str:
    """Settings as `dvc config --list` gives them (paths made absolute), as a file of DVC's configuration."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, _, option = key.rpartition(".")
        kind, _, name = section.partition(".")
        quote = next(mark for mark in ('"', "'", '"""') if mark not in value)
        title = f"'{kind} \"{name}\"'" if name else kind
        sections.setdefault(title, []).append(f"    {option} = {quote}{value}{quote}")
    return "".join(f"[{title}]\n" + "\n".join(lines) + "\n" for title, lines in sections.items())


def _nowhere(task: str, scratch: _Scratch, found: list[str]) -> str:
    return (
        f"the prepared rows of {task} ({scratch.md5}) cannot be had from {'; '.join(found)}. Run `dvc push` where they"
        f" were prepared, or bring the task's source back to what it was then and run `preface prepare {task}`"
    )
