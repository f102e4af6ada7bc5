"""What reaches a terminal: made printable, in one place. Knows nothing of what is said, and nothing of JSON.

A reason, a label, a row, an answer or a tag may hold whatever somebody once typed. A terminal obeys control characters
(colours, titles, links that show one address and open another) and turns text around at a bidi override. Here each of
them becomes the characters of its escape: visible, and without effect.
"""

from __future__ import annotations

import sys
import unicodedata

import click

# Control, format, half of a pair, line separator, paragraph separator.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# They join letters and emoji, and do nothing else: "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645" is a word.
_JOINERS = frozenset("\u200c\u200d")


def printable(text: str, keep: str = "") -> str:
    """The text with every character that a terminal would obey written as its escape, but for those in ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) if char not in keep else char for char in text)


def _shown(char: str) -> str:
    if unicodedata.category(char) not in _ACTING or char in _JOINERS:
        return char
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def say(text: str = "", *, err: bool = False, bold: bool = False) -> None:
    """Print lines for people; tabs and line ends stay what they are."""
    click.secho(printable(text, keep="\n\t"), err=err, bold=bold or None)


def tolerate_encodings() -> None:
    """See that no character can end the command: one that the terminal's encoding lacks is shown as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # a stream that somebody put there may have none
            reconfigure(errors="backslashreplace")
