"""Records of the registry and of prepared data as rows to show. Pure: asks no store, prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.lifecycle import Entry, Status
from registry.protocol import Version
from registry.releases import PREFIX

Row = dict[str, object]
METRIC = PREFIX + "metric."


def data_row(report: Mapping[str, Any]) -> Row:
    """What became of a task's rows; the report itself names the dropped ones by line."""
    dropped = {why: entry["rows"] for why, entry in report["dropped"].items() if entry["rows"]}
    return {
        "task": report["task"],
        "rows": report["rows_read"],
        **{split: entry["rows"] for split, entry in report["splits"].items()},
        "dropped": ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in dropped.items()) or "none",
        "truncated": report["rows_truncated"] or None,
        "content": report["content_hash"][:12],
    }


def status_row(status: Status, metric: str | None) -> Row:
    """One task at a glance; ``metric`` is the one to show of the version in Production."""
    live, head = status.production, status.head
    value = live.tag(f"metric.{metric}") if live and metric else ""
    return {
        "task": status.task,
        "production": live.number if live else None,
        "method": live.tag("method") if live else None,
        "score": f"{metric} {float(value):.4f}" if value else None,
        "since": head.when if head else None,
        "by": f"{head.who}: {head.reason}" if head else None,
        "staging": status.staging.number if status.staging else None,
        "versions": status.versions,
        "note": None if status.in_step else "MLflow's stages say otherwise than the release log",
    }


def untrained_row(task: str) -> Row:
    """A task that params.yaml names and the registry does not know yet."""
    return {**status_row(Status(task, None, None, 0, None, True), None), "note": f"next: preface retrain {task}"}


def history_row(entry: Entry, live: bool) -> Row:
    """A line of the release log; ``live``: what it put into Production is there now."""
    release = entry.release
    return {
        "entry": release.number,
        "when": release.when,
        "action": release.action,
        "version": release.version,
        "by": f"{release.who}@{release.host}",
        "reason": release.reason,
        "effect": "void: another came first" if entry.void else "in Production" if live else None,
    }


def version_record(version: Version, decision: Mapping[str, Any] | None) -> Row:
    """All that is recorded of a version; ``decision`` is its gate's stored report."""
    checks = (decision or {}).get("checks", [])
    return {
        "version": version.name,
        "stage": version.stage,
        "aliases": ", ".join(version.aliases),
        "method": version.tag("method"),
        "metrics": {
            key.removeprefix(METRIC): float(value) for key, value in sorted(version.tags.items()) if METRIC in key
        },
        "gate": version.tag("gate"),
        "rules": {("ok  " if check["passed"] else "NO  ") + check["rule"]: check["reason"] for check in checks},
        "created": version.created.isoformat(timespec="seconds"),
        "run": version.run_id,
        **{key: version.tag(key) for key in ("fingerprint", "base_hash", "data_hash", "dvc_md5", "git_commit")},
    }
