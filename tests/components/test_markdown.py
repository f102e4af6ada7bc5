"""What a text from outside would do to a page, it does not; what it says stays. Judged by readers of Markdown."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from components import markdown

READER = MarkdownIt("gfm-like", {"html": True, "linkify": False})
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "a | b \\| c \\\\| d",
    "`code` ``` and \\` more",
    "**bold** __bold__ *it* _it_ ~~gone~~",
    "one\n\n# two\n- three\n| 4 | 5 |\n---",
    "<!-- gone --> &lt;b&gt; &amp; &#60;i&#62;",
    "<https://evil.example> https://evil.example www.evil.example mailto:a@b.example",
    "\\<b\\> \\",
    "$x$ :smile: [^1] [a]: b",
    "\x1b[31m\u202e\x00",
    "a\udc80b",
)
PLAIN = (
    "accuracy >= 0.8",
    "macro_f1",
    "champion (version 4)",
    "-0.010 to +0.250",
    "Say: dull or funny?",
    "Zürich 日本語",
)
PART = {"th_open", "th_close", "td_open", "td_close", "tr_open", "tr_close", "thead_open", "thead_close"}


def said(text: str) -> str:
    """What a person is to read of it."""
    return markdown._visible(" ".join(text.split()))


def shown(page: str) -> tuple[set[str], str]:
    """The kinds of marks that a reader finds within lines, and the text that it shows."""
    inline = [child for token in READER.parse(page) for child in token.children or ()]
    text = "".join(child.content for child in inline if child.type in ("text", "code_inline", "text_special"))
    return {child.type for child in inline}, text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_read_as_it_is_and_does_nothing(text: str) -> None:
    kinds, read = shown(f"It says: {markdown.escaped(text)}.")

    assert kinds <= {"text", "text_special"}
    assert read == f"It says: {said(text)}."


@pytest.mark.parametrize("text", HOSTILE)
def test_a_value_stays_in_its_cell(text: str) -> None:
    page = markdown.table([{"what": text, "more": "x"}, {"what": "y", "more": text}])
    tokens = READER.parse(page)

    assert [token.type for token in tokens].count("td_open") == 4
    assert [token.content for token in tokens if token.type == "inline"][3:5] == ["x", "y"]
    assert shown(page)[0] <= {"text", "text_special"}


@pytest.mark.parametrize("text", HOSTILE)
def test_code_holds_all_of_a_text(text: str) -> None:
    kinds, read = shown(f"It says: {markdown.code(text)}.")

    assert kinds <= {"text", "code_inline"}
    assert read == f"It says: {said(text)}."


@pytest.mark.parametrize("text", PLAIN)
def test_what_means_nothing_is_left_as_it_was_written(text: str) -> None:
    assert markdown.escaped(text) == text


def test_no_reader_makes_a_link_of_an_address() -> None:
    page = markdown.escaped("https://evil.example www.evil.example mailto:a@evil.example")

    assert not re.search(r"https?://|www\.|mailto:", page)
    assert html.unescape(page) == "https://evil.example www.evil.example mailto:a@evil.example"


@given(st.text(st.characters() | st.sampled_from("\\`*_[]()<>|~&#!:\n -")))
def test_any_text_is_read_as_it_is(text: str) -> None:
    for page in (f"x {markdown.escaped(text)} x", f"x {markdown.code(text)} x"):
        kinds, read = shown(page)
        assert kinds <= {"text", "text_special", "code_inline"}
        assert read.split() == f"x {said(text)} x".split() or "``" in page


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, *PLAIN, "# no heading", "- no list", "1. neither", "12) nor this", "2024. nor that", "> said", "-"],
)
def test_a_cell_that_is_read_as_a_page_is_a_text_and_what_is_no_text_stays(text: str) -> None:
    [row] = markdown.cells([{"what": text, "rows": 7, "share": 0.5, "fault": None}])

    what, *others = row.values()
    assert others == [7, 0.5, None]
    assert [token.type for token in READER.parse(str(what))] == ["paragraph_open", "inline", "paragraph_close"]
    kinds, read = shown(str(what))
    assert kinds <= {"text", "text_special"}
    assert read == said(text)
