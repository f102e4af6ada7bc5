"""Reasons to train a task again, each a pure function that says in words what it found, and what follows from them.

An empty text is no reason. Nothing is read or scored here: whoever asks brings the facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from components.config.schedule_params import Change, RetrainParams, duration
from components.records import Record

Action = Literal["train", "rest", "alert"]
NOTHING_NEW = "nothing new to learn from"


class Origin(Record):
    """What an adapter was, or would be, trained from. ``version``: of what was, its number.

    ``data`` is DVC's hash of the prepared rows, ``settings`` a hash over wording, method, its settings and the seed;
    empty where a version does not tell.
    """

    data: str
    base: str
    settings: str
    version: int = 0


class Watched(Record):
    """The version in Production: when it was made, and its scores on today's test rows where somebody looked."""

    version: int
    made: datetime
    scores: dict[str, float]


class Verdict(Record):
    """What follows: train, rest (nothing to do) or alert (a person must do something), and why."""

    action: Action
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


def data_changed(before: Origin, today: Origin) -> str:
    """Whether other rows are there now."""
    if before.data == today.data:
        return ""
    return f"the data changed since version {before.version} (DVC {_short(before.data)} -> {_short(today.data)})"


def base_changed(before: Origin, today: Origin) -> str:
    """Whether another base is declared now."""
    if before.base == today.base:
        return ""
    return f"the base changed since version {before.version} ({_short(before.base)} -> {_short(today.base)})"


def parameters_changed(before: Origin, today: Origin) -> str:
    """Whether wording, method, its settings or the seed are others now."""
    if before.settings == today.settings:
        return ""
    return f"the parameters changed since version {before.version}"


def below_floor(champion: Watched, floor: Mapping[str, float]) -> str:
    """Whether the version in Production scores lower on today's rows than it may."""
    low = [
        f"{name} {champion.scores[name]:.4f} on today's rows, its floor is {least:g}"
        for name, least in floor.items()
        if name in champion.scores and champion.scores[name] < least
    ]
    return f"version {champion.version} in Production has {', '.join(low)}" if low else ""


def too_old(champion: Watched, max_age: str | None, now: datetime) -> str:
    """Whether the version in Production was made longer ago than it may."""
    if max_age is None or now - champion.made <= duration(max_age):
        return ""
    days = (now - champion.made).total_seconds() / 86400
    return f"version {champion.version} in Production is {days:.1f} days old, max_age is {max_age}"


def changes(before: Origin, today: Origin) -> dict[Change, str]:
    """What is different now, by kind."""
    found: dict[Change, str] = {
        "data": data_changed(before, today),
        "base": base_changed(before, today),
        "parameters": parameters_changed(before, today),
    }
    return {kind: text for kind, text in found.items() if text}


def champion_alerts(champion: Watched, policy: RetrainParams, now: datetime) -> list[str]:
    """What is wrong with the version in Production."""
    return [text for text in (below_floor(champion, policy.floor), too_old(champion, policy.max_age, now)) if text]


def decide(
    policy: RetrainParams,
    before: Origin | None,
    today: Origin,
    champion: Watched | None,
    now: datetime,
    *,
    known: str,
) -> Verdict:
    """What a run that nobody asked for should do.

    Args:
        before: what the newest version was trained from, None if there is none.
        known: why training would give an adapter that exists already; empty if it would not.
    """
    worried = champion_alerts(champion, policy, now) if champion else []
    if known:
        return Verdict(action="alert", reasons=(*worried, NOTHING_NEW)) if worried else _rest(known)
    if before is None:
        return Verdict(action="train", reasons=("it was never trained",))
    changed = changes(before, today)
    enough = [text for kind, text in changed.items() if kind in policy.when]
    if enough or worried:
        return Verdict(action="train", reasons=(*enough, *worried))
    left = "; ".join(changed.values()) or f"version {before.version} was trained otherwise"
    return _rest(f"{left}: no reason by retrain.when, which is {policy.when}")


def _rest(why: str) -> Verdict:
    return Verdict(action="rest", reasons=(why,))


def _short(digest: str) -> str:
    return digest[:12] or "unknown"
