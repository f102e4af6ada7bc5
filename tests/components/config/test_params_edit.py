"""One value of params.yaml is written anew where it stands: what else is in the file stays byte for byte."""

from __future__ import annotations

import io
import resource
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from components.config import params
from components.config.params_edit import declare_base, redeclared
from components.errors import ParamsError

HOLE = "@@"  # where the value stands that is to be changed
BASES = f"""\
bases:
  tiny: {{source: bases/tiny, hash: "{"a" * 64}"}}
  other: {{source: bases/other, hash: "{"b" * 64}"}}
"""
REST = """\
    data: {source: mood.csv, format: csv, labels: [bad, good]}
    instruction: Say whether it is good or bad.
    gate: [{metric: accuracy, direction: higher, threshold: 0.8}]
"""
SECOND = f"  second:\n    base: tiny\n{REST}"
# Everything that a program which writes the whole file anew would have its own mind about.
LAID_OUT = f"""\
# What we run; base: tiny is what we began with.

{BASES}
tasks:


  # The first one, base: tiny.
  "mood":
    instruction: >-
        base: tiny

        is what we say — twice
    base:   {HOLE}     # tiny was measured best
    data: {{ source: mood.csv,   format: csv,
            labels: [ bad, "good" ] }}
    template: "{{text}}\\nbase: tiny\\n"
    gate:
        - metric: accuracy
          direction: higher
          threshold: 8.0e-1
{SECOND}

# base: tiny ends here"""
ANCHORED = f"{BASES}tasks:\n  mood: &mood\n    base: tiny\n{REST}"
ELSEWHERE = {
    "the value is an alias": f"{BASES}tasks:\n  x:\n    base: &base tiny\n{REST}  mood:\n    base: *base\n{REST}",
    "the value has an anchor": f"{BASES}tasks:\n  mood:\n    base: &base tiny\n{REST}  x:\n    base: *base\n{REST}",
    "it is merged from a mapping": f"{BASES}tasks:\n  mood:\n    <<: {{base: tiny}}\n{REST}",
    "it is merged from another task": f"{ANCHORED}  second:\n    <<: *mood\n".replace("mood:", "x:").replace(
        "second:", "mood:"
    ),
    "it is folded": f"{BASES}tasks:\n  mood:\n    base: >-\n      tiny\n{REST}",
    "it is written with escapes": f'{BASES}tasks:\n  mood:\n    base: "t\\x69ny"\n{REST}',
    "it has a tag": f"{BASES}tasks:\n  mood:\n    base: !!str tiny\n{REST}",
}
SHARED = {
    "the other task is an alias": f"{ANCHORED}  second: *mood\n",
    "the other task merges it": f"{ANCHORED}  second:\n    <<: *mood\n    instruction: Say it.\n",
    "the other task merges it in a list": f"{ANCHORED}  second:\n    <<: [*mood]\n    instruction: Say it.\n",
}


def written(folder: Path, text: str) -> Path:
    file = folder / "params.yaml"
    file.write_bytes(text.encode())
    return file


def beside(file: Path) -> list[Path]:
    """What is in the file's folder with it, but for what Preface keeps of its own."""
    return [path for path in file.parent.iterdir() if path != file and path.name != ".preface"]


def edited(folder: Path, text: str, base: str = "other") -> str:
    """What is in the file afterwards; nothing but the file may be in its folder."""
    file = written(folder, text)
    declare_base(file, "mood", base)
    assert beside(file) == []
    return file.read_bytes().decode()


def refused(folder: Path, text: str, task: str = "mood", base: str = "other") -> str:
    """What it is refused with; the file is untouched and nothing else is in its folder."""
    file = written(folder, text)
    with pytest.raises(ParamsError) as error:
        declare_base(file, task, base)
    assert file.read_bytes() == text.encode()
    assert beside(file) == []
    return str(error.value)


def test_comments_quotes_layout_and_other_tasks_stay_byte_for_byte(tmp_path: Path) -> None:
    assert edited(tmp_path, LAID_OUT.replace(HOLE, "tiny")) == LAID_OUT.replace(HOLE, "other")


def test_a_program_that_writes_the_file_anew_would_be_noticed() -> None:
    anew, out = YAML(typ="rt"), io.StringIO()
    section = anew.load(LAID_OUT.replace(HOLE, "tiny"))
    section["tasks"]["mood"]["base"] = "other"
    anew.dump(section, out)

    assert out.getvalue() != LAID_OUT.replace(HOLE, "other")


@pytest.mark.parametrize(
    "line", [HOLE, f"'{HOLE}'", f'"{HOLE}"', f'"{HOLE}"  # "tiny"', f"'{HOLE}' # it's", f"\n        {HOLE}"]
)
def test_the_value_stays_in_the_quotes_that_it_stands_in(tmp_path: Path, line: str) -> None:
    text = f"{BASES}tasks:\n  mood:\n    base: {line}\n{REST}"

    assert edited(tmp_path, text.replace(HOLE, "tiny")) == text.replace(HOLE, "other")


@pytest.mark.parametrize("text", ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_a_value_that_does_not_stand_in_the_task_s_own_lines_is_refused_with_what_to_write(
    tmp_path: Path, text: str
) -> None:
    told = f"{tmp_path / 'params.yaml'}: the base of mood does not stand in its own lines; write `base: other` there"

    assert refused(tmp_path, text) == told


@pytest.mark.parametrize("text", SHARED.values(), ids=list(SHARED))
def test_a_task_that_others_share_is_refused_and_to_be_done_by_hand(tmp_path: Path, text: str) -> None:
    told = f"{tmp_path / 'params.yaml'}: naming other for mood would change other tasks too; do it by hand"

    assert refused(tmp_path, text) == told


def test_a_value_of_its_own_beside_a_merge_is_changed(tmp_path: Path) -> None:
    text = f"{ANCHORED}  second:\n    <<: *mood\n    base: {HOLE}\n".replace("mood:", "x:").replace("second:", "mood:")

    assert edited(tmp_path, text.replace(HOLE, "tiny")) == text.replace(HOLE, "other")


def test_an_unknown_base_or_task_is_refused_with_the_near_miss(tmp_path: Path) -> None:
    text = LAID_OUT.replace(HOLE, "tiny")

    assert "no base 'othr', did you mean 'other'?" in refused(tmp_path, text, base="othr")
    assert "no task 'moood', did you mean 'mood'?" in refused(tmp_path, text, task="moood")


@pytest.mark.parametrize("base", ["123", "no", "null", "1-0"])
def test_no_file_is_left_with_a_base_that_yaml_reads_as_something_else(tmp_path: Path, base: str) -> None:
    text = f"{BASES}  '{base}': {{source: bases/x, hash: {'c' * 64}}}\ntasks:\n  mood:\n    base: {HOLE}\n{REST}"
    file = written(tmp_path, text.replace(HOLE, "tiny"))
    try:
        declare_base(file, "mood", base)
    except ParamsError:
        assert file.read_bytes().decode() == text.replace(HOLE, "tiny")
    else:
        assert params.load(file).task("mood").base == base
    assert beside(file) == []


@pytest.mark.parametrize("task", ["1e3", "0o7"])
def test_a_task_whose_name_other_readers_take_for_a_number_is_changed_too(tmp_path: Path, task: str) -> None:
    """PyYAML, which reads params.yaml, reads YAML 1.1; by YAML 1.2 these are 1000.0 and 7."""
    file = written(tmp_path, f"{BASES}tasks:\n  {task}:\n    base: tiny\n{REST}")
    assert params.load(file).task(task).base == "tiny"

    declare_base(file, task, "other")

    assert params.load(file).task(task).base == "other"


def test_a_file_with_a_fault_is_refused_untouched(tmp_path: Path) -> None:
    assert "unknown key" in refused(tmp_path, LAID_OUT.replace(HOLE, "tiny").replace("template:", "templte:"))


def test_a_base_that_is_named_already_leaves_the_file_alone(tmp_path: Path) -> None:
    file = written(tmp_path, LAID_OUT.replace(HOLE, "tiny"))
    declare_base(file, "mood", "other")
    once, was = file.read_bytes(), file.stat()

    declare_base(file, "mood", "other")

    assert file.read_bytes() == once
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)


def test_there_and_back_again_is_the_file_that_was(tmp_path: Path) -> None:
    file = written(tmp_path, LAID_OUT.replace(HOLE, "tiny"))

    declare_base(file, "mood", "other")
    declare_base(file, "mood", "tiny")

    assert file.read_bytes().decode() == LAID_OUT.replace(HOLE, "tiny")


def test_who_reads_meanwhile_reads_the_file_that_was(tmp_path: Path) -> None:
    file = written(tmp_path, LAID_OUT.replace(HOLE, "tiny"))
    with file.open("rb") as reader:
        declare_base(file, "mood", "other")

        assert reader.read().decode() == LAID_OUT.replace(HOLE, "tiny")


def test_what_the_file_would_be_is_told_without_writing_it(tmp_path: Path) -> None:
    file = written(tmp_path, LAID_OUT.replace(HOLE, "tiny"))

    assert redeclared(file, "mood", "other").decode() == LAID_OUT.replace(HOLE, "other")
    assert redeclared(file, "mood", "tiny") == file.read_bytes() == LAID_OUT.replace(HOLE, "tiny").encode()
    assert list(tmp_path.iterdir()) == [file]


def test_of_two_who_change_it_at_once_both_are_heard(tmp_path: Path) -> None:
    file = written(tmp_path, LAID_OUT.replace(HOLE, "tiny"))
    (tmp_path / ".preface" / "locks").mkdir(parents=True)
    other = threading.Thread(target=declare_base, args=(file, "second", "other"))
    with FileLock(tmp_path / ".preface" / "locks" / "params.yaml"):
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive(), "it waits"
        assert file.read_bytes() == LAID_OUT.replace(HOLE, "tiny").encode()
        file.write_bytes(redeclared(file, "mood", "other"))
    other.join(timeout=60)

    tasks = params.load(file).tasks
    assert {name: task.base for name, task in tasks.items()} == {"mood": "other", "second": "other"}


def test_a_full_disk_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    text = LAID_OUT.replace(HOLE, "tiny")
    file = written(tmp_path, text)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(ParamsError, match=r"cannot be changed .*File too large"):
            declare_base(file, "mood", "other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert file.read_bytes() == text.encode()
    assert beside(file) == []


def test_who_may_read_and_write_the_file_stays(tmp_path: Path) -> None:
    file = written(tmp_path, LAID_OUT.replace(HOLE, "tiny"))
    file.chmod(0o660)

    declare_base(file, "mood", "other")

    assert file.stat().st_mode & 0o777 == 0o660


def test_a_link_stays_a_link_to_the_file_that_is_changed(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    there = written(tmp_path / "shared", LAID_OUT.replace(HOLE, "tiny"))
    link = tmp_path / "params.yaml"
    link.symlink_to(there)

    declare_base(link, "mood", "other")

    assert link.is_symlink()
    assert there.read_bytes().decode() == LAID_OUT.replace(HOLE, "other")


def test_line_ends_of_another_system_stay(tmp_path: Path) -> None:
    text = LAID_OUT.replace("\n", "\r\n")

    assert edited(tmp_path, text.replace(HOLE, "tiny")) == text.replace(HOLE, "other")


# --- any layout -------------------------------------------------------------------------------------------------------

COMMENTS = st.sampled_from(["", "  # base: tiny", "   #tiny, 'tiny' and \"tiny\" — ☃"])


@st.composite
def sections(draw: st.DrawFn, name: str, base: str) -> str:
    """One task in block or flow style, its keys in any order."""
    quote, gap = draw(st.sampled_from(["", "'", '"'])), draw(st.sampled_from([" ", "    ", "\n          "]))
    data = draw(st.sampled_from(["{source: m.csv, format: csv, labels: [bad, good]}", '{"source":"tiny", format: csv,'
                                 " labels: {tiny: bad, base: good}}"]))  # fmt: skip
    entries = draw(
        st.permutations(
            [
                f"base:{gap}{quote}{base}{quote}",
                f"data: {data}",
                draw(
                    st.sampled_from(["instruction: tiny", "instruction: 'base: tiny'", '"instruction": "{base: tiny}"'])
                ),
                "gate: [{metric: accuracy, direction: higher, threshold: 0.8}]",
            ]
        )
    )
    head = f"  {draw(st.sampled_from(['', '# base: tiny' + chr(10) + '  ']))}{name}:"
    if draw(st.booleans()):
        inside = draw(st.sampled_from([", ", ",\n      ", " ,  # base: tiny\n      "])).join(entries)
        return f"{head} {{{inside}}}{draw(COMMENTS)}\n"
    return f"{head}{draw(COMMENTS)}\n" + "".join(f"    {entry}{draw(COMMENTS)}\n" for entry in entries)


@st.composite
def files(draw: st.DrawFn) -> str:
    """A whole params.yaml with the hole at mood's base."""
    tasks = draw(st.permutations([draw(sections("mood", HOLE)), draw(sections("second", "tiny"))]))
    halves = draw(st.permutations([BASES, f"tasks:{draw(COMMENTS)}\n{''.join(tasks)}"]))
    text = draw(st.sampled_from(["", "\n\n", "---\n", "# base: tiny\n"])) + draw(
        st.sampled_from(["", "\n", "# tiny\n"])
    ).join(halves)
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that examples use in turn."""
    return tmp_path_factory.mktemp("room")


@given(text=files())
def test_in_any_layout_exactly_that_one_base_changes(room: Path, text: str) -> None:
    before = params.load(written(room, text.replace(HOLE, "tiny")))

    assert edited(room, text.replace(HOLE, "tiny")) == text.replace(HOLE, "other")

    after = params.load(room / "params.yaml")
    mood = before.tasks["mood"].model_copy(update={"base": "other"})
    assert after == before.model_copy(update={"tasks": {**before.tasks, "mood": mood}})
    assert after.tasks["mood"] != before.tasks["mood"]
