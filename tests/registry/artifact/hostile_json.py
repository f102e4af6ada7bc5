"""Strategies of hostile JSON: any value, any text, and a good document with one thing in it changed.

Knows no document in particular and reads nothing: who parses JSON that others wrote can be tested with these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HOLE = "the place of the hostile value"
# Half characters are in: JSON can escape them, UTF-8 cannot write them.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
EXTREME = st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**64), 10**400, int("9" * 4000)])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | EXTREME
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(["", "\0", "a" * 9999])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)


def render(content: Any) -> str:
    """The form in which Preface writes JSON; whoever forges a digest must write the same."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def encode(text: str) -> bytes:
    """UTF-8, and what no UTF-8 is where the text has half characters."""
    return text.encode("utf-8", "surrogatepass")


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*at, key)
        yield from places(inner, (*at, key))


def _nested(depth: int, opening: str, closing: str, core: str) -> str:
    return opening * depth + core + closing * depth


# As texts: no Python value nests so deep, has a key twice, or is a number of 5,000 digits.
TEXTS: st.SearchStrategy[str] = st.one_of(
    VALUES.map(json.dumps),
    st.builds(
        _nested,
        st.integers(1, 50_000),
        st.sampled_from(["[", '{"a":', '[{"a":']),
        st.sampled_from(["", "]", "}", "}]"]),
        st.sampled_from(["", "0", '"']),
    ),
    st.builds(lambda n: _nested(n, "[", "]", "0"), st.integers(100, 1200)),
    st.builds(lambda n: _nested(n, '{"a":', "}", "0"), st.integers(100, 1200)),
    st.integers(1, 20_000).map(lambda n: "9" * n),
    st.sampled_from(
        ["NaN", "-Infinity", "1e999", "-1e999", "-0", "1E400", "0.1e-9999", "01", "+1", "0x1", '"\\ud800"']
    ),
    st.builds(
        lambda key, a, b: f"{{{key}: {a}, {key}: {b}}}", ANY_TEXT.map(json.dumps), *[SCALARS.map(json.dumps)] * 2
    ),
)


@st.composite
def edited(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """The document with one value put elsewhere, taken out, or set to another; as a Python value."""
    changed = json.loads(json.dumps(document))
    *way, last = draw(st.sampled_from(sorted(places(document), key=str)))
    holder = changed
    for key in way:
        holder = holder[key]
    old = holder[last]
    what = draw(st.sampled_from(["nudge", "set", "drop", "add"]))
    if what == "drop":
        del holder[last]
    elif what == "add" and isinstance(holder, dict):
        holder[draw(st.text(min_size=1, max_size=9))] = draw(VALUES)
    elif what == "nudge" and type(old) in (int, float):
        holder[last] = old + draw(st.sampled_from([-1, 1, 1e-9, 0.5]))
    elif what == "nudge" and isinstance(old, str) and old:
        at = draw(st.integers(0, len(old) - 1))
        holder[last] = old[:at] + draw(st.characters()) + old[at + 1 :]
    else:
        holder[last] = draw(VALUES)
    return changed


@st.composite
def holed(draw: st.DrawFn, document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A document with a hole, and the hostile text for it; ``fill`` puts the text in."""
    changed = json.loads(json.dumps(document))
    *way, last = draw(st.sampled_from(sorted(places(document), key=str)))
    holder = changed
    for key in way:
        holder = holder[key]
    holder[last] = HOLE
    return changed, draw(TEXTS)


def fill(holed_document: dict[str, Any], text: str) -> bytes:
    return encode(render(holed_document).replace(json.dumps(HOLE), text))


def arbitrary() -> st.SearchStrategy[bytes]:
    """Bytes, JSON or not, that have nothing to do with what is expected."""
    encodings = st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig"])
    return st.one_of(
        st.binary(max_size=200),
        TEXTS.map(encode),
        st.builds(lambda text, encoding: text.encode(encoding, "replace"), VALUES.map(json.dumps), encodings),
    )
