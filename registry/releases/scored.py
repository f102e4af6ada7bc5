"""What a version is known to score on rows of a later day than those that it was judged by; a tag of the version.

The report of its gate stays what it was. Nothing is scored or decided here.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping

from registry.protocol import Store, Version
from registry.release_log import PREFIX

TAG, METRIC = "scored", PREFIX + "metric."


def registered(version: Version) -> dict[str, float]:
    """The scores of the report that it was registered with."""
    said = {key.removeprefix(METRIC): text for key, text in version.tags.items() if key.startswith(METRIC)}
    found = {}
    for name, text in said.items():
        with contextlib.suppress(ValueError):  # edited by hand
            found[name] = float(text)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def note(store: Store, version: Version, content_hash: str, when: str, scores: Mapping[str, float]) -> None:
    """Keep what it scored on the test rows of prepared data; what was kept before is replaced."""
    text = json.dumps({"data": content_hash, "when": when, "scores": dict(scores)})
    store.tag_version(version.task, version.number, PREFIX + TAG, text)


def latest(version: Version) -> tuple[str, str, dict[str, float]]:
    """The newest that is known: content hash of the rows, when (an ISO time), and the value by metric."""
    try:
        said = json.loads(version.tag(TAG))
        found = {str(name): float(value) for name, value in said["scores"].items()}
        if all(map(math.isfinite, found.values())):
            return str(said["data"]), str(said["when"]), found
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        pass  # never scored again, or edited by hand: what it was registered with is there still
    return version.tag("data_hash"), version.created.isoformat(timespec="seconds"), registered(version)


def on(version: Version, content_hash: str) -> dict[str, float] | None:
    """What it scores on just these rows; None if nobody asked."""
    data, _, found = latest(version)
    return found if data == content_hash else None
