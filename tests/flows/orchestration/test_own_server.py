"""A fleet that brings its own server and workers: it is looked after while it works, and not taken for dead.

Tests of fleets attach to a running station, whose address was in the environment from the start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Project = Any  # tests/flows/conftest.py; test modules are not packages
# The bounds are shortened; Prefect's least heartbeat is one of 30 s, and its default one of 180.
COMMAND = """
import time
from datetime import timedelta
from pathlib import Path
from flows.process import local_project
root = local_project.enter()
from flows.local_stack import station
from flows.orchestration import recovery
recovery.SILENT, station.RESCUE_SECONDS = timedelta(seconds=50), 2.0


def work():
    from prefect import flow

    @flow(name="fleet")
    def fleet():
        time.sleep(80)
        from prefect.client.orchestration import get_client
        from prefect.runtime import flow_run
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run.id).state_name

    return fleet()


print("ended", station.around(root, "preface", 1, work))
"""


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fleet_on_a_server_of_its_own_is_not_marked_as_crashed_while_it_works(prepared_folder: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own |= {"PYTHONPATH": str(Path(__file__).parents[3]), "PREFECT_HOME": str(prepared_folder / "prefect")}
    (prepared_folder / "prefect").mkdir()

    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=prepared_folder, env=own, capture_output=True, text=True, timeout=800
    )

    assert "ended Running" in done.stdout, done.stdout + done.stderr
