"""A reason says in words what it found; without one nothing is trained, and nothing is trained twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from components.config.schedule_params import CHANGES, Change, RetrainParams
from components.provenance import triggers
from components.provenance.triggers import NOTHING_NEW, Origin, Verdict, Watched, decide

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
METRICS = ("accuracy", "macro_f1")
KNOWN = "version 3 was trained from just this"
BEFORE = Origin(data="d" * 32, base="b" * 64, settings="s" * 64, version=3)
OTHERS: dict[str, str] = {"data": "e" * 32, "base": "c" * 64, "settings": "t" * 64}
FIELDS: dict[Change, str] = {"data": "data", "base": "base", "parameters": "settings"}
SAYS: dict[Change, str] = {
    "data": "the data changed since version 3 (DVC dddddddddddd -> eeeeeeeeeeee)",
    "base": "the base changed since version 3 (bbbbbbbbbbbb -> cccccccccccc)",
    "parameters": "the parameters changed since version 3",
}
FINDS = {"data": triggers.data_changed, "base": triggers.base_changed, "parameters": triggers.parameters_changed}
LOW = "version 2 in Production has accuracy 0.7500 on today's rows, its floor is 0.8"
OLD = "version 2 in Production is 31.0 days old, max_age is 30d"


def today(*changed: Change) -> Origin:
    """What would be trained from now: as BEFORE, but for these changes."""
    new = {FIELDS[kind]: OTHERS[FIELDS[kind]] for kind in changed}
    return BEFORE.model_copy(update={"version": 0, **new})


def live(days: float = 1, **scores: float) -> Watched:
    return Watched(version=2, made=NOW - timedelta(days=days), scores=scores)


def policy(**fields: Any) -> RetrainParams:
    return RetrainParams.model_validate(fields)


FLOOR, AGE = policy(floor={"accuracy": 0.8}), policy(max_age="30d")
WATCHES = policy(when=[], floor={"accuracy": 0.8}, max_age="30d")


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_told_with_the_version_before_it_and_no_other_reason_sees_it(kind: Change) -> None:
    assert FINDS[kind](BEFORE, today(kind)) == SAYS[kind]
    assert triggers.changes(BEFORE, today(kind)) == {kind: SAYS[kind]}


def test_without_a_change_there_is_no_reason() -> None:
    assert [find(BEFORE, today()) for find in FINDS.values()] == ["", "", ""]
    assert triggers.changes(BEFORE, today()) == {}


def test_changes_are_told_in_the_order_in_which_they_are_declared() -> None:
    assert list(triggers.changes(BEFORE, today("parameters", "base", "data"))) == list(CHANGES)


def test_a_version_that_does_not_tell_its_origin_counts_as_made_from_something_else() -> None:
    silent = Origin(data="", base="", settings="", version=3)
    found = triggers.changes(silent, today())
    assert list(found) == list(CHANGES)
    assert "(DVC unknown -> dddddddddddd)" in found["data"]
    assert "(unknown -> bbbbbbbbbbbb)" in found["base"]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"accuracy": 0.75}, LOW),
        ({"accuracy": 0.8}, ""),  # at the floor is not below it
        ({"accuracy": 0.9}, ""),
        ({"macro_f1": 0.1}, ""),
        ({}, ""),
    ],
)
def test_a_score_below_the_floor_is_told_with_both_numbers(scores: dict[str, float], told: str) -> None:
    assert triggers.below_floor(live(**scores), {"accuracy": 0.8}) == told


def test_every_score_below_its_floor_is_told_and_no_other() -> None:
    floor = {"accuracy": 0.8, "macro_f1": 0.7, "f1_good": 0.5}
    found = triggers.below_floor(live(accuracy=0.75, macro_f1=0.6, f1_good=0.5), floor)
    assert found == f"{LOW}, macro_f1 0.6000 on today's rows, its floor is 0.7"


@pytest.mark.parametrize(
    ("days", "max_age", "told"),
    [(31, "30d", OLD), (30, "30d", ""), (1, "30d", ""), (1000, None, ""), (-1, "1s", "")],
)
def test_a_version_older_than_it_may_be_is_told_with_both_ages(days: int, max_age: str | None, told: str) -> None:
    assert triggers.too_old(live(days), max_age, NOW) == told


def test_it_is_too_old_from_the_first_second_after_its_age() -> None:
    assert not triggers.too_old(Watched(version=2, made=NOW - timedelta(hours=6), scores={}), "6h", NOW)
    assert triggers.too_old(Watched(version=2, made=NOW - timedelta(hours=6, seconds=1), scores={}), "6h", NOW)


def test_worries_are_all_told_the_score_first() -> None:
    assert triggers.champion_alerts(live(31, accuracy=0.75), WATCHES, NOW) == [LOW, OLD]
    assert triggers.champion_alerts(live(1, accuracy=0.9), WATCHES, NOW) == []


@pytest.mark.parametrize(
    ("asked", "before", "changed", "champion", "known", "action", "why"),
    [
        (policy(), None, (), None, "", "train", ["it was never trained"]),
        (policy(when=["base"]), None, ("data",), None, "", "train", ["it was never trained"]),
        (policy(), BEFORE, (), None, KNOWN, "rest", [KNOWN]),
        (policy(), None, (), None, KNOWN, "rest", [KNOWN]),
        (policy(), BEFORE, ("data",), None, KNOWN, "rest", [KNOWN]),  # the rows of an earlier version came back
        (FLOOR, BEFORE, (), live(31, accuracy=0.9), KNOWN, "rest", [KNOWN]),
        (FLOOR, BEFORE, (), live(31, accuracy=0.75), KNOWN, "alert", [LOW, NOTHING_NEW]),
        (AGE, BEFORE, (), live(31, accuracy=0.75), KNOWN, "alert", [OLD, NOTHING_NEW]),
        (WATCHES, BEFORE, (), live(31, accuracy=0.75), KNOWN, "alert", [LOW, OLD, NOTHING_NEW]),
        (WATCHES, BEFORE, ("data",), live(31, accuracy=0.75), "", "train", [LOW, OLD]),
        (
            policy(when=["base"], max_age="30d"),
            BEFORE,
            ("data", "base"),
            live(31),
            "",
            "train",
            [SAYS["base"], OLD],
        ),
        (FLOOR, BEFORE, ("data",), live(accuracy=0.75), "", "train", [SAYS["data"], LOW]),
        (WATCHES, BEFORE, ("data",), None, "", "rest", [f"{SAYS['data']}: no reason by retrain.when, which is []"]),
        (WATCHES, BEFORE, (), None, KNOWN, "rest", [KNOWN]),  # nothing is in Production
        (
            policy(when=["data"]),
            BEFORE,
            (),
            None,
            "",
            "rest",
            ["version 3 was trained otherwise: no reason by retrain.when, which is ['data']"],
        ),
    ],
)
def test_what_follows_from_the_reasons(
    asked: RetrainParams,
    before: Origin | None,
    changed: tuple[Change, ...],
    champion: Watched | None,
    known: str,
    action: str,
    why: list[str],
) -> None:
    verdict = decide(asked, before, today(*changed), champion, NOW, known=known)
    assert (verdict.action, list(verdict.reasons)) == (action, why)
    assert str(verdict) == "; ".join(why)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_reason_enough_only_where_it_is_listed(kind: Change) -> None:
    others: list[Change] = [other for other in CHANGES if other != kind]
    listed = decide(policy(when=[kind]), BEFORE, today(kind), None, NOW, known="")
    left_out = decide(policy(when=others), BEFORE, today(kind), None, NOW, known="")
    assert listed == Verdict(action="train", reasons=(SAYS[kind],))
    assert left_out.action == "rest"
    assert left_out.reasons == (f"{SAYS[kind]}: no reason by retrain.when, which is {others}",)


VALUES = st.floats(0, 1) | st.sampled_from([0.75, 0.8])
BY_METRIC = st.dictionaries(st.sampled_from(METRICS), VALUES)
KINDS = st.lists(st.sampled_from(CHANGES), unique=True)
AGES = st.sampled_from([None, "1s", "6h", "30d", "2w"])
POLICIES = (
    st.fixed_dictionaries({"when": KINDS, "floor": BY_METRIC, "max_age": AGES})
    .filter(lambda said: said["when"] or said["floor"] or said["max_age"])
    .map(RetrainParams.model_validate)
)
CHAMPIONS = st.builds(
    Watched,
    version=st.just(2),
    made=st.timedeltas(-timedelta(days=1), timedelta(days=60)).map(lambda age: NOW - age),
    scores=BY_METRIC,
)
BEFORES = st.sampled_from([None, BEFORE])
TODAYS = KINDS.map(lambda kinds: today(*kinds))
WHETHER_KNOWN = st.sampled_from(["", KNOWN])


@given(policy=POLICIES, before=BEFORES, now=TODAYS, champion=st.none() | CHAMPIONS)
def test_what_is_known_is_never_trained_again_and_only_a_worry_alerts(
    policy: RetrainParams, before: Origin | None, now: Origin, champion: Watched | None
) -> None:
    worried = triggers.champion_alerts(champion, policy, NOW) if champion else []
    verdict = decide(policy, before, now, champion, NOW, known=KNOWN)
    assert verdict.action == ("alert" if worried else "rest")
    assert verdict.reasons == ((*worried, NOTHING_NEW) if worried else (KNOWN,))


@given(policy=POLICIES, before=BEFORES, now=TODAYS, champion=st.none() | CHAMPIONS)
def test_what_is_new_is_trained_exactly_if_there_is_a_reason_and_all_of_them_are_told(
    policy: RetrainParams, before: Origin | None, now: Origin, champion: Watched | None
) -> None:
    found = triggers.changes(before, now) if before else {}
    listed = [text for kind, text in found.items() if kind in policy.when]
    worried = triggers.champion_alerts(champion, policy, NOW) if champion else []
    verdict = decide(policy, before, now, champion, NOW, known="")
    assert verdict.action == ("train" if before is None or listed or worried else "rest")
    if before is not None and verdict.action == "train":
        assert list(verdict.reasons) == [*listed, *worried]


@given(policy=POLICIES, before=BEFORES, now=TODAYS, champion=st.none() | CHAMPIONS, known=WHETHER_KNOWN)
def test_no_verdict_is_without_words(
    policy: RetrainParams, before: Origin | None, now: Origin, champion: Watched | None, known: str
) -> None:
    verdict = decide(policy, before, now, champion, NOW, known=known)
    assert verdict.reasons
    assert all(verdict.reasons)


@given(policy=POLICIES, before=BEFORES, now=TODAYS, champion=CHAMPIONS, known=WHETHER_KNOWN)
def test_a_champion_without_a_score_for_the_floor_is_as_good_as_none(
    policy: RetrainParams, before: Origin | None, now: Origin, champion: Watched, known: str
) -> None:
    policy = policy.model_copy(update={"max_age": None})
    mute = champion.model_copy(
        update={"scores": {name: value for name, value in champion.scores.items() if name not in policy.floor}}
    )
    assert decide(policy, before, now, mute, NOW, known=known) == decide(policy, before, now, None, NOW, known=known)


@given(policy=POLICIES, now=TODAYS, more=st.sampled_from(CHANGES), champion=st.none() | CHAMPIONS)
def test_whoever_lists_one_more_change_never_trains_less(
    policy: RetrainParams, now: Origin, more: Change, champion: Watched | None
) -> None:
    assume(more not in policy.when)
    wider = policy.model_copy(update={"when": [*policy.when, more]})
    one, other = (decide(each, BEFORE, now, champion, NOW, known="").action for each in (policy, wider))
    assert (one, other) != ("train", "rest")
