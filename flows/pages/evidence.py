"""What was stored with a version when its gate decided: the verdict and the scores, for showing. Judges nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from components.errors import RegistryError
from registry.protocol import Store, Version


def decision(store: Store, version: Version) -> Mapping[str, Any] | None:
    """The verdict on each rule; None if the store does not have it as it was recorded, of which the chain says more."""
    gate = version.gate
    try:
        raw = store.read_file(version.run_id, gate.report) if gate.report else b""
    except RegistryError:
        return None
    return dict(json.loads(raw)) if gate.is_of(raw) else None


def scores(store: Store, version: Version) -> list[dict[str, str]]:
    """The candidate's scores beside its baselines' and its champion's."""
    from components.evaluation.report import Report  # it brings torch
    from flows.pages.gate_page import report_rows

    stored = store.read_file(version.run_id, f"{PurePosixPath(version.gate.report).parent}/report.json")
    return report_rows(Report.model_validate(json.loads(stored), strict=False))
