"""A moment that somebody types is past: an hour is one of the last day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli import options

NOW = datetime(2026, 11, 26, 4, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_half_past_four(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return NOW.astimezone()

    monkeypatch.setattr(options, "datetime", Clock)


def moment(text: str) -> datetime:
    return options.Moment().convert(text, None, None)


def test_an_hour_is_today_s_if_it_is_past_and_last_night_s_if_not() -> None:
    assert moment("22:00").astimezone() == NOW.astimezone().replace(day=25, hour=22, minute=0)
    assert moment("04:00").astimezone() == NOW.astimezone().replace(hour=4, minute=0)


def test_how_long_ago_and_a_whole_date() -> None:
    assert moment("8h") == NOW - timedelta(hours=8)
    assert moment("2026-11-25T22:00+00:00") == datetime(2026, 11, 25, 22, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-27T22:00+00:00", "yesterday", "25:00", "h"])
def test_what_is_to_come_or_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"in the future|is no time"):
        moment(text)


@pytest.mark.parametrize("secret", ["hf_" + "a" * 30, "password=planted", "https://me:planted@host"])
def test_a_reason_is_kept_without_what_may_be_a_secret(secret: str) -> None:
    @click.command()
    @options.reason_option
    def move(reason: str) -> None:
        click.echo(reason)

    shown = CliRunner().invoke(move, ["--reason", f"it runs with {secret} again"]).output

    assert secret not in shown
    assert "***" in shown
    assert shown.startswith("it runs with ")
