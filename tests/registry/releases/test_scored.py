"""What a version scores on rows of a later day: kept beside its gate's report, and doubted where it cannot be right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.protocol import Version
from registry.release_log import PREFIX
from registry.releases import scored

BOTH = pytest.mark.parametrize("store", ["memory", pytest.param("mlflow", marks=pytest.mark.flow)], indirect=True)
ROWS, LATER = "d" * 64, "e" * 64  # those that the candidates of these tests were judged by, and others
REGISTERED = {"accuracy": 0.9, "macro_f1": 1.0}
WHEN = "2026-11-23T20:00:00+00:00"
MADE = datetime(2026, 11, 1, tzinfo=UTC)
GOOD = f'{{"data": "{LATER}", "when": "{WHEN}", "scores": {{"accuracy": 0.7}}}}'


def tagged(said: str | None, **metrics: str) -> Version:
    """A version with just these tags."""
    tags = {"data_hash": ROWS, **{f"metric.{name}": text for name, text in metrics.items()}}
    tags |= {} if said is None else {"scored": said}
    return Version(
        "mood",
        1,
        "Production",
        {PREFIX + k: v for k, v in tags.items()},
        "run",
        "somewhere",
        MADE,
        ready=True,
        aliases=(),
    )


@BOTH
class TestKept:
    def test_until_somebody_looks_again_it_is_what_it_was_registered_with(self, store: Any, candidate: Any) -> None:
        version = candidate(store)
        made = version.created.isoformat(timespec="seconds")

        assert scored.registered(version) == REGISTERED
        assert scored.latest(version) == (ROWS, made, REGISTERED)
        assert scored.on(version, ROWS) == REGISTERED
        assert scored.on(version, LATER) is None

    def test_what_is_noted_is_the_latest_and_the_registered_scores_stay(
        self, store: Any, task: str, candidate: Any
    ) -> None:
        version = candidate(store)
        scored.note(store, version, LATER, WHEN, {"accuracy": 0.7})
        version = store.version(task, 1)

        assert scored.latest(version) == (LATER, WHEN, {"accuracy": 0.7})
        assert scored.on(version, LATER) == {"accuracy": 0.7}
        assert scored.on(version, ROWS) is None
        assert scored.registered(version) == REGISTERED

    def test_what_is_noted_later_takes_its_place(self, store: Any, task: str, candidate: Any) -> None:
        version = candidate(store)
        for content, value in ((LATER, 0.7), (ROWS, 0.6)):
            scored.note(store, version, content, WHEN, {"accuracy": value})

        assert scored.on(store.version(task, 1), ROWS) == {"accuracy": 0.6}
        assert scored.on(store.version(task, 1), LATER) is None

    def test_it_is_noted_of_one_version_alone(self, store: Any, task: str, candidate: Any) -> None:
        other, version = candidate(store), candidate(store)
        scored.note(store, version, LATER, WHEN, {"accuracy": 0.7})

        assert store.version(task, other.number).tags == other.tags
        assert scored.on(store.version(task, version.number), LATER) == {"accuracy": 0.7}

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"high"'])
    def test_a_tag_that_was_edited_by_hand_counts_as_none(
        self, store: Any, task: str, candidate: Any, value: str
    ) -> None:
        version = candidate(store)
        scored.note(store, version, LATER, WHEN, {"accuracy": 0.7})
        edited = store.version(task, 1).tag("scored").replace("0.7", value)
        store.tag_version(task, 1, "preface.scored", edited)

        assert scored.on(store.version(task, 1), LATER) is None
        assert scored.on(store.version(task, 1), ROWS) == REGISTERED

    def test_a_score_that_is_no_number_is_never_read_back(self, store: Any, task: str, candidate: Any) -> None:
        scored.note(store, candidate(store), LATER, WHEN, {"accuracy": 0.7, "macro_f1": float("nan")})

        assert scored.on(store.version(task, 1), LATER) is None


def test_the_tag_that_the_faults_are_planted_in_is_right_without_them() -> None:
    assert scored.latest(tagged(GOOD, accuracy="0.9")) == (LATER, WHEN, {"accuracy": 0.7})


@pytest.mark.parametrize(
    "said",
    [
        "", "?", "null", "7", '"x"', "[]", "{}", GOOD[:-1], GOOD + "}",
        GOOD.replace('"data"', '"date"'), GOOD.replace('"when"', '"wen"'), GOOD.replace('"scores"', '"score"'),
        GOOD.replace('{"accuracy": 0.7}', "[0.7]"), GOOD.replace('{"accuracy": 0.7}', "null"),
        GOOD.replace("0.7", "null"), GOOD.replace("0.7", "[0.7]"), GOOD.replace("0.7", '"high"'),
        GOOD.replace("0.7", "NaN"), GOOD.replace("0.7", "Infinity"), GOOD.replace("0.7", "-Infinity"),
        GOOD.replace("0.7", "1e999"), GOOD.replace("0.7", '"nan"'), GOOD.replace("0.7", '0.7, "macro_f1": NaN'),
        GOOD.replace("0.7", "1" + "0" * 5000),  # more digits than Python reads
    ],
)  # fmt: skip
def test_one_that_cannot_be_read_falls_back_to_the_registered_scores(said: str) -> None:
    version = tagged(said, accuracy="0.9")

    assert scored.latest(version) == (ROWS, MADE.isoformat(timespec="seconds"), {"accuracy": 0.9})
    assert scored.on(version, LATER) is None


@pytest.mark.parametrize("said", ["[" * 3000, GOOD.replace("0.7", "1" + "0" * 400)], ids=["deep", "huge"])
def test_one_that_is_too_deep_or_too_large_falls_back_too(said: str) -> None:
    assert scored.on(tagged(said, accuracy="0.9"), ROWS) == {"accuracy": 0.9}


@pytest.mark.parametrize("text", ["high", "", "nan", "inf"])
def test_a_registered_score_that_was_edited_by_hand_is_left_out(text: str) -> None:
    assert scored.registered(tagged(None, accuracy=text, macro_f1="1")) == {"macro_f1": 1.0}


@given(
    scores=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False)),
    content=st.text(alphabet="0123456789abcdef", min_size=1),
)
def test_whatever_is_noted_is_read_back_as_it_was(scores: dict[str, float], content: str) -> None:
    kept: list[str] = []

    class Store:
        def tag_version(self, task: str, number: int, key: str, value: str) -> None:
            assert (task, number, key) == ("mood", 1, PREFIX + "scored")
            kept.append(value)

    scored.note(Store(), tagged(None), content, WHEN, scores)  # type: ignore[arg-type]

    assert scored.latest(tagged(kept[0])) == (content, WHEN, scored.on(tagged(kept[0]), content))
    assert scored.on(tagged(kept[0]), content) == scores
