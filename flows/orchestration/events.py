"""Tells Prefect what happened to a task, as an event that automations can wait for: a promotion, a rollback, new data.

By Prefect's REST interface and not by its library, which takes longer to import than a rollback takes. Telling is never
worth a failure: where no server is named nothing is sent, and one that does not answer is a line on stderr.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import urllib.request
import uuid
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING

from components.redaction import redact

if TYPE_CHECKING:
    from registry.releases.lifecycle import ReleaseResult

SECONDS = 3.0
RESOURCE = "preface.task."  # and the task's name: the resource that an automation matches
PROMOTION, ROLLBACK, DATA_UPDATED = "preface.promotion", "preface.rollback", "preface.data.updated"
GIVEN_UP = "preface.given-up"
_log = logging.getLogger("preface.announce")


def moved(done: ReleaseResult) -> None:
    """Another version is in Production; nothing is told where it was there already."""
    if not done.changed:
        return
    entry = done.entry
    said = {
        "version": str(done.version.number),
        "previous": "" if done.previous is None else str(done.previous),
        "action": entry.action,
        "by": f"{entry.who}@{entry.host}",
        "reason": entry.reason,
        "override": entry.override,
    }
    tell(ROLLBACK if entry.action == "rollback" else PROMOTION, done.version.task, said)


def tell(event: str, task: str, payload: dict[str, str]) -> None:
    """Send one event about a task, if PREFECT_API_URL names a server."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    body = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": RESOURCE + task, "prefect.resource.name": task},
        "payload": {"task": task} | {key: redact(said) for key, said in payload.items()},
    }
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/events", json.dumps([body]).encode(), _headers())
        with urllib.request.urlopen(request, timeout=SECONDS):
            pass
    except (OSError, ValueError, HTTPException) as error:
        _log.warning("Prefect at %s was not told of %s of %s: %s", redact(url), event, task, redact(str(error)))


def _headers() -> dict[str, str]:
    """As Prefect's own client says who it is."""
    headers = {"Content-Type": "application/json"}
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    return headers
