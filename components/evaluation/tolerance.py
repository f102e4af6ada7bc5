"""How far a metric may move by chance on so many rows: half the width of its 95 % interval. Pure.

Another training of the same recipe, rounded otherwise, answers a few rows otherwise. A difference smaller than what
other rows of the same kind would have made is none that this test split can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.config.data_params import f1_metrics
from components.evaluation.metrics import CONFIDENCE, score

RESAMPLES = 1000
# Upper 95 % bound of a rate that was seen 0 times in n rows is about 3/n (Hanley and Lippman-Hand 1983).
RULE_OF_THREE = 3.0
PERCENT = ("chrf",)  # metrics of 0 to 100, where the others are of 0 to 1

Floats = npt.NDArray[Any]


def tolerances(predictions: Sequence[str], targets: Sequence[str], labels: Sequence[str] | None) -> dict[str, float]:
    """For each metric of ``evaluation.score`` half the width of its percentile bootstrap interval over rows.

    The corpus chrF is judged by the mean of the rows' own chrF, which lies near it. Where every row scores alike, which
    leaves a bootstrap nothing to see, it is the rule of three.
    """
    draws = np.random.default_rng(0).integers(len(targets), size=(RESAMPLES, len(targets)))

    def means(rows: Sequence[float]) -> Floats:
        averaged: Floats = np.asarray(rows, float)[draws].mean(axis=1)
        return averaged

    if labels is None:
        sampled = {name: means(rows) for name, rows in _text_rows(predictions, targets).items()}
    else:
        sampled = _label_samples(np.asarray(predictions), np.asarray(targets), labels, draws)
        sampled["accuracy"] = means([float(p == t) for p, t in zip(predictions, targets, strict=True)])
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    found = {}
    for name, values in sampled.items():
        low, high = np.quantile(values, tails)
        least = RULE_OF_THREE / len(targets) * (100 if name in PERCENT else 1)
        found[name] = float(high - low) / 2 or least
    return found


def _text_rows(predictions: Sequence[str], targets: Sequence[str]) -> dict[str, list[float]]:
    """Scores of each row by itself."""
    each = [score([p], [t], None) for p, t in zip(predictions, targets, strict=True)]
    rows = {name: [one.metrics[name] for one in each] for name in ("exact_match", "rouge_l")}
    return rows | {"chrf": [one.rows[0] for one in each]}


def _label_samples(predictions: Floats, targets: Floats, labels: Sequence[str], draws: Floats) -> dict[str, Floats]:
    """F1 of each label, and their mean, in every resample: [RESAMPLES] each."""
    found = {}
    for label, name in f1_metrics(labels).items():
        said, true = predictions == label, targets == label
        hits, either = (said & true)[draws].sum(axis=1), said[draws].sum(axis=1) + true[draws].sum(axis=1)
        found[name] = 2 * hits / np.maximum(either, 1)
    return found | {"macro_f1": np.mean(list(found.values()), axis=0)}
