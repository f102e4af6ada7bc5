"""Receipts of drills: that a version which a rollback would land on was loaded, verified and asked, and when.

A receipt stands in a tag of its version, so that it is there for everybody when the artifact store is not. A rollback
may rest on a fresh one, if somebody overrides. How a drill is done is not known here.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta

from registry.protocol import Store, Version
from registry.release_log import PREFIX, count

FRESH = timedelta(days=2)
SKEW = timedelta(minutes=5)  # by which another machine's clock may be ahead of this one's
_TAG = "drill"


@dataclass(frozen=True)
class Receipt:
    """What a drill saw. ``digest`` is the manifest's, ``seconds`` by part, ``score`` of ``rows`` rows by ``metric``."""

    when: str
    who: str
    host: str
    digest: str
    base_hash: str
    seconds: dict[str, float]
    metric: str
    score: float
    rows: int

    @property
    def age(self) -> timedelta:
        """How long ago it was.

        Raises:
            ValueError, TypeError: ``when`` is no time, or one without its zone.
        """
        return datetime.now(UTC) - datetime.fromisoformat(self.when)

    @property
    def is_sound(self) -> bool:
        """Whether every part is of its kind and a number that a drill can have measured."""
        words = (self.when, self.who, self.host, self.digest, self.base_hash, self.metric)
        figures = (self.score, *self.seconds.values())
        return (
            all(isinstance(word, str) for word in words)
            and all(type(each) in (int, float) and math.isfinite(each) for each in figures)
            and count(self.rows) is not None
        )

    def is_of(self, version: Version) -> bool:
        """Whether it was this adapter, on this base, as they are registered."""
        return (self.digest, self.base_hash) == (version.tag("manifest_digest"), version.tag("base_hash"))


def leave(store: Store, version: Version, receipt: Receipt) -> None:
    """Put the receipt on its version, in place of an earlier one."""
    store.tag_version(version.task, version.number, PREFIX + _TAG, json.dumps(asdict(receipt), sort_keys=True))


def find(version: Version) -> Receipt | None:
    """The last drill's receipt, None if there is none or it cannot be read."""
    try:
        said = json.loads(version.tag(_TAG))
        receipt = Receipt(**{field.name: said[field.name] for field in fields(Receipt)})
        _ = receipt.age
        if not receipt.is_sound:
            return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return receipt


def valid_receipt(version: Version) -> tuple[str, str]:
    """The drill that vouches for the version as it is registered, in words, or why none does; the other is empty."""
    receipt = find(version)
    if receipt is None:
        return "", f"no drill vouches for {version.name}: `preface drill` leaves receipts while the store answers"
    drill = f"the drill of {receipt.when} by {receipt.who}@{receipt.host}"
    if not receipt.is_of(version):
        return "", (
            f"{drill} saw another adapter: {receipt.digest} on base {receipt.base_hash}; registered is"
            f" {version.tag('manifest_digest')} on base {version.tag('base_hash')}"
        )
    if receipt.age < -SKEW:
        return "", f"{drill} is in the future by this machine's clock; set that, or `preface drill` again"
    if receipt.age > FRESH:
        return "", f"{drill} is not of the last {FRESH.days} days; `preface drill` while the store answers"
    return drill, ""
