"""The release log as a pure function: which entries took effect, which versions are bad, what is last good."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.releases import Release, effective, last_good, rolled_away

entries = st.builds(
    Release,
    action=st.sampled_from(["promote", "rollback"]),
    version=st.integers(1, 5),
    based_on=st.integers(0, 12),
    head_hash=st.text(),
    who=st.text(),
    host=st.text(),
    when=st.text(),
    reason=st.text(),
    git_commit=st.text(),
)


def numbered(log: list[Release]) -> list[Release]:
    return [replace(entry, number=number) for number, entry in enumerate(log, 1)]


logs = st.lists(entries, max_size=12).map(numbered)


def story(*steps: tuple[str, int]) -> list[Release]:
    """A log in which each entry was based on the one before."""
    return numbered(
        [Release(action, version, number, "", "", "", "", "", "") for number, (action, version) in enumerate(steps)]  # type: ignore[arg-type]
    )


@given(logs)
def test_what_took_effect_is_one_line_from_the_beginning(log: list[Release]) -> None:
    line = effective(log)

    assert [entry.based_on for entry in line] == [0, *(entry.number for entry in line)][: len(line)]
    assert effective(line) == line
    assert effective(reversed(log)) == line
    assert line or all(entry.based_on for entry in log)


@given(logs, entries)
def test_an_entry_that_names_a_past_head_changes_nothing(log: list[Release], late: Release) -> None:
    line = effective(log)
    head = line[-1].number if line else 0
    appended = replace(late, number=len(log) + 1)

    assert effective([*log, appended]) == ([*line, appended] if late.based_on == head else line)


@given(logs)
def test_the_last_good_version_was_there_and_is_neither_bad_nor_present(log: list[Release]) -> None:
    line = effective(log)
    found = last_good(line)

    if found is None:
        assert {entry.version for entry in line[:-1]} <= {*rolled_away(line), *(e.version for e in line[-1:])}
    else:
        assert found in {entry.version for entry in line}
        assert found != line[-1].version
        assert found not in rolled_away(line)


@given(entries)
def test_an_entry_survives_its_tags(entry: Release) -> None:
    assert Release.from_tags(7, entry.tags()) == entry
    assert Release.from_tags(7, entry.tags() | {"added.by": "hand"}) == entry


@given(entries, st.sampled_from(["action", "version", "reason", "who", "based_on", "head_hash", "number"]))
def test_the_hash_moves_with_every_field(entry: Release, name: str) -> None:
    value = getattr(entry, name)
    edited = replace(entry, **{name: value + 1 if isinstance(value, int) else value + "!"})

    assert edited.hash != entry.hash


@pytest.mark.parametrize(
    "tags",
    [{}, {"preface.action": "promote"}, {"preface.action": "delete", "preface.version": "1", "preface.based_on": "0"}],
)
def test_what_does_not_spell_an_entry_is_none(tags: dict[str, str]) -> None:
    assert Release.from_tags(1, tags) is None


def test_a_version_named_again_is_no_longer_bad() -> None:
    line = story(("promote", 1), ("promote", 2), ("rollback", 1), ("rollback", 2), ("promote", 3))

    assert set(rolled_away(line)) == {1}
    assert last_good(line) == 2


def test_a_version_promoted_over_is_not_bad() -> None:
    line = story(("promote", 1), ("promote", 2), ("promote", 3))

    assert rolled_away(line) == {}
    assert last_good(line) == 2
