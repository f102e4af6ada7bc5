"""The gate's page shows every contestant and every rule, in tables that Markdown readers take as tables."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from components.config.params import GateRule
from components.evaluation.metrics import Scored
from components.evaluation.report import Report
from components.gates.decide import decide
from flows.pages.gate_page import gate_markdown, report_rows

RULES = [
    GateRule(metric="accuracy", direction="higher", threshold=0.8),
    GateRule(metric="accuracy", direction="higher", beats=["majority", "hard_prompt"]),
    GateRule(metric="accuracy", direction="higher", beats="champion", margin=-0.02),
]


def scored(accuracy: float, **more: object) -> Scored:
    return Scored(metrics={"accuracy": accuracy, "macro_f1": 0.5}, predictions=["bad"], rows=[accuracy]).model_copy(
        update=more
    )


def report(candidate: float = 0.9, champion: float | None = None, choice: str = "Decide.") -> Report:
    return Report(
        task="mood",
        method="prompt",
        split="test",
        row_ids=["t0"],
        targets=["bad"],
        data_hash="d" * 64,
        base_hash="b" * 64,
        candidate=scored(candidate),
        baselines={
            "majority": scored(0.5, lead=(0.3, 0.5), choice="bad"),
            "hard_prompt": scored(0.7, lead=(-0.01, 0.25), choice=choice),
        },
        champion=scored(champion) if champion is not None else None,
        champion_version=4 if champion is not None else None,
    )


def page(found: Report) -> str:
    baselines = {name: other.metrics for name, other in found.baselines.items()}
    return gate_markdown(found, decide(found.candidate.metrics, baselines, found.in_production(), RULES))


def tables(markdown: str) -> list[list[list[str]]]:
    """The cells of each table of a page."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", markdown, flags=re.MULTILINE)
    return [
        [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()] for block in blocks
    ]


def test_every_contestant_has_a_row_with_its_figures() -> None:
    rows = report_rows(report(champion=0.88))
    assert [row["contestant"] for row in rows] == ["candidate", "champion (version 4)", "majority", "hard_prompt"]
    assert [row["accuracy"] for row in rows] == ["0.9000", "0.8800", "0.5000", "0.7000"]
    assert rows[3] == {
        "contestant": "hard_prompt",
        "accuracy": "0.7000",
        "macro_f1": "0.5000",
        "lead over it": "-0.010 to +0.250",
        "chosen on validation": "Decide.",
    }
    assert rows[0]["lead over it"] == ""


def test_without_a_champion_there_is_no_row_for_one() -> None:
    assert [row["contestant"] for row in report_rows(report())] == ["candidate", "majority", "hard_prompt"]


def test_a_pass_is_told_with_all_rules() -> None:
    found = page(report())
    assert found.startswith("# mood: gate passed\n")
    assert "prompt tuning, 1 rows of the test split, data `dddddddddddd`, base `bbbbbbbbbbbb`" in found
    rules, _ = tables(found)
    assert [row[1:3] for row in rules[2:]] == [
        ["accuracy >= 0.8", "passed"],
        ["accuracy beats majority", "passed"],
        ["accuracy beats hard_prompt", "passed"],
        ["accuracy beats champion by -0.02", "no champion"],
    ]


@pytest.mark.parametrize(
    ("found", "refusing"),
    [
        (report(candidate=0.6), ["threshold missed", "not better"]),
        (report(champion=0.95), ["champion better"]),
    ],
)
def test_a_refusal_shows_which_rules_refused(found: Report, refusing: list[str]) -> None:
    markdown = page(found)
    assert markdown.startswith("# mood: gate REFUSED\n")
    rules, _ = tables(markdown)
    assert [row[2] for row in rules[2:] if row[0] == "**no**"] == refusing


@pytest.mark.parametrize("choice", ["<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](//e/p)", "`a` *b*"])
def test_a_written_prompt_is_neither_html_nor_markdown(choice: str) -> None:
    inline = [mark.type for token in MarkdownIt("gfm-like", {"linkify": False}).parse(page(report(choice=choice)))
              for mark in token.children or ()]  # fmt: skip

    assert not {"html_inline", "link_open", "image", "em_open"} & set(inline)


@pytest.mark.parametrize("choice", ["Bad | good?", "Task: mood.\nAnswer:\n", "a\r\n\n|b"])
def test_a_written_prompt_cannot_break_the_table(choice: str) -> None:
    rules, contestants = tables(page(report(choice=choice)))
    assert {len(row) for row in rules} == {4}
    assert {len(row) for row in contestants} == {5}
    assert len(contestants) == 2 + 3
    assert contestants[-1][-1].replace("\\|", "|").split() == choice.split()
