"""The gate refuses unless it was shown that it should not; what was asked of it is data."""

from __future__ import annotations

import math
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.params import GateRule
from components.gates.decide import Champion, Decision, decide

Direction = Literal["higher", "lower"]
NAN, INF = math.nan, math.inf


def at_least(threshold: float, direction: Direction = "higher") -> GateRule:
    return GateRule(metric="score", direction=direction, threshold=threshold)


def better_than(*names: str, margin: float = 0.0, direction: Direction = "higher") -> GateRule:
    return GateRule(metric="score", direction=direction, beats=list(names), margin=margin)


def better_than_champion(margin: float = 0.0, direction: Direction = "higher") -> GateRule:
    return GateRule(metric="score", direction=direction, beats="champion", margin=margin)


def outcomes(decision: Decision) -> list[str]:
    return [check.outcome for check in decision.checks]


@pytest.mark.parametrize(
    ("direction", "value", "threshold", "passed"),
    [
        ("higher", 0.85, 0.85, True),
        ("higher", 0.86, 0.85, True),
        ("higher", 0.84, 0.85, False),
        ("lower", 0.85, 0.85, True),
        ("lower", 0.84, 0.85, True),
        ("lower", 0.86, 0.85, False),
    ],
)
def test_a_threshold_is_reached_or_missed(direction: Direction, value: float, threshold: float, passed: bool) -> None:
    decision = decide({"score": value}, {}, None, [at_least(threshold, direction)])
    assert decision.passed is passed
    assert outcomes(decision) == ["passed" if passed else "threshold missed"]


@pytest.mark.parametrize(
    ("direction", "value", "other", "margin", "passed"),
    [
        ("higher", 0.90, 0.88, 0.0, True),
        ("higher", 0.88, 0.88, 0.0, False),  # equal does not beat
        ("higher", 0.87, 0.88, 0.0, False),
        ("higher", 0.90, 0.88, 0.02, False),  # by exactly the margin does not, whatever the rounding of 0.9 - 0.88
        ("higher", 0.91, 0.88, 0.02, True),
        ("higher", 0.87, 0.88, -0.02, True),  # a little worse may pass
        ("higher", 0.88, 0.88, -0.02, True),
        ("higher", 0.86, 0.88, -0.02, False),
        ("lower", 0.88, 0.90, 0.0, True),
        ("lower", 0.90, 0.88, 0.0, False),
        ("lower", 0.88, 0.90, 0.02, False),
        ("lower", 0.87, 0.90, 0.02, True),
        ("lower", 0.91, 0.90, -0.02, True),
        ("lower", 0.92, 0.90, -0.02, False),
    ],
)
def test_baseline_and_champion_are_beaten_by_more_than_the_margin(
    direction: Direction, value: float, other: float, margin: float, passed: bool
) -> None:
    candidate, champion = {"score": value}, Champion(version=3, metrics={"score": other})
    over_baseline = decide(
        candidate, {"linear": {"score": other}}, None, [better_than("linear", margin=margin, direction=direction)]
    )
    over_champion = decide(candidate, {}, champion, [better_than_champion(margin, direction)])
    assert outcomes(over_baseline) == ["passed" if passed else "not better"]
    assert outcomes(over_champion) == ["passed" if passed else "champion better"]
    assert over_baseline.passed is over_champion.passed is passed


def test_no_champion_one_that_cannot_be_compared_and_a_better_one_are_three_outcomes() -> None:
    candidate, rules = {"score": 0.9}, [better_than_champion()]
    none = decide(candidate, {}, None, rules)
    mute = decide(candidate, {}, Champion(version=4, metrics=None, reason="it needs another base"), rules)
    better = decide(candidate, {}, Champion(version=4, metrics={"score": 0.95}), rules)
    assert [outcomes(d) for d in (none, mute, better)] == [
        ["no champion"],
        ["champion not comparable"],
        ["champion better"],
    ]
    assert [d.passed for d in (none, mute, better)] == [True, False, False]
    assert [d.champion for d in (none, mute, better)] == [None, 4, 4]
    assert "version 4 in Production has no comparable score: it needs another base" in mute.reasons
    assert "0.9000 against 0.9500 of version 4" in better.reasons
    itself = decide(candidate, {}, None, rules, unopposed="version 4 is itself in Production")
    assert [d.checks[0].reason for d in (none, itself)] == [
        "nothing is in Production",
        "version 4 is itself in Production",
    ]


@pytest.mark.parametrize("metrics", [{}, {"other": 0.5}, {"score": NAN}, {"score": -INF}])
def test_a_champion_without_a_finite_score_is_not_a_worse_one(metrics: dict[str, float]) -> None:
    decision = decide({"score": 0.9}, {}, Champion(version=4, metrics=metrics), [better_than_champion()])
    assert not decision.passed
    assert outcomes(decision) == ["champion not comparable"]
    assert "it has no finite score" in decision.reasons


@pytest.mark.parametrize("metrics", [{}, {"accuracy": 1.0}, {"score": NAN}, {"score": INF}, {"score": -INF}])
@pytest.mark.parametrize("rule", [at_least(-1e9), better_than("linear", margin=-1e9), better_than_champion(-1e9)])
def test_a_missing_or_infinite_metric_refuses(metrics: dict[str, float], rule: GateRule) -> None:
    """Even a rule that everything would pass, and even before the first champion."""
    decision = decide(metrics, {"linear": {"score": 0.0}}, None, [rule])
    assert not decision.passed
    assert outcomes(decision) == ["metric missing"]
    assert "no finite score" in decision.reasons


@pytest.mark.parametrize(
    ("baselines", "told"),
    [
        ({}, "baseline linear was not measured"),
        ({"linear": {}}, "baseline linear has no finite score"),
        ({"linear": {"score": NAN}}, "baseline linear has no finite score"),
        ({"linear": {"score": -INF}}, "baseline linear has no finite score"),
    ],
)
def test_a_missing_baseline_refuses(baselines: dict[str, dict[str, float]], told: str) -> None:
    decision = decide({"score": 0.9}, baselines, None, [better_than("linear")])
    assert not decision.passed
    assert outcomes(decision) == ["baseline missing"]
    assert told in decision.reasons


def test_an_empty_policy_refuses() -> None:
    assert not decide({"score": 1.0}, {}, None, []).passed


def test_one_refusal_among_many_refuses_and_only_it_is_a_reason() -> None:
    baselines = {"majority": {"score": 0.5}, "linear": {"score": 0.95}}
    decision = decide({"score": 0.9}, baselines, None, [at_least(0.8), better_than("majority", "linear")])
    assert not decision.passed
    assert outcomes(decision) == ["passed", "passed", "not better"]
    assert decision.reasons == "score beats linear: 0.9000 against 0.9500"


def test_a_decision_comes_back_from_json_as_it_was() -> None:
    decision = decide({"score": 0.9}, {}, Champion(version=2, metrics=None), [at_least(0.8), better_than_champion()])
    assert Decision.model_validate_json(decision.model_dump_json(indent=1)) == decision


VALUES = st.floats(-100, 100) | st.sampled_from([0.0, 0.85, 0.88, 0.9])
SCORES = VALUES | st.sampled_from([NAN, INF, -INF])
RULES = st.builds(at_least, VALUES, st.sampled_from(["higher", "lower"])) | st.builds(
    lambda other, margin, direction: (
        better_than_champion(margin, direction)
        if other is None
        else better_than(other, margin=margin, direction=direction)
    ),
    st.sampled_from(["majority", "linear", None]),
    VALUES,
    st.sampled_from(["higher", "lower"]),
)
BASELINES = st.dictionaries(st.sampled_from(["majority", "linear"]), st.fixed_dictionaries({"score": SCORES}))
CHAMPIONS = st.none() | st.builds(
    Champion, version=st.just(1), metrics=st.none() | st.fixed_dictionaries({}, optional={"score": SCORES})
)


@given(value=VALUES, gain=st.floats(0, 100), rules=st.lists(RULES, min_size=1), baselines=BASELINES, champion=CHAMPIONS)
def test_a_better_candidate_is_never_refused_where_a_worse_one_passed(
    value: float, gain: float, rules: list[GateRule], baselines: dict[str, dict[str, float]], champion: Champion | None
) -> None:
    for direction, better in (("higher", value + gain), ("lower", value - gain)):
        policy = [rule for rule in rules if rule.direction == direction]
        before = decide({"score": value}, baselines, champion, policy)
        after = decide({"score": better}, baselines, champion, policy)
        assert after.passed or not before.passed


@given(
    score=SCORES,
    rules=st.lists(RULES, max_size=5),
    baselines=BASELINES,
    champion=CHAMPIONS,
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_rules_decides_nothing(
    score: float,
    rules: list[GateRule],
    baselines: dict[str, dict[str, float]],
    champion: Champion | None,
    order: Random,
) -> None:
    shuffled = list(rules)
    order.shuffle(shuffled)
    one, other = (decide({"score": score}, baselines, champion, policy) for policy in (rules, shuffled))
    assert one.passed == other.passed
    assert sorted(one.checks, key=str) == sorted(other.checks, key=str)


@given(score=SCORES, rules=st.lists(RULES, max_size=5), baselines=BASELINES, champion=CHAMPIONS)
def test_it_passes_only_if_every_rule_did_and_says_why_otherwise(
    score: float, rules: list[GateRule], baselines: dict[str, dict[str, float]], champion: Champion | None
) -> None:
    decision = decide({"score": score}, baselines, champion, rules)
    assert decision.passed == (bool(rules) and all(check.passed for check in decision.checks))
    assert len(decision.checks) == len(rules)
    assert bool(decision.reasons) == (bool(rules) and not decision.passed)
    assert all(check.passed == (check.outcome in ("passed", "no champion")) for check in decision.checks)
