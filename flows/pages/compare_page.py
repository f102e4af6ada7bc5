"""A comparison as a table, a page and a picture. Pure but for the picture's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.params import TaskParams
from components.evaluation.metrics import leading_metric
from components.io import atomic
from components.markdown import escaped, table

if TYPE_CHECKING:
    from components.evaluation.arms import Compared, Failed

Row = dict[str, object]
MIB, KIB = 2**20, 2**10
WIDE = 4096  # hidden size of a base of 7 billion parameters, by which papers state the size of a soft prompt


def rows(task: TaskParams, arms: Sequence[Compared | Failed]) -> list[Row]:
    """A row for each arm, in the order that they were compared in; of one that cannot be, why."""
    from components.evaluation.arms import Failed

    metric = leading_metric(task.data.labels)
    return [_failed(metric, each) if isinstance(each, Failed) else _row(metric, each) for each in arms]


def _row(metric: str, each: Compared) -> Row:
    return {
        "arm": each.arm,
        "where the change sits": each.where,
        "trained numbers": f"{each.trained:,} ({each.share:.2%})" if each.trained else "0",
        "base weights": "unchanged" if each.base_unchanged else "changed",
        "stored per task": "-" if each.stored is None else _size(each.stored),
        "training": f"{each.seconds:.0f} s" if each.trained else "-",
        "peak memory": "-" if each.peak is None else f"{each.peak / MIB:.0f} MiB",
        metric: f"{each.scored.metrics[metric]:.4f}",
        "95 %": "{:.4g} to {:.4g}".format(*each.interval),
        "latency": "-" if each.latency is None else f"{each.latency:.2f}x",
        "choice": each.choice,
    }


def _failed(metric: str, each: Failed) -> Row:
    empty = ("trained numbers", "base weights", "stored per task", "training", "peak memory", metric, "95 %", "latency")
    return {"arm": each.arm, "where the change sits": each.where, **dict.fromkeys(empty, "-"), "choice": each.fault}


def page(name: str, task: TaskParams, arms: Sequence[Compared | Failed], facts: dict[str, str]) -> str:
    """Markdown: what was compared under which circumstances, and the table."""
    from components.evaluation.arms import Compared

    compared = [each for each in arms if isinstance(each, Compared)]
    lines = [f"# {escaped(name)}: ways to adapt the base, compared", ""]
    lines += [f"- {key}: {escaped(value)}" for key, value in facts.items()]
    lines += ["", table(rows(task, arms))]
    told = [f"- {escaped(claim)}" for claim in claims(task, compared)]
    if told:
        lines += ["", "What is said of these methods, looked at here:", "", *told]
    return "\n".join([*lines, "", "![trained numbers and score](compare.png)", ""])


def claims(task: TaskParams, compared: Sequence[Compared]) -> list[str]:
    """Sentences of the field with the figures that this comparison has for them, as far as its arms allow."""
    by_arm = {each.arm: each for each in compared}
    prompt, prefix = by_arm.get("prompt"), by_arm.get("prefix")
    said = []
    if prompt:
        tokens = task.prompt.virtual_tokens
        said.append(
            f"a soft prompt is small: {tokens} virtual tokens are {prompt.trained:,} numbers here and would be"
            f" {tokens * WIDE:,} at a width of {WIDE}; {_size(prompt.stored or 0)} a task"
        )
    if prefix:
        said.append(
            f"a prefix is about a thousandth of the base: {prefix.share:.2%} here, with {task.prefix.virtual_tokens}"
            f" virtual tokens; {_size(prefix.stored or 0)} a task"
        )
    if prompt and prefix:
        ratio = (prompt.seconds / prompt.steps) / (prefix.seconds / prefix.steps)
        said.append(f"prompt against prefix: prompt tuning took {ratio:.2f} times as long a step, evaluations included")
    changed = [each.arm for each in compared if not each.base_unchanged]
    if compared:
        kept = f"all but {', '.join(changed)}" if changed else "all arms"
        said.append(f"the base stays as it is: {kept} left its weights bit for bit what they were")
    return said


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
    with atomic.whole_file(to) as part:
        figure.savefig(part, dpi=120, format="png")


def _size(count: int) -> str:
    return f"{count} B" if count < KIB else f"{count / KIB:.1f} kB" if count < MIB else f"{count / MIB:.2f} MB"
