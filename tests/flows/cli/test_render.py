"""Tables say the same to people and to programs."""

from __future__ import annotations

import json

import pytest

from cli import render

ROWS = [
    {"task": "a[b]", "score": 0.5, "note": None, "by_whom": "x" * 300},
    {"task": "c", "score": None, "note": "", "by_whom": "y"},
]


def test_programs_get_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    render.show(ROWS, as_json=True)

    assert json.loads(capsys.readouterr().out) == ROWS


def test_people_get_whole_lines_without_empty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    render.show(ROWS)

    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["task", "score", "by", "whom"]
    assert first.split() == ["a[b]", "0.5000", "x" * 300]
    assert second.split() == ["c", "-", "y"]


def test_on_a_narrow_terminal_long_texts_give_way_and_names_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)

    render.show([{"task": "movie-sentiment", "reason": "many words " * 20, "effect": "in Production"}])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 60
    assert lines[2].startswith("movie-sentiment ")
    assert lines[2].endswith(" in Production")


def test_nothing_is_said_in_words_or_as_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    render.show([], empty="no task")
    render.show([], as_json=True, empty="no task")

    assert capsys.readouterr().out == "no task\n[]\n"


def test_a_record_is_a_line_for_each_key(capsys: pytest.CaptureFixture[str]) -> None:
    render.show_one({"version": "a@1", "metrics": {"accuracy": 0.9, "f1": 0.8}, "rules": {}})

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["version", "a@1"],
        ["metrics", "accuracy", "0.9000"],
        ["f1", "0.8000"],
        ["rules", "-"],
    ]


@pytest.mark.parametrize(
    ("text", "shown"), [("a\n b", "a b"), ("1234567890", "1234567890"), ("12345 78901", "12345 ..."), ("", "")]
)
def test_a_text_that_is_cut_stays_on_one_line(text: str, shown: str) -> None:
    assert render.shortened(text, 10) == shown
