"""A base upgrade that is stopped in the middle, goes on, and is undone for one task: on tiny bases and on a real one.

The real one is the demo's base, and the base after it: the same weights with a recorded change, and so another hash.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from components.base.base_hash import hash_base
from components.base.base_model import bases_folder
from components.config import params
from components.data.prepare import read_examples
from registry import queries
from tests.flows.station import Station, keeping

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(3600)]
Project = Any  # tests/flows/conftest.py; test modules are not packages
ROOT = Path(__file__).parents[2]
NAME = "smollm2-135m"
FOLDER = bases_folder(ROOT) / NAME  # now, since a project's own is another
TASKS = ("film", "story")
CHANGE = 1.02  # what every weight of the last norm is multiplied with


def next_base(of: Path, to: Path) -> None:
    """The base that comes after one: every answer is a little other, and it was made by a known change."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(of, dtype="auto")
    with torch.no_grad():
        model.model.norm.weight.mul_(CHANGE)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(of).save_pretrained(to)


def real(project: Project) -> tuple[str, str]:
    """Make the project's two tasks ones of real reviews on the real base; the names of that and of the one after it."""
    source = FOLDER
    project.change("bases", {NAME: {"source": str(source), "hash": hash_base(source).value}})
    next_base(source, project.root / "sources" / "next")
    declared = yaml.safe_load((project.root / "params.yaml").read_text())
    found = hash_base(project.root / "sources" / "next").value
    declared["bases"]["next"] = {"source": "sources/next", "hash": found}
    examples = read_examples(ROOT / "data" / "prepared" / "movie-sentiment")
    rows = [
        row
        for split, count in (("train", 400), ("validation", 50), ("test", 150))
        for row in examples.of(split)[:count]
    ]
    frame = pd.DataFrame({"text": [row.text for row in rows], "target": [row.target for row in rows]})
    frame.to_csv(project.root / "film.csv", index=False)
    own = params.load(ROOT / "params.yaml").tasks["movie-sentiment"]
    training = {"steps": 40, "batch_size": 8, "evaluate_every": 20}
    film = declared["tasks"]["film"] | {
        "base": NAME,
        "data": {"source": "film.csv", "format": "csv", "labels": ["negative", "positive"], "max_tokens": 128},
        "instruction": own.instruction,
        "template": own.template,
        "prefix": {"training": training},
        "baselines": {"hard_prompts": [own.baselines.hard_prompts[0]], "in_context": [2]},
        "gate": [
            {"metric": "accuracy", "direction": "higher", "threshold": 0.7},
            {"metric": "accuracy", "direction": "higher", "beats": "champion", "margin": -0.1},
        ],
    }
    declared["tasks"] = {"film": film, "story": film | {"prefix": {"training": {**training, "seed": 1}}}}
    (project.root / "params.yaml").write_text(yaml.safe_dump(declared))
    return NAME, "next"


def tiny(project: Project) -> tuple[str, str]:
    return "tiny", "other"


@pytest.fixture(params=[tiny, pytest.param(real, id="pretrained")])
def station(
    request: pytest.FixtureRequest,
    open_project: Callable[[Path], AbstractContextManager[Project]],
    tmp_path: Path,
    free_port: Callable[[], int],
) -> Iterator[tuple[Station, str, str]]:
    with open_project(tmp_path) as project:
        bases = request.param(project)
        for task in TASKS:
            project.change(f"tasks.{task}.promotion", "auto")
        with keeping(project, free_port()) as running:
            running.awaited(lambda: running.deployment("story"))
            yield running, *bases


def bases_of(station: Station) -> dict[str, tuple[str, str]]:
    """By task: the base that params.yaml declares, and that of the version in Production."""
    declared = params.load(station.root / "params.yaml")
    live = {task: queries.current(station.project.store, task, "Production") for task in TASKS}
    return {task: (declared.tasks[task].base, version.tag("base")) for task, version in live.items() if version}


def test_a_base_upgrade_stops_goes_on_and_comes_back(station: tuple[Station, str, str]) -> None:
    running, old, new = station
    first = running.preface("retrain", "--all", timeout=1800)
    assert first.returncode == 0, first.stdout + first.stderr
    assert bases_of(running) == dict.fromkeys(TASKS, (old, old))

    with (running.root / "rebase.log").open("w") as log:
        campaign = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "rebase", "--to", new],
            cwd=running.root, env=running.environment, stdout=log, stderr=log,
            # A test run that a shell put into the background ignores Ctrl-C, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    running.awaited(lambda: (new, new) in bases_of(running).values() or campaign.poll() is not None, seconds=1800)
    campaign.send_signal(signal.SIGINT)
    campaign.wait(timeout=120)
    said = (running.root / "rebase.log").read_text()
    assert campaign.returncode != 0, said
    halfway = bases_of(running)
    assert sorted(halfway.values()) == sorted([(old, old), (new, new)]), "what is declared is what Production needs"
    assert "Traceback" not in said

    time.sleep(1)  # what was at work goes on, and its version waits
    again = running.preface("rebase", "--to", new, timeout=1800)
    assert again.returncode == 0, again.stdout + again.stderr
    assert bases_of(running) == dict.fromkeys(TASKS, (new, new))
    assert [len(running.project.store.versions(task)) for task in TASKS] == [2, 2], "nothing was trained twice"
    for task in TASKS:
        met = running.project.report(2, task)
        assert met.champion_version == 1
        assert met.champion is not None
        assert met.row_ids == running.project.report(1, task).row_ids
        assert met.champion.predictions == running.project.report(1, task).candidate.predictions
    status = running.preface("status", "--json")
    assert [row["base"] for row in yaml.safe_load(status.stdout)] == [new, new]

    servable(running, 1)
    back = running.preface("rebase", "--undo", "--tasks", "film", "--reason", "worse on short reviews")
    assert back.returncode == 0, back.stderr
    assert bases_of(running) == {"film": (old, old), "story": (new, new)}


def servable(station: Station, number: int) -> None:
    """The old version still answers as it did, on its own base."""
    import mlflow

    report = station.project.report(number)
    asked = read_examples(station.root / "data" / "prepared" / "film").of("test")[:5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow, about the type hint of its own interface
        model = mlflow.pyfunc.load_model(f"models:/film/{number}")
    answers = model.predict(pd.DataFrame({"text": [row.text for row in asked]}))
    assert list(answers["answer"]) == report.candidate.predictions[:5]
