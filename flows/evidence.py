"""What was stored with a version when its gate decided: the verdict and the scores, for showing. Judges nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.errors import NotFound
from registry.lifecycle import GATE_FOLDER
from registry.protocol import Store, Version


def decision(store: Store, version: Version) -> Mapping[str, Any] | None:
    """The verdict on each rule; None if it is not in the store any more."""
    try:
        return dict(json.loads(store.read_file(version.run_id, version.tag("report"))))
    except NotFound:
        return None


def scores(store: Store, version: Version) -> list[dict[str, str]]:
    """The candidate's scores beside its baselines' and its champion's."""
    from components.report import Report  # it brings torch
    from flows.gate_page import report_rows

    stored = store.read_file(version.run_id, f"{GATE_FOLDER}/report.json")
    return report_rows(Report.model_validate(json.loads(stored), strict=False))
