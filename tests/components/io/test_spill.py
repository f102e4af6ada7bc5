"""Rows too many for memory come back whole, in the order of their keys' ranges, and the files go as they are read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from components.io.spill import MOST, PART, Spill, parts_for


def test_rows_come_back_by_ranges_of_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.io.spill.BUFFERED", 1000)  # written many times
    keys = [f"{n * 40503 % 65536:04x}" for n in range(500)]
    with Spill(tmp_path / "room", parts=7) as spill:
        for n, key in enumerate(keys):
            spill.add(key, (key, n), 4)
        parts = [list(part) for part in spill.read()]
    assert len(parts) == 7
    assert sorted(row for part in parts for row in part) == sorted(zip(keys, range(500), strict=True))
    for lower, upper in pairwise(parts):
        assert max(lower)[0] < min(upper)[0]
    assert all([n for _, n in part] == sorted(n for _, n in part) for part in parts)
    assert list((tmp_path / "room").iterdir()) == []


def test_a_small_file_is_spilled_into_one_and_the_largest_into_no_more_than_may_be_open() -> None:
    assert (parts_for(0), parts_for(3 * PART), parts_for(10**13)) == (1, 4, MOST)
