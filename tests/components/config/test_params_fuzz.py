"""Whatever params.yaml says, only ParamsError leaves its reader: short, printable, and soon.

Larger files, memory and execution are measured in tests/registry/artifact/test_hostile_files.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import params, params_faults
from components.errors import ParamsError, sanitized

GOOD = """\
bases:
  tiny: {source: bases/tiny, hash: "%s"}
tasks:
  mood:
    base: tiny
    data: {source: mood.csv, format: csv, labels: [bad, good], ranges: {bad: [null, 0], good: [0, null]}}
    instruction: Say whether it is good or bad.
    prompt: {training: {steps: 20, learning_rate: 0.01}}
    gate: [{metric: accuracy, direction: higher, threshold: 0.8}]
""" % ("a" * 64)
# Everything that stands at a value's or a key's place.
WORDS = ["bases", "tiny", "bases/tiny", "a" * 64, "mood", "csv", "[bad, good]", "null", "0", "20", "0.01", "accuracy"]
many = pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.slow)])

TAGS = st.sampled_from(
    [
        "!!int",
        "!!float",
        "!!bool",
        "!!null",
        "!!timestamp",
        "!!binary",
        "!!set",
        "!!omap",
        "!!pairs",
        "!!merge",
        "!x",
        "!",
    ]
    + [f"!!python/{what}:os.system" for what in ("name", "object/apply", "object/new", "object", "module")]
)
NUMBERS = st.one_of(
    st.integers(1, 6000).map(lambda n: "9" * n),
    st.integers(1, 6000).map(lambda n: "-0x" + "f" * n),
    st.integers(1, 6000).map(lambda n: "0b" + "1" * n),
    st.integers(1, 3000).map(lambda n: "1" + ":59" * n),
    st.sampled_from([".nan", "-.inf", "1e999", "1:1.5", "0o7", "08", "1_0", "_", "+.", "1e-999", "9" * 39 + ".0"]),
)
SCALARS = st.one_of(
    NUMBERS,
    st.sampled_from(
        ["2001-99-99", "2001-01-01T99:00:00Z", "yes", "~", "=", "<<", "''", '"\\ud800"', '"\\0"', '"\\e[31m"']
    ),
    st.text(max_size=8).map(lambda text: yaml.safe_dump(text, default_style='"').strip()),
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["*here", "*there", "{<<: *here}", "{<<: [*here, *here]}", "[*here, *here]"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda p: "{" + ", ".join(f"? {k} : {v}" for k, v in p) + "}"
        ),
        st.builds("{} {}".format, TAGS, inner),
        inner.map("&here {}".format),
        inner.map("&there {}".format),
    ),
    max_leaves=8,
)
NESTED = st.builds(
    lambda depth, pair: pair[0] * depth + pair[1] * depth,
    st.integers(1, 3000),
    st.sampled_from([("[", "]"), ("{a: ", "}"), ("[", ""), ("? ", ""), ("- ", ""), ("&a [", "]"), ("!!set {", "}")]),
)


def refusal(file: Path, content: bytes) -> str:
    """What ParamsError says, empty where the file is taken. Whatever else is raised goes on."""
    file.write_bytes(content)
    try:
        params.load(file)
    except ParamsError as error:
        return str(error)
    return ""


def check_can_be_printed(said: str) -> None:
    assert len(said.splitlines()) <= params.MAX_FAULTS + 1
    assert all(len(line.encode()) < 4000 and line.isprintable() for line in said.splitlines())


@many
def test_a_hostile_value_anywhere(tmp_path: Path, count: int) -> None:
    assert refusal(tmp_path / "params.yaml", GOOD.encode()) == ""

    @settings(max_examples=count)
    @given(word=st.sampled_from(WORDS), value=VALUES | NESTED, anchor=st.sampled_from(["", "here: &here {a: 1}\n"]))
    def fuzz(word: str, value: str, anchor: str) -> None:
        content = anchor + GOOD.replace(word, value, 1)
        check_can_be_printed(refusal(tmp_path / "params.yaml", content.encode("utf-8", "surrogatepass")))

    fuzz()


@many
def test_spoilt_and_arbitrary_bytes(tmp_path: Path, count: int) -> None:
    good = GOOD.encode()

    @settings(max_examples=count)
    @given(at=st.integers(0, len(good)), put=st.binary(max_size=8), cut=st.integers(0, 8), rest=st.booleans())
    def fuzz(at: int, put: bytes, cut: int, rest: bool) -> None:
        content = good[:at] + put + (good[at + cut :] if rest else b"")
        check_can_be_printed(refusal(tmp_path / "params.yaml", content))

    fuzz()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("-0x" + "f" * 9999, "a number of 10002 characters"),
        ("1" + ":59" * 9999, "a number of 29998 characters"),
        ('"\\ud800"', "half a character"),
        ("&a [*a]", "an alias stands inside of what it names"),
        ("&a {<<: *a}", "an alias stands inside of what it names"),
    ],
)
def test_what_nobody_means_is_refused_in_one_line(tmp_path: Path, value: str, said: str) -> None:
    found = refusal(tmp_path / "params.yaml", GOOD.replace("20", value).encode())

    assert said in found
    assert len(found.splitlines()) == 1


def test_a_file_beyond_the_bound_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert "has more than 4194304 bytes" in refusal(tmp_path / "params.yaml", GOOD.encode() + b"#" * (4 << 20))


def test_of_very_many_faults_a_hundred_are_told(tmp_path: Path) -> None:
    found = refusal(tmp_path / "params.yaml", b"\n".join(b"k%d: 1" % number for number in range(300)))

    first, *lines = found.splitlines()
    assert first.endswith("params.yaml has more than 100 faults:")
    assert len(lines) == 100


def test_a_fleet_of_a_thousand_tasks_is_within_the_bound(tmp_path: Path) -> None:
    """With the longest section of the repository's own file for each of them."""
    own = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8"))
    own["tasks"] = {f"task-{number}": own["tasks"]["movie-sentiment"] for number in range(1000)}
    text = yaml.safe_dump(own, sort_keys=False)  # one task written out, 999 aliases of its parts

    assert refusal(tmp_path / "params.yaml", text.encode()) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ü", "plain ü"), ("a\nb\x1b[31m\ud800", "a\\nb\\x1b[31m\\ud800"), ("x" * 401, "x" * 400 + " ...")],
)
def test_a_text_from_outside_is_told_on_one_printable_line(text: str, shown: str) -> None:
    assert sanitized(text) == shown


def test_the_fuzzing_would_show_a_missing_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params_faults, "MAX_DIGITS", {})

    with pytest.raises(ValueError, match="Exceeds the limit"):
        refusal(tmp_path / "params.yaml", GOOD.replace("20", "-0x" + "f" * 6000).encode())
