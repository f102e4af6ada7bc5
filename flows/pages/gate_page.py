"""The gate's report for people: the page of a run in the Prefect UI, and the lines that the command line prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.evaluation.metrics import Scored
from components.gates.decide import Decision
from components.markdown import table

if TYPE_CHECKING:
    from components.evaluation.report import Report  # it brings torch


def report_rows(report: Report) -> list[dict[str, str]]:
    """A row a contestant: its metrics, how far the candidate is ahead of it, and what was chosen for it."""
    rows = [_row("candidate", report.candidate)]
    if report.champion:
        rows.append(_row(f"champion (version {report.champion_version})", report.champion))
    return rows + [_row(name, scored) for name, scored in report.baselines.items()]


def gate_markdown(report: Report, decision: Decision) -> str:
    """Verdict, rules and scores as a Markdown page."""
    verdict = "passed" if decision.passed else "REFUSED"
    rules = [
        {"": "ok" if c.passed else "**no**", "rule": c.rule, "outcome": c.outcome, "figures": c.reason}
        for c in decision.checks
    ]
    return (
        f"# {report.task}: gate {verdict}\n\n{report.method} tuning, {len(report.targets)} rows of the {report.split} "
        f"split, data `{report.data_hash[:12]}`, base `{report.base_hash[:12]}`.{_starts(report)}\n\n"
        f"{table(rules, ours=[''])}\n\n"
        f"Lead: the candidate's mean score a row minus the other's, 95 % paired bootstrap interval.\n\n"
        f"{table(report_rows(report))}\n"
    )


def _starts(report: Report) -> str:
    """Which start was taken, where there were several."""
    if not report.starts:
        return ""
    best = min(report.starts, key=report.starts.__getitem__)
    losses = ", ".join(f"{start} {loss:.4f}" for start, loss in report.starts.items())
    return f"\n\nTrained from more than one start; validation loss: {losses}. Taken: {best}."


def _row(name: str, scored: Scored) -> dict[str, str]:
    lead = f"{scored.lead[0]:+.3f} to {scored.lead[1]:+.3f}" if scored.lead else ""
    metrics = {metric: f"{value:.4f}" for metric, value in scored.metrics.items()}
    return {"contestant": name, **metrics, "lead over it": lead, "chosen on validation": scored.choice}
