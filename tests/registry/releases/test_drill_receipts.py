"""A drill's receipt: whom it vouches for and how long, and what a rollback may rest on with the artifact store down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.errors import ArtifactError, NotFound, StoreUnavailable
from registry.protocol import Version
from registry.releases import drill_receipts
from registry.releases.drill_receipts import FRESH, SKEW, Receipt

MINUTE = timedelta(minutes=1)
BOTH = pytest.mark.parametrize("store", ["memory", pytest.param("mlflow", marks=pytest.mark.flow)], indirect=True)
OTHER = "a" * 64


@pytest.fixture
def drilled(store: Any) -> Callable[..., Version]:
    """Leave a receipt on a version, right and new unless something is said: ``drilled(version, digest="...")``."""

    def leave(version: Version, ago: timedelta = timedelta(0), **changes: Any) -> Version:
        facts = {
            "when": (datetime.now(UTC) - ago).isoformat(),
            "who": "ada",
            "host": "spare",
            "digest": version.tag("manifest_digest"),
            "base_hash": version.tag("base_hash"),
            "seconds": {"fetch": 0.1},
            "metric": "accuracy",
            "score": 0.9,
            "rows": 16,
        }
        drill_receipts.leave(store, version, Receipt(**(facts | changes)))
        found: Version = store.version(version.task, version.number)
        return found

    return leave


@BOTH
class TestVouching:
    def test_a_fresh_one_vouches_and_says_whose_it_is(self, store: Any, candidate: Any, drilled: Any) -> None:
        version = drilled(candidate(store))

        drill, unfit = drill_receipts.valid_receipt(version)

        assert drill.startswith("the drill of ")
        assert drill.endswith(" by ada@spare")
        assert unfit == ""
        found = drill_receipts.find(version)
        assert found is not None
        assert (found.score, found.rows, found.seconds) == (0.9, 16, {"fetch": 0.1})

    def test_a_later_one_takes_its_place(self, store: Any, candidate: Any, drilled: Any) -> None:
        version = drilled(drilled(candidate(store)), who="bob")

        assert drill_receipts.valid_receipt(version)[0].endswith("by bob@spare")

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"ago": FRESH + MINUTE}, "is not of the last 2 days"),
            ({"ago": -SKEW - MINUTE}, "is in the future by this machine's clock"),
            ({"digest": OTHER}, f"saw another adapter: {OTHER}"),
            ({"base_hash": OTHER}, f"on base {OTHER}; registered is"),
            ({"when": "yesterday"}, "no drill vouches"),
            ({"when": "2026-11-23T20:00:00"}, "no drill vouches"),
            ({"when": 7}, "no drill vouches"),
        ],
    )
    def test_any_other_does_not_and_says_why(
        self, store: Any, candidate: Any, drilled: Any, changes: dict[str, Any], why: str
    ) -> None:
        drill, unfit = drill_receipts.valid_receipt(drilled(candidate(store), **changes))

        assert drill == ""
        assert why in unfit

    @pytest.mark.parametrize("ago", [FRESH - MINUTE, -SKEW + MINUTE])
    def test_until_the_last_minute_and_with_a_clock_that_is_a_little_ahead(
        self, store: Any, candidate: Any, drilled: Any, ago: timedelta
    ) -> None:
        assert drill_receipts.valid_receipt(drilled(candidate(store), ago=ago))[0]

    @pytest.mark.parametrize("tag", ["", "?", "[]", "{}", '{"when": 1}', "null", "[" * 3000])
    def test_one_that_cannot_be_read_vouches_for_nothing(self, store: Any, task: str, candidate: Any, tag: str) -> None:
        candidate(store)
        store.tag_version(task, 1, "preface.drill", tag)

        assert drill_receipts.find(store.version(task, 1)) is None
        assert "`preface drill` leaves receipts" in drill_receipts.valid_receipt(store.version(task, 1))[1]


@BOTH
class TestRollback:
    """With the artifact store down; everything else of a rollback is another file's matter."""

    @pytest.fixture
    def down(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """From now on nothing is downloaded."""

        def away(_: Version) -> Any:
            raise StoreUnavailable("the artifact store does not answer (planted)")

        return lambda: monkeypatch.setattr(store, "download", away)

    def test_without_a_receipt_it_is_refused_with_override_or_without(
        self, store: Any, released: Any, rollback: Any, seen: Any, down: Any
    ) -> None:
        released(2)
        down()

        for override in (False, True):
            with pytest.raises(StoreUnavailable, match=r"does not answer .*; no drill vouches for .*@1"):
                rollback(override=override)
        assert seen.log == [("promote", 1), ("promote", 2)]
        assert seen.stages == ["None", "Production"]

    def test_with_a_receipt_it_names_override_and_lands_with_it(
        self, store: Any, task: str, released: Any, rollback: Any, seen: Any, down: Any, drilled: Any
    ) -> None:
        released(2)
        drilled(store.version(task, 1))
        down()

        with pytest.raises(StoreUnavailable, match="by ada@spare vouches for it: --override rests on that"):
            rollback()
        assert seen.stages == ["None", "Production"]

        moved = rollback(override=True)

        assert (moved.version.number, seen.stages) == (1, ["Production", "None"])
        assert moved.entry.override.startswith("the artifact store did not answer; this rests on the drill of ")
        assert moved.entry.override.endswith("by ada@spare")
        assert store.releases(task)[-1].override == moved.entry.override

    @pytest.mark.parametrize(("changes", "why"), [({"ago": 2 * FRESH}, "2 days"), ({"digest": OTHER}, OTHER)])
    def test_an_unfit_receipt_is_not_overridden(
        self,
        store: Any,
        task: str,
        released: Any,
        rollback: Any,
        seen: Any,
        down: Any,
        drilled: Any,
        changes: Any,
        why: str,
    ) -> None:
        released(2)
        drilled(store.version(task, 1), **changes)
        down()

        with pytest.raises(StoreUnavailable, match=why):
            rollback(override=True)
        assert seen.stages == ["None", "Production"]

    def test_damaged_or_missing_bytes_are_never_overridden(
        self, store: Any, task: str, released: Any, rollback: Any, seen: Any, damage: Any, drilled: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        released(2)
        drilled(store.version(task, 1))
        damage()

        with pytest.raises(ArtifactError, match="sha256"):
            rollback(override=True)

        def gone(_: Version) -> Any:
            raise NotFound("gone")

        monkeypatch.setattr(store, "download", gone)
        with pytest.raises(NotFound):
            rollback(override=True)
        assert seen.stages == ["None", "Production"]

    def test_a_receipt_does_not_stand_in_for_the_bytes_of_a_promotion(
        self, store: Any, task: str, candidate: Any, promote: Any, seen: Any, down: Any, drilled: Any
    ) -> None:
        drilled(candidate(store))
        down()

        with pytest.raises(StoreUnavailable):
            promote(1, override=True)
        assert seen.log == []
