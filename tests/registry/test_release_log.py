"""The release log as pure functions: which entries took effect, which versions are bad, what is last good."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.release_log import Action, Release, breaks, effective, last_good, rolled_away

texts = st.text(max_size=5)
entries = st.builds(
    Release,
    action=st.sampled_from(["promote", "rollback", "adopt"]),
    version=st.integers(1, 5),
    based_on=st.integers(0, 12),
    head_hash=texts,
    who=texts,
    host=texts,
    when=texts,
    reason=texts,
    git_commit=texts,
    token=texts,
)
FIELDS = [
    "action",
    "version",
    "reason",
    "who",
    "based_on",
    "head_hash",
    "digest",
    "gate",
    "override",
    "drift",
    "number",
]


def append(log: list[Release], action: Action, version: int, behind: int = 0) -> None:
    """Write an entry as a caller does who read the log when it was ``behind`` entries shorter."""
    line = effective(log[: len(log) - behind])
    number, head_hash = (line[-1].number, line[-1].hash) if line else (0, "")
    log.append(Release(action, version, number, head_hash, "", "", "", "", "", number=len(log) + 1))


@st.composite
def histories(draw: st.DrawFn) -> list[Release]:
    """Logs as several callers at once write them, some of them too late."""
    log: list[Release] = []
    for _ in range(draw(st.integers(0, 12))):
        append(log, draw(st.sampled_from(["promote", "rollback"])), draw(st.integers(1, 5)), draw(st.integers(0, 3)))
    return log


def story(*steps: tuple[Action, int]) -> list[Release]:
    """A log in which each entry was based on the one before."""
    log: list[Release] = []
    for action, version in steps:
        append(log, action, version)
    return log


@given(histories())
def test_what_took_effect_is_one_line_from_the_beginning(log: list[Release]) -> None:
    line = effective(log)

    assert [entry.based_on for entry in line] == [0, *(entry.number for entry in line)][: len(line)]
    assert effective(line) == line
    assert effective(reversed(log)) == line
    assert bool(line) == bool(log)
    assert breaks(line) == []


@given(histories(), st.integers(1, 5))
def test_of_entries_upon_one_head_the_first_takes_effect(log: list[Release], version: int) -> None:
    line = effective(log)
    append(log, "promote", version)
    append(log, "promote", version, behind=1)

    assert effective(log) == [*line, log[-2]]


@given(histories())
def test_the_last_good_version_was_there_and_is_neither_bad_nor_present(log: list[Release]) -> None:
    line = effective(log)
    found = last_good(line)

    if found is not None:
        assert found in {entry.version for entry in line}
        assert found != line[-1].version
        assert found not in rolled_away(line)


@given(histories())
def test_rollbacks_one_after_the_other_end(log: list[Release]) -> None:
    landed = []
    while (target := last_good(effective(log))) is not None:
        landed.append(target)
        append(log, "rollback", target)

    assert len(landed) == len(set(landed))


@given(entries)
def test_an_entry_survives_its_tags(entry: Release) -> None:
    assert Release.from_tags(7, entry.tags()) == entry
    assert Release.from_tags(7, entry.tags() | {"added.by": "hand"}) == entry


@given(entries, st.sampled_from(FIELDS))
def test_the_hash_moves_with_every_field(entry: Release, name: str) -> None:
    value = getattr(entry, name)
    edited = replace(entry, **{name: value + 1 if isinstance(value, int) else value + "!"})

    assert edited.hash != entry.hash


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"preface.action": "promote"},
        {"preface.action": "delete", "preface.version": "1", "preface.based_on": "0"},
        {"preface.action": "promote", "preface.version": "1", "preface.based_on": "²"},
        {"preface.action": "promote", "preface.version": "9" * 5000, "preface.based_on": "0"},
    ],
)
def test_what_does_not_spell_an_entry_is_none(tags: dict[str, str]) -> None:
    assert Release.from_tags(1, tags) is None


class TestRollingBack:
    def test_a_version_named_again_is_no_longer_bad(self) -> None:
        line = story(("promote", 1), ("promote", 2), ("rollback", 1), ("rollback", 2), ("promote", 3))

        assert set(rolled_away(line)) == {1}
        assert last_good(line) == 2

    def test_a_version_promoted_over_is_not_bad(self) -> None:
        line = story(("promote", 1), ("promote", 2), ("promote", 3))

        assert rolled_away(line) == {}
        assert last_good(line) == 2

    def test_it_goes_back_and_never_forth(self) -> None:
        line = story(("promote", 1), ("promote", 2), ("promote", 3), ("promote", 4), ("rollback", 2))

        assert last_good(line) == 1

    def test_what_is_undone_together_is_passed_over(self) -> None:
        line = story(("promote", 1), ("promote", 2), ("promote", 3))

        assert last_good(line, lambda entry: entry.number >= 2) == 1
        assert last_good(line, lambda entry: True) is None


class TestEdited:
    """A history that somebody changed afterwards: what was in Production stays, and the break shows."""

    HISTORY = story(("promote", 1), ("promote", 2), ("promote", 3), ("promote", 4))

    @pytest.mark.parametrize("name", [name for name in FIELDS if name != "number"])
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_any_edit_of_what_others_stand_upon_shows(self, name: str, place: int) -> None:
        log = list(self.HISTORY)
        value = getattr(log[place], name)
        log[place] = replace(log[place], **{name: value + 7 if isinstance(value, int) else value + "!"})

        assert effective(log)[-1] == self.HISTORY[-1]
        assert breaks(effective(log))

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_an_entry_taken_away_shows(self, place: int) -> None:
        log = [entry for entry in self.HISTORY if entry != self.HISTORY[place]]

        assert effective(log) == log
        assert breaks(effective(log)) == [place]

    def test_an_entry_edited_to_come_too_late_still_counts(self) -> None:
        log = list(self.HISTORY)
        append(log, "promote", 5, behind=1)  # void: release 4 came first
        append(log, "promote", 6)
        log[3] = replace(log[3], based_on=1)

        assert [entry.version for entry in effective(log)] == [1, 2, 3, 4, 6]

    @given(histories(), st.data())
    def test_no_edit_chooses_where_a_rollback_lands(self, log: list[Release], data: st.DataObject) -> None:
        for version in (1, 2, 3):
            append(log, "promote", version)
        place = data.draw(st.sampled_from(range(len(effective(log)) - 1)))
        edited = effective(log)[place]
        lie = replace(edited, version=data.draw(st.integers(6, 9)))
        log[edited.number - 1] = lie

        assert last_good(effective(log)) != lie.version
