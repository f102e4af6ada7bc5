"""What a file of text really is, by its beginning: its encoding, and whether it stands for other data than rows.

Knows pointers, web pages, JSON and tables by their looks; reads no row of them.
"""

from __future__ import annotations

import codecs
import json
import re

from components.errors import sanitized
from components.rows.kinds.binary_kind import FileKind, control_share, is_utf8

_LFS = FileKind(
    "a Git LFS pointer, not the file that it stands for",
    "run `git lfs pull` in its repository, or use the address of the file itself",
)
_ANNEX = FileKind("a git-annex pointer, not the file that it stands for", "run `git annex get` in its repository")
_DVC = FileKind("a DVC pointer, not the file that it stands for", "run `dvc pull` in its repository")
_POINTERS: tuple[tuple[re.Pattern[str], FileKind], ...] = (
    (re.compile(r"version https://git-lfs\.github\.com/spec/"), _LFS),
    (re.compile(r"version https://hawser\.github\.com/spec/"), _LFS),
    (re.compile(r"(\.\./)*(\.git/annex/objects/|/annex/objects/)"), _ANNEX),
    (re.compile(r"(md5: [0-9a-f]{32}\s+)?outs:\s+- +(md5|etag|size|hash): "), _DVC),
)
_PAGE = re.compile(r"(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|title|meta|script)\b", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.{1,200}?)</title", re.IGNORECASE | re.DOTALL)
_XML_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_MARKED = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLANK = " \t\r\n\x0b\x0c\ufeff\x1e"
LINES = 20  # that are looked at for an object of JSON


def wide_encoding(head: bytes) -> str | None:
    """The encoding of two or four bytes a character that a file is in, by its mark or by where its NULs stand.

    None where it is in none: UTF-8, Latin-1, and all others of one byte a letter.
    """
    for mark, encoding in _MARKED:
        if head.startswith(mark):
            return encoding
    counts = [head[place::4].count(0) for place in range(4)]
    quarter = max(1, len(head) // 4)
    if len(head) >= 8 and min(counts[2:]) > 0.9 * quarter and counts[0] < 0.1 * quarter:
        return "utf-32-le"
    if len(head) >= 8 and min(counts[:2]) > 0.9 * quarter and counts[3] < 0.1 * quarter:
        return "utf-32-be"
    even, odd = counts[0] + counts[2], counts[1] + counts[3]
    for encoding, high, low, line_end in (("utf-16-le", odd, even, b"\n\0"), ("utf-16-be", even, odd, b"\0\n")):
        # Letters of Latin have a NUL each; of any script, line ends do, and then every line end does.
        mostly = high > 0.3 * (len(head) // 2)
        ends = sum(head[at : at + 2] == line_end for at in range(0, len(head) - 1, 2)) if high and not mostly else 0
        if (
            high
            and low < 0.05 * high
            and (mostly or (2 * ends > head.count(b"\n") and (control_share(head) > 0.1 or not is_utf8(head))))
        ):
            return encoding
    return None


def is_narrow(head: bytes) -> bool:
    """Whether the bytes read as UTF-8 text, which those of UTF-16 and UTF-32 do not."""
    return bool(head) and b"\x00" not in head and is_utf8(head)


def stand_in(text: str) -> FileKind | None:
    """What stands here in place of rows: a pointer, a web page, an answer in XML; None if nothing of the kind."""
    text = text.lstrip(_BLANK)
    if kind := pointer(text):
        return kind
    if _PAGE.match(text):
        title = _TITLE.search(text)
        named = f", titled {sanitized(' '.join(title[1].split()))!r}" if title else ""
        return FileKind(
            f"an HTML page{named}",
            "use the raw address of the file, as a page's download link has it, and look whether it needs a login",
        )
    code = _XML_CODE.search(text[:2000]) if text.startswith("<") else None
    if code or text.startswith("<?xml"):
        said = f"an error that an object store answered, {code[1]}" if code else "an XML document"
        return FileKind(said, "correct the address, or write the rows as JSON lines or CSV")
    return None


def pointer(text: str) -> FileKind | None:
    """The kind of pointer that stands here in place of a file; None if there is none."""
    return next((kind for form, kind in _POINTERS if form.match(text)), None)


def first_line(text: str) -> str:
    """The first line that holds something, without the white space around it; empty if there is none."""
    return next((line.strip(_BLANK) for line in text.split("\n") if line.strip(_BLANK)), "")


def holds_json(text: str) -> bool:
    """Whether one of the first lines begins as an object or a list of JSON does."""
    lines = (line.strip(_BLANK) for line in text.split("\n"))
    first = [line for line in lines if line][:LINES]
    return any(line.startswith(("{", "[")) for line in first)


def is_json(text: str) -> bool:
    """Whether the text is JSON and no table: it begins a list of objects, or an object, as a line or over many."""
    if re.match(r"\[\s*[{\[]|\{[ \t\r]*\n", text.lstrip(_BLANK)):
        return True
    try:
        return isinstance(json.loads(first_line(text)), dict)
    except (ValueError, RecursionError):
        return False


def table_format(text: str) -> str:
    """The format of a table whose first line this text begins with: ``tsv`` where tabs part it, otherwise ``csv``."""
    return "tsv" if "\t" in first_line(text) else "csv"
