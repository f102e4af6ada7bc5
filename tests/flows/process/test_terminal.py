"""Nothing that a terminal would obey gets there from outside, and nothing that people read is taken away."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import render
from flows.process import terminal

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HOSTILE = {
    "a link that shows another address": "\x1b]8;;https://evil.example\x1b\\good.example\x1b]8;;\x1b\\",
    "a title of the window": "\x1b]0;owned\x07",
    "colours": "\x1b[31mred\x1b[0m",
    "the eight-bit form of an escape": "\x9b31mred",
    "a line that overwrites itself": "version 3\rversion 9",
    "backspaces": "no\x08\x08yes",
    "a bidi override": "\u202egnp.exe",
    "a bidi isolate": "\u2066abc\u2069",
    "tags, which are not seen": "a\U000e0041\U000e0042",
    "a line separator": "one\u2028two",
    "half of a pair": "a\udc80b",
    "a byte order mark": "\ufeffa",
}
READ = ("Zürich, naïve", "👩‍👩‍👧 ❤️", "می‌خواهم", "שלום", "日本語", "1 < 2 & 3", "[a](b) *c*", "\U000f0000")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_what_a_terminal_would_obey_is_shown_as_its_escape(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(text)
    render.show([{"task": "film", "reason": text}])
    render.show([], empty=text)
    render.show_one({"reason": text, "rules": {text: text}})

    said = capsys.readouterr().out.replace("\n", "")
    assert not ACTING & set(map(unicodedata.category, said))
    assert "\\" in said


@pytest.mark.parametrize("text", READ)
def test_what_people_read_stays_as_it_is(text: str) -> None:
    assert terminal.printable(text) == text


@given(st.text(st.characters()))
def test_no_text_acts_on_a_terminal_and_each_can_be_encoded(text: str) -> None:
    shown = terminal.printable(text)

    assert not ACTING & set(map(unicodedata.category, shown.replace("\u200c", "").replace("\u200d", "")))
    assert shown.encode().decode() == shown
    assert terminal.printable(shown) == shown


@given(st.text(st.characters()))
def test_a_value_is_never_more_than_one_line_of_a_table(text: str) -> None:
    assert len(render._cell(text).splitlines()) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso8859-1"])
@pytest.mark.parametrize("text", [*HOSTILE.values(), *READ])
def test_json_is_exact_whatever_the_encoding_of_the_output(
    text: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))

    render.show([{"answer": text}], as_json=True)
    sys.stdout.flush()

    assert json.loads(written.getvalue().decode(encoding)) == [{"answer": text}]


def test_a_terminal_without_the_character_shows_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="iso8859-1"))

    terminal.tolerate_encodings()
    terminal.say("naïve 日")
    sys.stdout.flush()

    assert written.getvalue() == b"na\xefve \\u65e5\n"
