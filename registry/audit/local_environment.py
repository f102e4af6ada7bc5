"""What this machine can say of a version beside the registry: whether its base is here, and its git commit.

None of it makes a version right or wrong by itself: another machine may have what this one lacks.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class LocalEnvironment:
    """A project on this machine; what was looked up once is kept.

    ``declared`` are the bases of params.yaml, hash by name.
    """

    root: Path
    declared: Mapping[str, str]
    _folders: dict[str, Path | None] = field(default_factory=dict)
    _commits: dict[str, bool | None] = field(default_factory=dict)

    def names(self, base_hash: str) -> list[str]:
        """The names under which params.yaml declares the base."""
        return sorted(name for name, declared in self.declared.items() if declared == base_hash)

    def base_folder(self, base_hash: str, name: str) -> Path | None:
        """Where the base is materialised, whatever its folder is called; None if it is not."""
        from components.base.base_model import bases_folder, find

        if base_hash not in self._folders:
            self._folders[base_hash] = find(bases_folder(self.root), base_hash, name)
        return self._folders[base_hash]

    def has_commit(self, commit: str) -> bool | None:
        """Whether the project's git repository has the commit; None where it cannot tell."""
        if commit not in self._commits:
            whole = self._git("rev-parse", "--is-shallow-repository") == "false"
            found = self._git("cat-file", "-t", commit) == "commit"
            self._commits[commit] = found if found or whole else None
        return self._commits[commit]

    def _git(self, *arguments: str) -> str:
        """What git says, empty if it fails or is not there."""
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=self.root, capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""
