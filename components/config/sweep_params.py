"""The record of params.yaml that says among which settings a sweep looks, and the settings that it would try.

A space is written as the method's own section is, with a list of values, or a range, wherever one value would stand.
How trials are trained and which of them wins is said in ``sweep.py``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from components.records import Count, MethodName, Positive, Record

Space = dict[str, Any]
Choice = dict[str, Any]  # dotted name of a setting -> its value
MAX_TRIALS = 256


class Range(Record):
    """Any value between the two, drawn so that every order of magnitude is as likely as another."""

    low: Positive
    high: Positive

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must be the smaller")
        return self


class SweepParams(Record):
    """``trials`` settings out of the space of each method, of which the better half goes on at each halving.

    ``at_once``: so many trials train side by side in one batch. ``seed`` draws the trials and moves nothing else.
    """

    trials: Annotated[int, Field(ge=2, le=MAX_TRIALS)] = 8
    at_once: Count = 8
    seed: Annotated[int, Field(ge=0)] = 0
    prompt: Space | None = None
    prefix: Space | None = None

    @model_validator(mode="after")
    def _something_to_choose(self) -> Self:
        if not self.spaces:
            raise ValueError("a sweep has a space for prompt, for prefix or for both")
        for method, space in self.spaces.items():
            named = dict(leaves(space))
            for name, values in named.items():
                if not isinstance(values, Range | list) or values == []:
                    raise ValueError(
                        f"{method}.{name} is {values!r}; write a list of values, or {{low: ..., high: ...}}"
                    )
            if not named:
                raise ValueError(f"{method} names no setting to choose")
        return self

    @property
    def spaces(self) -> dict[MethodName, Space]:
        """The space of each method that has one."""
        given: tuple[tuple[MethodName, Space | None], ...] = (("prompt", self.prompt), ("prefix", self.prefix))
        return {method: space for method, space in given if space is not None}


def leaves(space: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the settings in a space, with the values that they may take.

    Raises:
        ValueError: a range that is none.
    """
    for name, value in space.items():
        if isinstance(value, dict) and {"low", "high"} & set(value):
            yield f"{above}{name}", _range(f"{above}{name}", value)
        elif isinstance(value, dict):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _range(name: str, value: Mapping[str, Any]) -> Range:
    try:
        return Range.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        message = str(fault["msg"]).removeprefix("Value error, ")
        raise ValueError(f"{name}: {'.'.join([*map(str, fault['loc']), message])}") from error


def samples(space: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that a setting may take, one at a time; of a range its two ends."""
    for name, values in leaves(space):
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            yield name, value


def apply_overrides(settings: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """A method's section, as a plain mapping, with the choice put into it."""
    made = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for name, value in choice.items():
        *above, last = name.split(".")
        here = made
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
    return made


def choices(space: Mapping[str, Any], count: int, seed: int) -> list[Choice]:
    """Different choices out of a space: all of it where it holds no more, else drawn at random.

    The same space, count and seed give the same choices, in the same order.
    """
    named = sorted(leaves(space))
    lists = [values for _, values in named if not isinstance(values, Range)]
    names, whole = [name for name, _ in named], math.prod(len(values) for values in lists)
    if len(lists) == len(named) and whole <= count:
        return [dict(zip(names, values, strict=True)) for values in product(*lists)]
    drawn, found = random.Random(seed), []
    # A small grid beside a range is drawn again and again; without a range there are more than enough.
    for _ in range(100 * count):
        choice = {name: _drawn(values, drawn) for name, values in named}
        if choice not in found:
            found.append(choice)
        if len(found) == count:
            break
    return found


def _drawn(values: Range | Sequence[Any], drawn: random.Random) -> Any:
    if not isinstance(values, Range):
        return drawn.choice(values)
    # Three digits are as fine as one can tell settings apart, and can be typed.
    return float(f"{math.exp(drawn.uniform(math.log(values.low), math.log(values.high))):.3g}")
