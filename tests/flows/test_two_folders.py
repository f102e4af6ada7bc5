"""Two project folders of one host's name that train the same task at once, at one MLflow server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(900)]


def test_each_has_its_own_run_and_every_version_the_evidence_it_was_judged_by(
    prepared_folder: Path, tmp_path: Path, mlflow_server: tuple[str, object]
) -> None:
    from registry.mlflow.store import Store

    uri, _ = mlflow_server
    folders = [tmp_path / "one" / "project", tmp_path / "other" / "project"]
    for folder in folders:
        shutil.copytree(prepared_folder, folder)

    def started(folder: Path, *command: str) -> subprocess.Popen[str]:
        own = {"MLFLOW_TRACKING_URI": uri, "PREFACE_BASES": str(folder / "bases")}
        own |= {"PREFECT_HOME": str(folder / ".preface" / "prefect")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | own
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    both = [started(folder, "retrain", "film") for folder in folders]
    told = [process.communicate(timeout=800)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told

    store = Store(uri)
    versions = store.versions("film")
    assert len({version.run_id for version in versions}) == len(versions), "no run has two versions"
    # Whoever comes first to the registry makes version 1; the other finds it there, or made one of its own meanwhile.
    assert [version.number for version in versions] in ([1], [1, 2])
    for version in versions:
        kept = store.read_file(version.run_id, version.gate.report)
        assert hashlib.sha256(kept).hexdigest() == version.gate.sha256
    verified = started(folders[0], "verify", "film")
    assert (verified.communicate(timeout=300)[0], verified.returncode)[1] == 0
    mine = {store.run(version.run_id).tags["preface.place"] for version in versions}
    assert len(mine) == len(versions), "each was made in a folder of its own"
