"""Scores of predictions: classification where a task has labels, generation where it has none.

Metrics come from the libraries that the field quotes: scikit-learn, sacrebleu, rouge-score. This module knows nothing
of models: it is given predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from components.config.data_params import f1_metrics
from components.records import Record

CONFIDENCE = 0.95


class Scored(Record):
    """One contestant on the split. rows: a score per row, 1 or 0 for a label, 0 to 100 for a text's own chrF.

    Rows are what differences are judged by. The mean of labels' rows is their accuracy; that of texts' rows is near the
    chrF in ``metrics``, which counts over the whole split.
    ``choice`` says what was chosen for it on the validation split, ``lead`` how far the candidate is ahead of it in row
    score: [low, high], a paired bootstrap interval of 95 %.
    """

    # A figure that is not finite comes back from JSON as it was, for the gate to refuse.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    metrics: dict[str, float]
    predictions: list[str]
    rows: list[float]
    choice: str = ""
    lead: tuple[float, float] | None = None


def score(predictions: Sequence[str], targets: Sequence[str], labels: Sequence[str] | None) -> Scored:
    """Metrics of one contestant: classification where there are labels, generation where there are none."""
    if len(predictions) != len(targets) or not targets:
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets; need as many, and at least one")
    if labels is None:
        return _generation(list(predictions), list(targets))
    return _classification(list(predictions), list(targets), list(labels))


def leading_metric(labels: object | None) -> str:
    """The metric by which contestants are chosen and compared."""
    return "accuracy" if labels is not None else "chrf"


def _classification(predictions: list[str], targets: list[str], labels: list[str]) -> Scored:
    from sklearn.metrics import accuracy_score, f1_score

    each = f1_score(targets, predictions, labels=labels, average=None, zero_division=0.0)
    metrics = {
        "accuracy": float(accuracy_score(targets, predictions)),
        "macro_f1": float(fmean(each)),
        **{name: float(value) for name, value in zip(f1_metrics(labels).values(), each, strict=True)},
    }
    rows = [float(p == t) for p, t in zip(predictions, targets, strict=True)]
    return Scored(metrics=metrics, predictions=predictions, rows=rows)


def _generation(predictions: list[str], targets: list[str]) -> Scored:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

    chrf, rouge = CHRF(), RougeScorer(["rougeL"], use_stemmer=True)
    pairs = list(zip(predictions, targets, strict=True))
    metrics = {
        "exact_match": fmean(float(p == t) for p, t in pairs),
        "chrf": float(chrf.corpus_score(predictions, [targets]).score),
        "rouge_l": fmean(float(rouge.score(t, p)["rougeL"].fmeasure) for p, t in pairs),
    }
    rows = [float(chrf.sentence_score(p, [t]).score) for p, t in pairs]
    return Scored(metrics=metrics, predictions=predictions, rows=rows)


def lead(candidate: Scored, other: Scored) -> tuple[float, float]:
    """A paired 95 % interval of candidate minus other."""
    return mean_interval(np.asarray(candidate.rows) - np.asarray(other.rows))


def mean_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """A 95 % interval of a mean over rows: percentile bootstrap (Efron and Tibshirani 1993)."""
    from scipy.stats import bootstrap

    drawn = np.asarray(values)
    if len(drawn) < 2 or np.all(drawn == drawn[0]):
        return float(drawn[0]), float(drawn[0])
    interval = bootstrap(
        (drawn,), np.mean, confidence_level=CONFIDENCE, n_resamples=2000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)
