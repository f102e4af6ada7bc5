"""Tags that hold anything at all: what is read from a store is bounded, told, and never a traceback or a long wait."""

from __future__ import annotations

import contextlib
import json
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import NotFound, PrefaceError, RegistryError
from registry import queries
from registry.audit.local_environment import LocalEnvironment
from registry.audit.verify import verify_registry
from registry.release_log import PREFIX, count
from registry.releases import checks, drill_receipts, scored
from registry.releases.projection import now, repair
from registry.releases.state import PENDING, PROJECTED

GARBAGE = {
    "beyond": "99999999999999999999",
    "billion": "999999999 x",
    "digits": "9" * 4500,
    "negative": "-1",
    "other digits": "\u0663\u0664 \u00b2",
    "floats": "1e999 nan",
    "characters": "\x1b]0;x\x07 \x00 \ud7ff",
    "json": json.dumps({"data": 3, "when": [], "scores": {"accuracy": 1e308}, "score": "x"}),
    "nothing": "",
}
VERSION_TAGS = (
    "gate", "settled", "duplicate_of", "fingerprint", "manifest_digest", "base_hash", "data_hash", "dvc_md5",
    "git_commit", "drill", "scored", "metric.accuracy", "forced", "declared_base", "rolled_away",
)  # fmt: skip
ENTRY_TAGS = ("version", "based_on", "head_hash", "digest", "gate", "when", "action")
MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)


@pytest.fixture
def everything(store: Any, task: str, base_hash: str, tmp_path: Path) -> Callable[[], None]:
    """All that only reads or mends; errors of our own are an answer."""
    here = LocalEnvironment(tmp_path, {"tiny": base_hash})

    def ask() -> None:
        for step in verify_registry(lambda: store, [task], here):
            assert not [b for b in step.breaks if b.link in ("task", "version")], "an exception that nobody foresaw"
        list(queries.statuses(store))
        queries.history(store, task)
        for version in store.versions(task):
            scored.latest(version)
            drill_receipts.valid_receipt(version)
        with contextlib.suppress(PrefaceError):
            repair(store, task)

    def bounded() -> None:
        tracemalloc.start()
        try:
            ask()
            assert tracemalloc.get_traced_memory()[1] < 50 << 20
        finally:
            tracemalloc.stop()

    return bounded


@MEMORY
@pytest.mark.parametrize("garbage", GARBAGE)
class TestGarbage:
    def test_in_any_tag_of_a_version(
        self, store: Any, task: str, released: Any, everything: Callable[[], None], garbage: str
    ) -> None:
        released(2)
        for key in VERSION_TAGS:
            before = store.version(task, 1).tag(key)
            store.tag_version(task, 1, PREFIX + key, GARBAGE[garbage])

            everything()

            store.tag_version(task, 1, PREFIX + key, before)

    def test_in_the_marks_of_a_task(
        self, store: Any, task: str, released: Any, everything: Callable[[], None], garbage: str
    ) -> None:
        released(2)
        for key, value in (
            (PROJECTED, GARBAGE[garbage]),
            (PROJECTED, f"{GARBAGE[garbage]} x"),
            (PENDING + "x", GARBAGE[garbage]),
            (PENDING + "y", f"{now()} me@host {GARBAGE[garbage]}"),
        ):
            store.tag_task(task, key, value)

            everything()

    def test_in_an_entry_of_the_log(
        self, store: Any, task: str, released: Any, edit_entry: Any, everything: Callable[[], None], garbage: str
    ) -> None:
        released(3)
        for key in ENTRY_TAGS:
            before = store.logs[task][1][PREFIX + key]
            edit_entry(2, **{key: GARBAGE[garbage]})

            everything()

            edit_entry(2, **{key: before})

    def test_where_a_version_is_named(self, store: Any, task: str, released: Any, garbage: str) -> None:
        released(1)

        with pytest.raises((RegistryError, NotFound)) as refusal:
            queries.find(store, f"{task}@{GARBAGE[garbage]}")

        assert len(str(refusal.value).splitlines()) == 1
        assert len(str(refusal.value)) < 1000


@MEMORY
def test_a_mark_from_the_future_or_of_no_process_is_over(store: Any, task: str, released: Any) -> None:
    released(1)
    for value in ("9999-01-01T00:00:00+00:00 me@elsewhere 1", "nonsense", f"{now()} me@{socket.gethostname()} -1"):
        store.tag_task(task, PENDING + "left", value)

        repair(store, task)

        assert not [key for key in store.task_tags(task) if key.startswith(PENDING)]


@MEMORY
def test_what_is_missing_is_told_in_one_line_however_much_it_is(
    store: Any, task: str, released: Any, tmp_path: Path
) -> None:
    released(2)
    store.tag_task(task, PROJECTED, "999999999 x")

    said = [
        b.fault for step in verify_registry(lambda: store, [task], LocalEnvironment(tmp_path, {})) for b in step.breaks
    ]

    assert "releases 3 to 999999999 are not there: deleted, or made unreadable" in said


def test_what_a_store_can_have_given_out() -> None:
    assert [count(text) for text in ("1", "0", 7, "999999999")] == [1, 0, 7, 999999999]
    assert [count(text) for text in ("1000000000", "9" * 5000, "-1", "1.0", "", " 1", "\u0663", "\u00b2", None)] == [
        None
    ] * 9


def test_a_report_that_compares_with_no_version_that_can_be() -> None:
    for champion in ("-1", "1" + "0" * 30, "9" * 5000, "true", "1.0", '"1"'):
        assert checks.compared_with(f'{{"champion": {champion}}}'.encode()) is None


@pytest.mark.flow
@pytest.mark.parametrize(
    "path", ["../../../../etc/passwd", "/dev/zero", "gate/../../x", "", "a//b", "gate/%2e%2e/x", "x" * 9]
)
def test_a_tag_names_no_file_outside_of_its_run(mlflow_store: Any, task: str, path: str) -> None:
    run_id = mlflow_store.start_run(task, "a run", {}, {})

    with pytest.raises((NotFound, RegistryError)):
        mlflow_store.read_file(run_id, path)
