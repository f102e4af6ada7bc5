"""The records of params.yaml that say when a task is looked at again, and what is reason enough to retrain it.

Faults inside one record are found here. When a run happens is Prefect's business, what follows from the reasons that
of ``provenance/triggers.py``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from croniter import CroniterError, croniter
from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from components.records import Record

Change = Literal["data", "base", "parameters"]
CHANGES: tuple[Change, ...] = ("data", "base", "parameters")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_NAMES = re.compile("jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun", re.IGNORECASE)
_SHORTEST, _LONGEST = timedelta(seconds=10), timedelta(days=366)


def duration(text: str) -> timedelta:
    """``30s``, ``15m``, ``6h``, ``30d`` or ``2w`` as a span of time."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no span of time; write 15m, 6h, 30d or 2w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _span(text: str) -> str:
    duration(text)
    return text


def _cron(text: str) -> str:
    # What croniter takes and Prefect does not: random and hashed fields, nearest weekdays, a sixth field for seconds.
    letters = set(_NAMES.sub("", text)) & set(string.ascii_letters)
    if len(text.split()) != 5 or letters - {"L", "l"} or not croniter.is_valid(text):
        raise ValueError(f"{text!r} is no cron line of five fields, as in '0 3 * * *'")
    fields = text.split()
    # Prefect needs the day of the month to come, also where a weekday stands beside it.
    try:
        croniter(" ".join([*fields[:4], "*" if fields[2] != "*" else fields[4]]), datetime(2024, 1, 1)).get_next()
    except CroniterError as error:
        raise ValueError(f"{text!r} names a day that never comes") from error
    return text


def _zone(text: str) -> str:
    if text not in available_timezones():  # which leaves out posix/... and right/..., as Prefect does
        raise ValueError(f"{text!r} is no time zone; write one as in Europe/Berlin, or UTC")
    return text


Span = Annotated[str, AfterValidator(_span)]


class ScheduleParams(Record):
    """When a task is looked at again: by ``cron`` on its time zone's own clock, or every ``interval``.

    Intervals are counted from 2020-01-01T00:00 in the time zone: registering a schedule again does not shift it, and
    an interval of days keeps its hour when clocks change. ``paused`` keeps a schedule without running it.
    """

    cron: Annotated[str, AfterValidator(_cron)] | None = None
    interval: Span | None = None
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    paused: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("a schedule has exactly one of cron and interval")
        if self.interval and not _SHORTEST <= duration(self.interval) <= _LONGEST:
            raise ValueError(
                f"interval is {self.interval}; {_SHORTEST.seconds}s is the shortest, {_LONGEST.days}d the longest"
            )
        return self


class RetrainParams(Record):
    """What is reason enough for a scheduled run to train; somebody who asks for a retraining needs none.

    ``when``: the changes that are reason enough by themselves. ``floor``: the lowest score, by metric, that the version
    in Production may have on today's test rows. ``max_age``: how old it may become. ``warm_start``: train from the
    version in Production as well as anew, side by side, and take what does better on the validation rows; with another
    task's name, from that task's version in Production for as long as this one has none.
    """

    when: list[Change] = Field(default_factory=lambda: list(CHANGES))
    floor: dict[str, FiniteFloat] = Field(default_factory=dict)
    max_age: Span | None = None
    warm_start: bool | str = False

    @model_validator(mode="after")
    def _some_reason(self) -> Self:
        if not self.when and not self.watches:
            raise ValueError("nothing would ever retrain this task; name a change in when, a floor or a max_age")
        return self

    @property
    def watches(self) -> bool:
        """Whether the version in Production is watched, beside what it was trained from."""
        return bool(self.floor) or self.max_age is not None

    def unmeasured(self, metrics: Sequence[str]) -> list[str]:
        """Metrics of the floor that are not among those."""
        return [name for name in self.floor if name not in metrics]
