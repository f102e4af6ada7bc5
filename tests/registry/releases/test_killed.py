"""Real processes killed, or stopped and overtaken, before every call that an operation makes to MLflow, in turn.

Whatever was killed, the next command finds the task as if the operation had never begun or as if it had ended, tells
nobody of drift, and the same operation asked for again ends as it should. In the short share a process dies before
some operations' every call that writes: no other leaves another state behind. The slow one is every call of each, with
MLflow's stages and without: ``pytest -m slow tests/registry/releases/test_killed.py``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .campaigns import (
    NAMED,
    OPERATIONS,
    TASK,
    Bench,
    campaign,
    judge,
    overtaken,
    promote,
    register,
    repaired_and_killed,
    report,
)
from .mortal import mortals

pytestmark = [pytest.mark.flow, pytest.mark.timeout(3000)]
Record = Callable[[str, object], None]
SHORT = ["register a pass", "evaluate: refused, an older one waits", "promote", "roll back", "adopt", "restore"]


# --- the benches ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, write_adapter: Callable[..., Path]) -> dict[str, Path]:
    """Adapters and gate reports by the names that the operations have for them."""
    folder, made = tmp_path_factory.mktemp("inputs"), {}
    for seed in range(1, 6):
        made[f"adapter {seed}"] = write_adapter(folder / str(seed), seed=seed, fingerprint=f"{seed}" * 64, task=TASK)
    for passed, champion in itertools.product((True, False), (None, 1, 2)):
        path = folder / f"{passed}-{champion}.json"
        path.write_text(json.dumps({"passed": passed, "champion": champion}))
        made[report(passed, champion)] = path
    return made


@pytest.fixture(scope="module")
def benches(
    tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path], draft: Callable[..., Any]
) -> Iterator[Callable[..., Bench]]:
    """``benches("aliases", stages=False)``: a store on SQLite, or behind the server whose address is given."""
    made: dict[str, Bench] = {}
    folder = tmp_path_factory.mktemp("benches")
    with mortals(folder / "room") as living:

        def bench(name: str, stages: bool = True, uri: str = "", database: Path | None = None) -> Bench:
            if name not in made:
                (folder / name).mkdir()
                database = database or folder / name / "mlflow.db"
                uri = uri or f"sqlite:///{database}"
                made[name] = Bench(living, uri, database, folder / name, inputs, draft().base.hash, stages)
                if len(made) == 1:
                    rehearsal = [register(1), promote(1), judge(1, passed=True), ("status", {}), ("facts", {})]
                    said = made[name].ask(*map(made[name].given, rehearsal), rehearse=True)["said"]
                    assert all("error" not in each for each in said), said
            return made[name]

        yield bench


@pytest.fixture
def sqlite(benches: Callable[..., Bench]) -> Bench:
    return benches("sqlite")


@pytest.fixture
def aliases(benches: Callable[..., Bench]) -> Bench:
    return benches("aliases", stages=False)


@pytest.fixture
def behind_a_server(
    benches: Callable[..., Bench], tmp_path: Path, server: Callable[..., Any], free_port: Callable[[], int]
) -> Iterator[Bench]:
    port, database = free_port(), tmp_path / "server.db"
    options = {"host": "127.0.0.1", "port": port, "workers": 1, "backend-store-uri": f"sqlite:///{database}"}
    options["artifacts-destination"] = tmp_path / "kept"
    command = ("-m", "mlflow", "server", *(f"--{key}={value}" for key, value in options.items()))
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with server(*command, url=f"http://127.0.0.1:{port}/health", environment=quick):
        yield benches("server", uri=f"http://127.0.0.1:{port}", database=database)


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHORT)
def test_killed_before_any_write_the_next_command_repairs_it(sqlite: Bench, name: str) -> None:
    killed, found = campaign(sqlite, NAMED[name])

    assert killed >= 3
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("stages", [True, False], ids=["stages", "aliases alone"])
def test_killed_before_any_call(
    sqlite: Bench, aliases: Bench, name: str, stages: bool, record_property: Record
) -> None:
    killed, found = campaign(sqlite if stages else aliases, NAMED[name], writes=False)
    record_property("killed", killed)

    assert killed >= 10
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_killed_while_it_works_through_a_server(behind_a_server: Bench, record_property: Record) -> None:
    for operation in OPERATIONS:
        killed, found = campaign(behind_a_server, operation)
        record_property("killed", killed)

        assert killed >= 3
        assert not found, "\n".join(found)


def test_the_aliases_alone_are_repaired_as_well(aliases: Bench) -> None:
    killed, found = campaign(aliases, NAMED["promote"])

    assert killed >= 3
    assert not found, "\n".join(found)


def test_killed_in_the_middle_of_repairing(sqlite: Bench) -> None:
    killed, found = repaired_and_killed(sqlite, "promote", [2], writes=True)

    assert killed >= 5
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["promote", "roll back"])
def test_killed_at_any_call_of_repairing(sqlite: Bench, name: str, record_property: Record) -> None:
    killed, found = repaired_and_killed(sqlite, name, range(2, 7), writes=False)
    record_property("killed", killed)

    assert killed >= 50
    assert not found, "\n".join(found)


# --- overtaken --------------------------------------------------------------------------------------------------------

SLOW = {
    "promote": promote(4),
    "roll back": ("rollback", {"to": 1}),
    "register": register(5, champion=2),
    "evaluate": judge(4, passed=False, champion=2),
    "look": ("status", {}),
}
QUICK = {
    "promote": [promote(3, override=True)],
    "promote the staged": [promote(4, override=True)],
    "roll back": [("rollback", {"to": 1})],
    "evaluate": [judge(4, passed=False, champion=2)],
    "promote, and roll back": [promote(4, override=True), ("rollback", {"to": 2})],
    "evaluate, promote, and roll back": [
        judge(4, passed=False, champion=2),
        promote(3, override=True),
        ("rollback", {"to": 2}),
    ],
}


def test_a_slow_promotion_that_is_killed_after_it_was_overtaken_is_no_drift(sqlite: Bench) -> None:
    stopped, found = overtaken(sqlite, "lively", SLOW["promote"], QUICK["promote"], killed=True)

    assert stopped >= 5
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0, 1, 2, 3], ids=["goes on", "dies at once", "a call later", "two calls later"])
@pytest.mark.parametrize("quick", QUICK)
@pytest.mark.parametrize("slow", SLOW)
def test_whoever_is_overtaken_leaves_nothing_behind(
    sqlite: Bench, slow: str, quick: str, gap: int, record_property: Record
) -> None:
    start = "lively"
    if slow == "look":
        start = sqlite.leave("half promoted", "lively", promote(4), at=2)
    stopped, found = overtaken(sqlite, start, SLOW[slow], QUICK[quick], killed=gap > 0, gap=gap)
    record_property("stopped", stopped)

    assert stopped >= 3
    assert not found, "\n".join(found)


# --- that the above can fail ------------------------------------------------------------------------------------------


def test_without_marks_a_projection_that_was_overtaken_is_found(sqlite: Bench) -> None:
    _, found = overtaken(sqlite, "lively", SLOW["promote"], QUICK["promote"], killed=True, plant="no marks")

    assert any("told: MLflow's stage Production says" in each for each in found), found


def test_a_projected_tag_that_is_written_first_is_found(sqlite: Bench) -> None:
    _, found = campaign(sqlite, NAMED["promote the first"], plant="tag first")

    assert any("told: MLflow's stage Production says" in each for each in found), found
