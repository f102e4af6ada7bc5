"""Scores as the field counts them, and an interval that tells a difference from chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from sklearn.metrics import accuracy_score, f1_score

from components.config.params import DataParams, GateRule, TaskParams
from components.evaluation.metrics import Scored, lead, leading_metric, score

LABELS = ["bad", "good", "mixed"]
TARGETS = ["bad", "bad", "bad", "good", "good", "mixed"]
GIVEN = ["bad", "bad", "good", "good", "bad", "good"]

REFERENCES = ["The method beats every baseline.", "Summaries became shorter.", "No gain was found."]
WRITTEN = ["The method beats all baselines.", "Summaries became shorter.", "Results are mixed"]


def of_rows(*rows: float) -> Scored:
    return Scored(metrics={}, predictions=["x"] * len(rows), rows=list(rows))


def test_classification_by_hand() -> None:
    found = score(GIVEN, TARGETS, LABELS)
    # bad: 2 right of 3 given and of 3 there. good: 1 right of 3 given, 2 there. mixed: never given.
    bad, good, mixed = 2 / 3, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2), 0.0
    expected = {
        "accuracy": 0.5,
        "macro_f1": (bad + good + mixed) / 3,
        "f1_bad": bad,
        "f1_good": good,
        "f1_mixed": mixed,
    }
    assert found.metrics == pytest.approx(expected)
    assert found.rows == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert found.predictions == GIVEN


def test_classification_is_scikit_learns() -> None:
    draw = np.random.default_rng(1)
    targets, given = ([LABELS[i] for i in draw.integers(0, 3, 200)] for _ in range(2))
    metrics = score(given, targets, LABELS).metrics
    assert metrics["accuracy"] == pytest.approx(accuracy_score(targets, given))
    assert metrics["macro_f1"] == pytest.approx(f1_score(targets, given, average="macro"))


def test_a_label_that_no_row_has_counts_as_missed_without_a_warning() -> None:
    """Warnings are errors here; scikit-learn has one for a label without a row."""
    assert score(["bad", "good"], ["bad", "good"], LABELS).metrics["macro_f1"] == pytest.approx(2 / 3)


def test_generation_is_the_libraries() -> None:
    found = score(WRITTEN, REFERENCES, None)
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    expected = {
        "exact_match": 1 / 3,
        "chrf": CHRF().corpus_score(WRITTEN, [REFERENCES]).score,
        "rouge_l": np.mean([rouge.score(r, w)["rougeL"].fmeasure for r, w in zip(REFERENCES, WRITTEN, strict=True)]),
    }
    assert found.metrics == pytest.approx(expected)
    assert found.rows == pytest.approx(
        [CHRF().sentence_score(w, [r]).score for w, r in zip(WRITTEN, REFERENCES, strict=True)]
    )


def test_generation_by_hand() -> None:
    right = score(REFERENCES, REFERENCES, None)
    assert right.metrics == pytest.approx({"exact_match": 1.0, "chrf": 100.0, "rouge_l": 1.0})
    silent = score(["", "", ""], REFERENCES, None)
    assert silent.metrics == pytest.approx({"exact_match": 0.0, "chrf": 0.0, "rouge_l": 0.0})
    # 2 of the 3 words given stand in order among the 4 wanted: precision 2/3, recall 1/2.
    half = score(["cats sleep soundly"], ["cats often sleep late"], None)
    assert half.metrics["rouge_l"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))


@pytest.mark.parametrize("labels", [LABELS, None])
def test_the_gate_may_ask_for_exactly_what_is_measured(labels: list[str] | None) -> None:
    metrics = score(GIVEN, TARGETS, labels).metrics
    asked = GateRule(metric=leading_metric(labels), direction="higher", threshold=0.0)
    data = DataParams.model_validate({"source": "x.csv", "format": "csv", "labels": labels})
    assert list(TaskParams(base="b", data=data, instruction="i", gate=[asked]).metrics) == list(metrics)
    assert leading_metric(labels) in metrics


def test_a_label_of_any_signs_has_a_metric_that_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

    for name in score(["R&D", "c++"], ["R&D", "c++"], ["R&D", "c++", "entrée (été)"]).metrics:
        _validate_metric_name(name)
        _validate_tag_name(f"preface.metric.{name}")


@pytest.mark.parametrize(("given", "targets"), [(["bad"], ["bad", "good"]), ([], [])])
def test_unpaired_or_no_predictions_are_refused(given: list[str], targets: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{len(given)} predictions for {len(targets)} targets"):
        score(given, targets, LABELS)


def test_a_planted_difference_lies_in_the_interval() -> None:
    """Of 60 samples from a world where the candidate is 0.1 ahead, about 95 in 100 intervals hold 0.1."""
    draw = np.random.default_rng(7)
    held = 0
    for _ in range(60):
        other = draw.random(200) < 0.7
        candidate = np.where(draw.random(200) < 1 / 3, True, other)  # a third of the misses mended: 0.3 / 3 ahead
        low, high = lead(of_rows(*candidate.astype(float)), of_rows(*other.astype(float)))
        held += low <= 0.1 <= high
    assert held >= 52


def test_the_interval_excludes_zero_for_a_clear_lead_and_holds_it_for_none() -> None:
    weak, strong = of_rows(*[1.0, 0.0] * 100), of_rows(*[1.0, 1.0, 1.0, 0.0] * 50)
    assert lead(strong, weak)[0] > 0
    assert lead(weak, strong)[1] < 0
    shifted = of_rows(*[0.0, 1.0] * 100)  # as good, on other rows
    low, high = lead(weak, shifted)
    assert low < 0 < high


def test_pairing_makes_a_small_steady_lead_visible() -> None:
    """Rows vary by 50, the candidate is ahead by 1 or 2 on each: unpaired that would drown."""
    other = np.linspace(0, 50, 40)
    candidate = other + np.resize([1.0, 2.0], 40)
    low, high = lead(of_rows(*candidate), of_rows(*other))
    assert 1 < low < 1.5 < high < 2


def test_the_interval_is_the_same_every_time_and_mirrors() -> None:
    one, other = of_rows(*[1.0, 0.0, 1.0, 1.0, 0.0] * 20), of_rows(*[1.0, 1.0, 0.0, 0.0, 0.0] * 20)
    assert lead(one, other) == lead(one, other)
    low, high = lead(one, other)
    assert lead(other, one) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("rows", "expected"), [((0.5,), 0.5), ((1.0, 1.0, 1.0), 1.0), ((0.0, 0.0), 0.0)])
def test_where_all_rows_differ_alike_the_interval_is_that_difference(rows: tuple[float, ...], expected: float) -> None:
    assert lead(of_rows(*rows), of_rows(*[0.0] * len(rows))) == (expected, expected)


def test_figures_that_are_not_finite_survive_json() -> None:
    """Else the gate would meet null and a crash where it should refuse."""
    scored = Scored(metrics={"chrf": math.nan, "rouge_l": math.inf}, predictions=["a"], rows=[1.0], lead=(-0.5, 0.25))
    back = Scored.model_validate_json(scored.model_dump_json())
    assert math.isnan(back.metrics["chrf"])
    assert back.metrics["rouge_l"] == math.inf
    assert back.lead == (-0.5, 0.25)
