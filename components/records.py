"""Strict, frozen records, and the small types that they are made of. Knows no record in particular."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MethodName = Literal["prompt", "prefix"]
METHODS: tuple[MethodName, ...] = ("prompt", "prefix")


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is not a sha256: 64 lower-case hexadecimal digits")
    return value


Sha256 = Annotated[str, AfterValidator(_sha256)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class Record(BaseModel):
    """Strict (no silent conversion), frozen, and no key that is not declared."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
