"""A comparison as a table, a page and a picture. Pure but for the picture's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.evaluation import leading_metric
from components.params import TaskParams

if TYPE_CHECKING:
    from components.comparison import Compared

Row = dict[str, object]
MIB, KIB = 2**20, 2**10


def rows(task: TaskParams, compared: Sequence[Compared]) -> list[Row]:
    """A row for each arm, in the order that they were compared in."""
    metric = leading_metric(task.data.labels)
    return [
        {
            "arm": each.arm,
            "where the change sits": each.where,
            "trained numbers": f"{each.trained:,} ({each.share:.2%})" if each.trained else "0",
            "base weights": "unchanged" if each.base_unchanged else "changed",
            "stored per task": _size(each.stored),
            "training": f"{each.seconds:.0f} s" if each.trained else "-",
            "peak memory": "-" if each.peak is None else f"{each.peak / MIB:.0f} MiB",
            metric: f"{each.scored.metrics[metric]:.4f}",
            "95 %": "{:.4g} to {:.4g}".format(*each.interval),
            "latency": "-" if each.latency is None else f"{each.latency:.2f}x",
            "choice": each.choice,
        }
        for each in compared
    ]


def page(name: str, task: TaskParams, compared: Sequence[Compared], facts: dict[str, str]) -> str:
    """Markdown: what was compared under which circumstances, and the table."""
    table = rows(task, compared)
    keys = list(table[0])
    lines = [f"# {name}: ways to adapt the base, compared", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in table]
    return "\n".join([*lines, "", "![trained numbers and score](compare.png)", ""])


def picture(task: TaskParams, compared: Sequence[Compared], to: Path) -> None:
    """How well each arm does for how many trained numbers, written to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = leading_metric(task.data.labels)
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for each in compared:
        at, value = each.trained, each.scored.metrics[metric]
        # The interval is of row scores; where the metric is their mean it surrounds the point.
        low, high = (abs(value - end) if metric == "accuracy" else 0.0 for end in each.interval)
        axes.errorbar([at], [value], yerr=[[low], [high]], fmt="o", capsize=3)
        axes.annotate(each.arm, (at, value), textcoords="offset points", xytext=(6, 6), fontsize=9)
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_xlim(left=-300)
    axes.set_xlabel("trained numbers")
    axes.set_ylabel(f"{metric} on the test split")
    axes.grid(alpha=0.3)
    part = to.with_name(f".{to.name}")
    figure.savefig(part, dpi=120, format="png")
    part.replace(to)


def _size(count: int) -> str:
    return f"{count} B" if count < KIB else f"{count / KIB:.1f} kB" if count < MIB else f"{count / MIB:.2f} MB"
