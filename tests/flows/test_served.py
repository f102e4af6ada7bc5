"""A schedule on a real Prefect server, as README serves it: it plans runs, and a run does what the command does."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.flow
Project = Any  # tests/flows/conftest.py; test modules are not packages

ROOT = Path(__file__).parents[2]
SECONDS = 120


@pytest.fixture
def prefect_api(tmp_path: Path, server: Callable[..., Any], free_port: Callable[[], int]) -> Iterator[str]:
    """A server of its own: the harness of the other tests has no scheduler."""
    port = free_port()
    own = {"PREFECT_HOME": str(tmp_path / "server")}
    arguments = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    with server(*arguments, url=f"http://127.0.0.1:{port}/api/health", environment=own):
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture
def serving(tmp_path: Path, project: Project, prefect_api: str, running: Callable[..., Any]) -> Iterator[Path]:
    """README's own lines, run in the project; where what they say is written."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Schedule")[1]
    code = re.findall("```python\n(.*?)```", section, re.DOTALL)[0].replace("movie-sentiment", "film")
    log = tmp_path / "serve.log"
    own = {"PREFECT_API_URL": prefect_api, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with running("-c", code, log=log, environment=own, folder=project.root):
        yield log


def ask(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def awaited(look: Callable[[], Any], log: Path) -> Any:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    pytest.fail(f"nothing within {SECONDS} s; {log.read_text()[-2000:]}")


def test_the_schedule_plans_runs_and_a_run_retrains(project: Project, serving: Path, prefect_api: str) -> None:
    deployment = awaited(lambda: ask(f"{prefect_api}/deployments/filter", {}), serving)[0]

    def runs(state: str) -> Any:
        return ask(f"{prefect_api}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})

    planned = awaited(lambda: runs("SCHEDULED"), serving)
    assert {run["expected_start_time"][11:19] for run in planned} == {"03:00:00"}

    ask(f"{prefect_api}/deployments/{deployment['id']}/create_flow_run", {})
    (done,) = awaited(lambda: runs("COMPLETED") or runs("FAILED"), serving)
    assert (done["name"], done["state_name"]) == ("film", "Staged")
    assert project.store.version("film", 1).stage == "Staging"
