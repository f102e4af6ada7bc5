"""Records of the registry and of prepared data as rows to show. Pure: asks no store, prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from registry.audit.version_chain import Link
from registry.protocol import Failure, Version
from registry.queries import Entry, Status
from registry.release_log import Release
from registry.releases import scored
from registry.releases.bulk_rollback import Step

Row = dict[str, object]


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


def dialect_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """How each table was read, a line for each way; nothing where no table was."""
    for found in report.get("dialects", ()):
        others = f" and {found['files'] - 1} more" if found["files"] > 1 else ""
        yield f"{report['task']}: {found['first']}{others}: {found['dialect']}"


def status_row(status: Status, metric: str | None) -> Row:
    """One task at a glance; ``metric`` is the one to show of the version in Production.

    ``production`` is what the log says, ``stage`` and ``alias`` what MLflow shows.
    """
    live, head = status.production, status.head
    value = scored.registered(live).get(metric) if live and metric else None
    return {
        "task": status.task,
        "production": head.version if head else None,
        "stage": _numbers(status.stage),
        "alias": _numbers(status.alias),
        "base": live.tag("base") if live else None,
        "method": live.tag("method") if live else None,
        "score": f"{metric} {value:.4f}" if value is not None else None,
        "since": head.when if head else None,
        "by": f"{head.who}: {head.reason}" if head else None,
        "staging": status.staging.number if status.staging else None,
        "versions": status.versions,
        "note": "; ".join([*status.alarms, *(_shouted(head) if head else ())]) or None,
    }


def status_record(status: Status, row: Row, failure: Failure | None, now: datetime) -> Row:
    """A task's row for alarms: how old what is in Production is, what was measured last, and what failed last."""
    live, newest = status.production, status.newest
    measured = None
    if live:
        rows, when, scores = scored.latest(live)
        measured = {"rows": rows, "when": when, "scores": scores}
    return {
        **row,
        "base_hash": live.tag("base_hash") if live else None,
        "age_days": round((now - live.created).total_seconds() / 86400, 3) if live else None,
        "measured": measured,
        "last_gate": {"version": newest.number, "verdict": newest.gate.verdict} if newest else None,
        "last_failure": asdict(failure) if failure else None,
        "drift": status.drift or None,
        "alarms": list(status.alarms),
    }


def _numbers(versions: Sequence[int]) -> str | None:
    return ", ".join(map(str, versions)) or None


def _shouted(release: Release) -> Iterator[str]:
    if release.override:
        yield f"OVERRIDDEN: {release.override}"
    if release.drift:
        yield f"BEFORE IT: {release.drift}"


def untrained(task: str) -> Status:
    """A task that params.yaml names and the registry does not know yet."""
    return Status(task, None, None, 0, None)


def untrained_row(task: str) -> Row:
    return {**status_row(untrained(task), None), "note": f"next: preface retrain {task}"}


def history_row(entry: Entry, live: bool) -> Row:
    """A line of the release log; ``live``: what it put into Production is there now."""
    release = entry.release
    effect = ["void: another came first"] if entry.void else ["in Production"] if live else []
    if entry.broken:
        effect.append("EDITED: the entry before it is not the one that it was based on")
    return {
        "entry": release.number,
        "when": release.when,
        "action": release.action,
        "version": release.version,
        "by": f"{release.who}@{release.host}",
        "reason": release.reason,
        "effect": "; ".join([*effect, *_shouted(release)]) or None,
    }


def history_record(entry: Entry, live: bool) -> Row:
    """The same for programs: everything that the entry says."""
    said = {field.name: getattr(entry.release, field.name) for field in fields(entry.release)}
    return {"entry": entry.release.number, **said, "void": entry.void, "broken": entry.broken, "live": live}


def night_row(step: Step) -> Row:
    """What a rollback of everything would do to one task."""
    return {
        "task": step.task,
        "now": step.upon.version,
        "since": step.upon.when,
        "by": f"{step.upon.who}: {step.upon.reason}",
        "back to": step.to,
        "note": step.fault or None,
    }


def version_record(version: Version, decision: Mapping[str, Any] | None) -> Row:
    """All that is recorded of a version; ``decision`` is its gate's stored report."""
    checks = (decision or {}).get("checks", [])
    return {
        "version": version.name,
        "stage": version.stage,
        "aliases": ", ".join(version.aliases),
        "method": version.tag("method"),
        "metrics": dict(sorted(scored.registered(version).items())),
        "gate": str(version.gate),
        "rules": {("ok  " if check["passed"] else "NO  ") + check["rule"]: check["reason"] for check in checks},
        "created": version.created.isoformat(timespec="seconds"),
        "run": version.run_id,
        **{key: version.tag(key) for key in ("fingerprint", "base_hash", "data_hash", "dvc_md5", "git_commit")},
    }


def chain_row(link: Link) -> Row:
    """A link of a version's chain, and what is wrong with it."""
    return {"link": link.name, "says": link.value, "BROKEN": link.fault or None}
