"""How far a metric may move: what other rows would have made of it, and never nothing."""

from __future__ import annotations

import random

import pytest

from components.evaluation.metrics import score
from components.evaluation.tolerance import tolerances


def answers(rows: int, right: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Predictions and targets of two labels, a share of them right."""
    draw = random.Random(seed)
    targets = [draw.choice(["bad", "good"]) for _ in range(rows)]
    other = {"bad": "good", "good": "bad"}
    return [t if draw.random() < right else other[t] for t in targets], targets


def test_accuracy_may_move_by_the_half_width_of_its_binomial_interval() -> None:
    predictions, targets = answers(1000, 0.9)
    share = score(predictions, targets, ["bad", "good"]).metrics["accuracy"]
    expected = 1.96 * (share * (1 - share) / 1000) ** 0.5
    assert tolerances(predictions, targets, ["bad", "good"])["accuracy"] == pytest.approx(expected, rel=0.1)


def test_every_metric_has_one_and_four_times_the_rows_halve_it() -> None:
    few, many = (tolerances(*answers(rows, 0.85), ["bad", "good"]) for rows in (250, 1000))
    assert set(few) == set(score(["bad"], ["bad"], ["bad", "good"]).metrics)
    for name, value in few.items():
        assert many[name] == pytest.approx(value / 2, rel=0.25)


def test_f1_moves_as_it_does_when_other_rows_are_drawn() -> None:
    labels = ["bad", "good"]
    found = [score(*answers(400, 0.8, seed), labels).metrics["f1_bad"] for seed in range(200)]
    mean = sum(found) / len(found)
    spread = (sum((value - mean) ** 2 for value in found) / len(found)) ** 0.5
    assert tolerances(*answers(400, 0.8), labels)["f1_bad"] == pytest.approx(1.96 * spread, rel=0.25)


def test_a_label_that_is_in_no_row_is_no_fault() -> None:
    assert tolerances(["bad"] * 30, ["bad"] * 30, ["bad", "good"])["f1_good"] == pytest.approx(0.1)


def test_where_all_rows_are_alike_it_is_the_rule_of_three() -> None:
    labels = tolerances(["bad"] * 60, ["bad"] * 60, ["bad", "good"])
    texts = tolerances(["it is"] * 60, ["it is"] * 60, None)
    assert labels["accuracy"] == labels["f1_bad"] == pytest.approx(0.05)
    assert texts == pytest.approx({"exact_match": 0.05, "rouge_l": 0.05, "chrf": 5.0})


def test_texts_are_judged_by_their_rows() -> None:
    targets = ["the method improves the results", "no gain is found", "it is faster", "the parser is smaller"] * 20
    said = [text if number % 3 else "something else" for number, text in enumerate(targets)]
    found = tolerances(said, targets, None)
    assert set(found) == set(score(said, targets, None).metrics)
    assert 0.05 < found["exact_match"] < 0.15
    assert 5 < found["chrf"] < 15
