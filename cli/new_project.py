"""A project of one's own: the few files that Preface needs in anybody's git repository, none of them code."""

from __future__ import annotations

import subprocess
from pathlib import Path

from components.errors import SetupError
from components.io import atomic

_KEPT = Path(__file__).with_name("project")
# Where each file belongs, and what it is called among ours.
FILES = {
    "params.yaml": "params.yaml",
    "dvc.yaml": "pipeline.yaml",  # not under its own name: DVC reads every dvc.yaml below a repository
    ".dvc/config": "dvc-config",
    ".dvc/.gitignore": "dvc-gitignore",
    ".dvcignore": "dvcignore",
    ".gitignore": "gitignore",
    ".github/workflows/preface.yaml": "workflow.yaml",
}
ADDED_TO = (".gitignore", ".dvcignore")  # lists of lines: ours are put behind what is there


def write(folder: Path) -> list[str]:
    """Make a folder of a git repository a project; the names of the files that were written.

    Raises:
        SetupError: it lies in no git repository, or has a file that would be replaced; nothing was written.
    """
    _require_git(folder)
    there = [name for name in FILES if (folder / name).exists() and name not in ADDED_TO]
    if there:
        raise SetupError(
            f"{folder} has {', '.join(there)} already, and nothing of yours is replaced; a folder of its own does:"
            " `preface init adapters`"
        )
    for name, kept in FILES.items():
        text = (_KEPT / kept).read_text(encoding="utf-8")
        atomic.write_text(folder / name, _before(folder / name) + text)
    return list(FILES)


def _before(file: Path) -> str:
    """What a list of lines holds already, with a line end behind it."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return text if not text or text.endswith("\n") else f"{text}\n"


def _require_git(folder: Path) -> None:
    """DVC works in a git repository alone, and what a version was trained by is a commit."""
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    try:
        done = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=place, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SetupError("git is not installed, and DVC works in a git repository alone; install it") from error
    if done.stdout.strip() != "true":
        raise SetupError(f"{place} is in no git repository; type `git init` there, then the same command again")
