"""Whether a candidate may go to Staging: rules as data, a decision with reasons. Pure: no model, no store, no clock.

Refusing is the default. A metric that is missing or not finite refuses, a baseline that was not measured refuses, and
"no champion", "a champion without comparable scores" and "the champion is better" are three different outcomes.
How certain a difference is on so many rows is not judged yet: ``_beats`` is the one place where it will be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from components.config.params import GateRule
from components.records import Record

Outcome = Literal[
    "passed", "threshold missed", "not better", "metric missing", "baseline missing",
    "no champion", "champion not comparable", "champion better",
]  # fmt: skip


class Champion(Record):
    """The version in Production as the candidate's test rows saw it; ``metrics`` None says that they could not."""

    version: int
    metrics: dict[str, float] | None
    reason: str = ""


class Check(Record):
    """One rule's verdict. ``passed`` and ``outcome`` agree: "no champion" passes, every other non-pass refuses."""

    rule: str
    passed: bool
    outcome: Outcome
    reason: str


class Decision(Record):
    """All verdicts. ``champion`` is the version in Production at the time, None for none."""

    passed: bool
    checks: tuple[Check, ...]
    champion: int | None

    @property
    def reasons(self) -> str:
        """Why it was refused, in one line; empty when it passed."""
        return "; ".join(f"{check.rule}: {check.reason}" for check in self.checks if not check.passed)


def decide(
    candidate: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    champion: Champion | None,
    policy: Sequence[GateRule],
    unopposed: str = "nothing is in Production",
) -> Decision:
    """Hold a candidate's test metrics against a task's rules.

    Args:
        candidate: metric -> value, of the held-out test split.
        baselines: name -> metrics on the same rows.
        champion: today's Production version on the same rows; None if there is none.
        policy: the rules; an empty policy refuses, since nothing was asked.
        unopposed: why there is no champion.
    """
    checks = tuple(check for rule in policy for check in _apply(rule, candidate, baselines, champion, unopposed))
    passed = bool(checks) and all(check.passed for check in checks)
    return Decision(passed=passed, checks=checks, champion=champion.version if champion else None)


def _apply(
    rule: GateRule,
    candidate: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    champion: Champion | None,
    unopposed: str,
) -> list[Check]:
    value = _finite(candidate, rule.metric)
    if value is None:
        reason = f"the candidate has no finite {rule.metric} (it is {candidate.get(rule.metric)})"
        return [Check(rule=rule.metric, passed=False, outcome="metric missing", reason=reason)]
    if rule.threshold is not None:
        return [_threshold(rule, value, rule.threshold)]
    if rule.beats == "champion":
        return [_champion(rule, value, champion, unopposed)]
    return [_baseline(rule, value, name, baselines.get(name)) for name in rule.beats or ()]


def _threshold(rule: GateRule, value: float, threshold: float) -> Check:
    sign = ">=" if rule.direction == "higher" else "<="
    reached = value >= threshold if rule.direction == "higher" else value <= threshold
    return Check(
        rule=f"{rule.metric} {sign} {threshold:g}",
        passed=reached,
        outcome="passed" if reached else "threshold missed",
        reason=f"{value:.4f} against {threshold:g}",
    )


def _baseline(rule: GateRule, value: float, name: str, metrics: Mapping[str, float] | None) -> Check:
    title = f"{rule.metric} beats {name}{_margin(rule)}"
    other = _finite(metrics or {}, rule.metric)
    if other is None:
        why = "was not measured" if metrics is None else f"has no finite {rule.metric}"
        return Check(rule=title, passed=False, outcome="baseline missing", reason=f"baseline {name} {why}")
    better = _beats(value, other, rule)
    outcome: Outcome = "passed" if better else "not better"
    return Check(rule=title, passed=better, outcome=outcome, reason=f"{value:.4f} against {other:.4f}")


def _champion(rule: GateRule, value: float, champion: Champion | None, unopposed: str) -> Check:
    title = f"{rule.metric} beats champion{_margin(rule)}"
    if champion is None:
        return Check(rule=title, passed=True, outcome="no champion", reason=unopposed)
    other = _finite(champion.metrics or {}, rule.metric)
    if other is None:
        why = champion.reason or f"it has no finite {rule.metric}"
        reason = f"version {champion.version} in Production has no comparable score: {why}"
        return Check(rule=title, passed=False, outcome="champion not comparable", reason=reason)
    better = _beats(value, other, rule)
    outcome: Outcome = "passed" if better else "champion better"
    reason = f"{value:.4f} against {other:.4f} of version {champion.version}"
    return Check(rule=title, passed=better, outcome=outcome, reason=reason)


def _beats(value: float, other: float, rule: GateRule) -> bool:
    """Better by more than the margin; with a negative margin, worse by less than it (an equal one then passes)."""
    gain = value - other if rule.direction == "higher" else other - value
    return round(gain, 9) > rule.margin  # 0.9 - 0.88 is 0.02 and a rounding error, which must not decide


def _finite(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return value if value is not None and math.isfinite(value) else None


def _margin(rule: GateRule) -> str:
    return f" by {rule.margin:g}" if rule.margin else ""
