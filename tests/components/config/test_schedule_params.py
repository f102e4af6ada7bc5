"""When a task is looked at again: what is refused is told with its key path, what is taken Prefect takes too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from components.config import params
from components.config.schedule_params import CHANGES, RetrainParams, ScheduleParams, duration
from components.errors import ParamsError

MOOD: dict[str, Any] = {
    "base": "tiny",
    "data": {"source": "mood.csv", "format": "csv", "labels": ["bad", "good"]},
    "instruction": "Say whether it is good or bad.",
    "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.8}],
}
NIGHTLY = "0 3 * * *"
NO_CRON = "{!r} is no cron line of five fields, as in '0 3 * * *'"
Load = Callable[..., params.TaskParams]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a good task with these sections: ``load(schedule={"cron": "0 3 * * *"})``."""

    def with_sections(**sections: Any) -> params.TaskParams:
        file = tmp_path / "params.yaml"
        bases = {"tiny": {"source": "bases/tiny", "hash": "a" * 64}}
        file.write_text(yaml.safe_dump({"bases": bases, "tasks": {"mood": MOOD | sections}}), encoding="utf-8")
        return params.load(file).task("mood")

    return with_sections


@pytest.fixture
def faults(load: Load) -> Callable[..., list[str]]:
    """The lines that such a file is refused with, below the headline."""

    def told(**sections: Any) -> list[str]:
        with pytest.raises(ParamsError) as error:
            load(**sections)
        return [line.strip() for line in str(error.value).splitlines()[1:]]

    return told


def prefect_takes(cron: str, timezone: str = "UTC") -> bool:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except pydantic.ValidationError:
        return False
    return True


def test_a_task_has_no_schedule_and_every_change_is_a_reason_unless_it_says_otherwise(load: Load) -> None:
    task = load()
    assert task.schedule is None
    assert (tuple(task.retrain.when), task.retrain.floor, task.retrain.max_age) == (CHANGES, {}, None)
    assert not task.retrain.watches


@pytest.mark.parametrize(
    "cron",
    [
        NIGHTLY, "*/15 * * * *", "0 3 * * 1-5", "0,30 8-18/2 1,15 * *", "59 23 31 12 7", "0 3 * MAR THU",
        "0 3 * mar thu", "0 3 * * THU-SAT", "0 3 * MAR,APR *", "0 3 * * MON#1", "0 3 L * *", "0 0 29 2 *",
    ],
)  # fmt: skip
def test_a_cron_line_is_taken_as_it_is_and_prefect_takes_it_too(load: Load, cron: str) -> None:
    schedule = load(schedule={"cron": cron}).schedule
    assert schedule == ScheduleParams(cron=cron, interval=None, timezone="UTC", paused=False)
    assert prefect_takes(cron)


@pytest.mark.parametrize(
    "cron",
    [
        "", "soon", "0 3 * *", "60 * * * *", "0 24 * * *", "0 3 32 * *", "0 3 * 13 *", "0 3 * * 8", "0 3 * * FOO",
        "*/0 * * * *", "-1 * * * *", "0,,3 * * * *", "0 3 * * THURSDAY", "MAR 3 * * *", "@reboot",
        "R * * * *", "0 R * * *", "H 3 * * *", "h 3 * * *", "H/15 * * * *", "H(0-5) * * * *", "0 3 * * H",
        "0 3 * * * 2030",
    ],
)  # fmt: skip
def test_a_cron_line_that_prefect_would_not_plan_is_refused_with_its_key_path(
    faults: Callable[..., list[str]], cron: str
) -> None:
    assert faults(schedule={"cron": cron}) == [f"tasks.mood.schedule.cron: {NO_CRON.format(cron)}"]
    assert not prefect_takes(cron)


@pytest.mark.parametrize("cron", ["* * * * * *", "0 0 * * * 30", "0 0 * * * 0 2030", "R(0-5) * * * *", "@daily"])
def test_a_cron_line_that_prefect_alone_would_take_is_refused(faults: Callable[..., list[str]], cron: str) -> None:
    """Seconds would retrain all the time, a random minute is another one at each look."""
    assert prefect_takes(cron)
    assert faults(schedule={"cron": cron}) == [f"tasks.mood.schedule.cron: {NO_CRON.format(cron)}"]


@pytest.mark.parametrize("cron", ["r * * * *", "0 3 * * r", "r(0-5) * * * *", "0 3 15W * *", "0 3 w15 * *"])
def test_random_fields_and_nearest_weekdays_are_refused_in_small_letters_too(
    faults: Callable[..., list[str]], cron: str
) -> None:
    assert faults(schedule={"cron": cron}) == [f"tasks.mood.schedule.cron: {NO_CRON.format(cron)}"]


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 3 31 11 5", "0 3 30 2 mon"])
def test_a_day_that_never_comes_is_refused(faults: Callable[..., list[str]], cron: str) -> None:
    told = f"tasks.mood.schedule.cron: {cron!r} names a day that never comes"
    assert faults(schedule={"cron": cron}) == [told]


def fields(low: int, high: int, names: str = "") -> st.SearchStrategy[str]:
    """What may stand in one field of a cron line."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}")
    one = number.map(str) | span | st.sampled_from(names.split() or ["*"])
    step = st.tuples(span | st.just("*"), st.integers(1, high)).map(lambda parts: f"{parts[0]}/{parts[1]}")
    return st.just("*") | step | st.lists(one, min_size=1, max_size=3).map(",".join)


MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
DAYS = "mon tue wed thu fri sat sun MON TUE WED THU FRI SAT SUN"
# Days that every month has: 30 February is a line of the ordinary kind, and refused (above).
LINES = st.tuples(fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12, MONTHS), fields(0, 7, DAYS)).map(" ".join)


@given(cron=LINES)
def test_every_cron_line_of_the_ordinary_kind_is_taken_and_prefect_takes_it_too(cron: str) -> None:
    assert ScheduleParams(cron=cron).cron == cron
    assert prefect_takes(cron)


NEARLY = st.lists(st.text(alphabet="0123456789*/,-#?LlRrHhWw()MONFRI", min_size=1, max_size=5), min_size=4, max_size=7)


@given(cron=NEARLY.map(" ".join) | st.tuples(LINES, st.integers(0, 12), st.sampled_from("RrHhWwL#?/,-9 ")).map(
    lambda it: it[0][: it[1]] + it[2] + it[0][it[1] :]
))  # fmt: skip
def test_whatever_is_taken_has_five_fields_and_prefect_takes_it_too(cron: str) -> None:
    try:
        taken = ScheduleParams(cron=cron).cron
    except pydantic.ValidationError as error:
        told = (NO_CRON.format(cron), f"{cron!r} names a day that never comes")
        assert any(line in str(error) for line in told)  # noqa: PT017
    else:
        assert taken == cron
        assert len(cron.split()) == 5
        assert prefect_takes(cron)


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+2"])
def test_a_time_zone_by_its_name_is_taken_and_prefect_takes_it_too(load: Load, timezone: str) -> None:
    schedule = load(schedule={"cron": NIGHTLY, "timezone": timezone}).schedule
    assert schedule == ScheduleParams(cron=NIGHTLY, timezone=timezone)
    assert prefect_takes(NIGHTLY, timezone)


@pytest.mark.parametrize(
    "timezone",
    [
        "",
        "Berlin",
        "europe/berlin",
        "Europe",
        "+02:00",
        "UTC ",
        "../etc/passwd",
        "/etc/passwd",
        "Europe/Berlin\x00",
        "é",
    ],
)
def test_what_is_no_time_zone_is_refused_with_its_key_path(faults: Callable[..., list[str]], timezone: str) -> None:
    (told,) = faults(schedule={"cron": NIGHTLY, "timezone": timezone})
    assert told.startswith("tasks.mood.schedule.timezone: ")
    assert told.endswith(" is no time zone; write one as in Europe/Berlin, or UTC")


def test_a_time_zone_that_is_too_long_for_a_file_name_is_refused_like_any_other() -> None:
    with pytest.raises(pydantic.ValidationError, match="is no time zone"):
        ScheduleParams(cron=NIGHTLY, timezone="a" * 300)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("6h", timedelta(hours=6)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(days=14)),
    ],
)
def test_a_span_of_time_is_a_number_and_a_unit(load: Load, text: str, span: timedelta) -> None:
    task = load(schedule={"interval": text}, retrain={"max_age": text})
    assert task.schedule == ScheduleParams(interval=text)
    assert task.retrain.max_age == text
    assert duration(text) == span


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "6H", "1M", "0s", "06h", "-6h", "1.5h", "1d12h", "6h\n", "٣d"])
def test_any_other_span_is_refused_with_its_key_path(faults: Callable[..., list[str]], text: str) -> None:
    told = f"{text!r} is no span of time; write 15m, 6h, 30d or 2w"
    assert faults(schedule={"interval": text}, retrain={"max_age": text}) == [
        f"tasks.mood.schedule.interval: {told}",
        f"tasks.mood.retrain.max_age: {told}",
    ]


@given(count=st.integers(1, 999_999), unit=st.sampled_from("smhdw"))
def test_spans_are_proportional_to_their_number(count: int, unit: str) -> None:
    assert duration(f"{count}{unit}") == count * duration(f"1{unit}") > timedelta(0)


@given(text=st.text(max_size=8) | st.from_regex(r"[0-9]{1,8}[smhdwM]?", fullmatch=True))
def test_whatever_stands_for_a_span_only_value_error_leaves(text: str) -> None:
    with suppress(ValueError):
        assert duration(text) >= timedelta(seconds=1)


@pytest.mark.parametrize("schedule", [{}, {"timezone": "Europe/Berlin"}, {"cron": NIGHTLY, "interval": "6h"}])
def test_a_schedule_that_says_neither_or_both_is_refused(
    faults: Callable[..., list[str]], schedule: dict[str, Any]
) -> None:
    assert faults(schedule=schedule) == ["tasks.mood.schedule: a schedule has exactly one of cron and interval"]


@pytest.mark.parametrize("interval", ["1s", "9s", "367d", "999999w"])
def test_an_interval_too_short_or_too_long_is_refused_with_the_bounds(
    faults: Callable[..., list[str]], interval: str
) -> None:
    assert faults(schedule={"interval": interval}) == [
        f"tasks.mood.schedule: interval is {interval}; 10s is the shortest, 366d the longest"
    ]


def test_the_shortest_interval_is_taken_and_a_short_age_too(load: Load) -> None:
    task = load(schedule={"interval": "10s", "paused": True}, retrain={"max_age": "1s"})
    assert task.schedule == ScheduleParams(interval="10s", paused=True)
    assert task.retrain.watches


@pytest.mark.parametrize(
    ("section", "said", "told"),
    [
        ("schedule", {"crno": NIGHTLY}, "schedule.crno: unknown key, did you mean 'cron'?"),
        ("schedule", {"cron": 3}, "schedule.cron: Input should be a valid string (it is 3)"),
        ("schedule", {"interval": 3600}, "schedule.interval: Input should be a valid string (it is 3600)"),
        (
            "schedule",
            {"cron": NIGHTLY, "paused": "no"},
            "schedule.paused: Input should be a valid boolean (it is 'no')",
        ),
        ("schedule", NIGHTLY, "schedule: Input should be a valid dictionary"),
        ("retrain", {"floor": {"accuracy": "0.8"}}, "retrain.floor.accuracy: Input should be a valid number"),
        ("retrain", {"floor": {"accuracy": float("nan")}}, "retrain.floor.accuracy: Input should be a finite number"),
        (
            "retrain",
            {"when": ["weather"]},
            "retrain.when.0: Input should be 'data', 'base' or 'parameters' (it is 'weather')",
        ),
        ("retrain", {"when": "data"}, "retrain.when: Input should be a valid list (it is 'data')"),
        ("retrain", {"wen": []}, "retrain.wen: unknown key, did you mean 'when'?"),
        ("retrain", {"when": []}, "retrain: nothing would ever retrain this task; name a change in when, a floor or a"),
        (
            "retrain",
            {"floor": {"accuracy": 0.8, "chrf": 20.0}},
            "mood: retrain.floor names 'chrf'; this task is measured by accuracy, macro_f1, f1_bad, f1_good",
        ),
    ],
)
def test_other_faults_are_told_with_key_path(
    faults: Callable[..., list[str]], section: str, said: object, told: str
) -> None:
    found = faults(**{section: said})
    assert any(told in line for line in found), found
    assert all(line.startswith("tasks.mood") for line in found)


def test_faults_of_both_sections_are_told_at_once(faults: Callable[..., list[str]]) -> None:
    found = faults(schedule={"cron": "soon", "timezone": "Berlin"}, retrain={"when": ["weather"], "max_age": "old"})
    assert [line.split(": ")[0].removeprefix("tasks.mood.") for line in found] == [
        "schedule.cron",
        "schedule.timezone",
        "retrain.when.0",
        "retrain.max_age",
    ]


@pytest.mark.parametrize("retrain", [{"floor": {"accuracy": 0.8}}, {"max_age": "30d"}, {"floor": {"f1_bad": 0.0}}])
def test_a_task_may_be_retrained_for_what_is_watched_alone(load: Load, retrain: dict[str, Any]) -> None:
    task = load(retrain={"when": [], **retrain})
    assert task.retrain.when == []
    assert task.retrain.watches


@given(
    floor=st.dictionaries(st.sampled_from(["accuracy", "chrf", "rouge_l"]), st.floats(0, 1)),
    metrics=st.sets(st.sampled_from(["accuracy", "chrf", "rouge_l"])),
)
def test_what_is_unmeasured_is_the_floor_less_the_metrics(floor: dict[str, float], metrics: set[str]) -> None:
    asked = RetrainParams(floor=floor)
    assert set(asked.unmeasured(sorted(metrics))) == set(floor) - metrics
    assert asked.watches == bool(floor)
    assume(floor)
    assert asked.unmeasured(list(floor)) == []
