"""The records of params.yaml that say where bytes come from: base models, and rows with what becomes of them.

Faults inside one record are found here; params.py adds those between records. Nothing is fetched or read.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, FiniteFloat, field_validator, model_validator

from components.addresses import fault_of
from components.records import Count, Record, Sha256, Share


def _sound(source: str) -> str:
    if fault := fault_of(source):
        raise ValueError(fault)
    return source


# An address that may be written down as it is.
Address = Annotated[str, AfterValidator(_sound)]


def _check_pin(source: str, sha256: str | None) -> None:
    """Nothing else says what the bytes of a distribution are, so the digest must be there."""
    if source.startswith("pypi://") and sha256 is None:
        raise ValueError("a pypi:// source needs sha256, the digest of the distribution's file")


def f1_metric(label: str) -> str:
    """The metric of one label, in the letters that MLflow takes for a name."""
    return "f1_" + re.sub(r"[^\w.\- :/]", "_", label)


class BaseParams(Record):
    """One frozen base model: where its bytes come from and what they must be.

    ``sha256`` pins the fetched file, ``hash`` the model itself (see ``components/base_model.py``).
    """

    source: Address
    sha256: Sha256 | None = None
    hash: Sha256

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        _check_pin(self.source, self.sha256)
        return self


class SplitParams(Record):
    """Shares of the three splits; a row's split follows from its own text alone."""

    train: Share = 0.7
    validation: Share = 0.1
    test: Share = 0.2

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + validation + test is {total:g}; it must be 1")
        if min(self.train, self.validation, self.test) <= 0:
            raise ValueError("each of train, validation and test needs a share above 0")
        return self


class LimitParams(Record):
    """At most this many rows of each split are kept, the same ones every time."""

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class DataParams(Record):
    """Where a task's rows come from and how they become (text, target).

    ``text`` and ``target`` name columns; dots reach into JSON objects, and lists of strings are joined by a space.
    ``labels`` maps each label to the word that the model is asked for; without it the task is a generation task.
    ``ranges`` turns a numeric target into a label: {label: [low, high]}, either end open with null; outside
    all, dropped.
    ``first_lines`` keeps the first non-empty lines of a text, ``max_tokens`` its first tokens.
    """

    source: Address
    sha256: Sha256 | None = None
    format: Literal["csv", "tsv", "jsonl", "parquet", "folder"]
    encoding: str = "utf-8"
    columns: list[str] | None = None
    text: str = "text"
    target: str = "target"
    labels: dict[str, str] | None = None
    ranges: dict[str, tuple[FiniteFloat | None, FiniteFloat | None]] | None = None
    first_lines: Count | None = None
    max_tokens: Count = 256
    max_bad_rows: Share = 0.01
    split: SplitParams = SplitParams()
    limit: LimitParams = LimitParams()

    @field_validator("labels", mode="before")
    @classmethod
    def _list_of_labels(cls, value: object) -> object:
        """``[a, b]`` is short for ``{a: a, b: b}``."""
        if not isinstance(value, list):
            return value
        for label in value:
            if not isinstance(label, str):
                raise ValueError(f"the label {label!r} is not text; put it in quotes (YAML reads yes, no, 1 as others)")
        if len(set(value)) != len(value):
            raise ValueError(f"a label stands twice in {value}")
        return {label: label for label in value}

    @field_validator("ranges", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """YAML has lists, not tuples."""
        if isinstance(value, dict):
            return {label: tuple(pair) if isinstance(pair, list) else pair for label, pair in value.items()}
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError as error:
            raise ValueError(f"Python has no text encoding {value!r}; utf-8 and latin-1 are common ones") from error
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError(f"labels has {len(self.labels)} entry; a classification task needs two or more")
        if self.labels is not None and len(set(self.labels.values())) != len(self.labels):
            raise ValueError(f"two labels share one word in {dict(self.labels)}; give each its own")
        if self.labels is not None and len(set(map(f1_metric, self.labels))) != len(self.labels):
            raise ValueError(
                f"two labels of {list(self.labels)} differ in signs alone; give them other names in the data"
            )
        if self.ranges is not None and (self.labels is None or set(self.ranges) != set(self.labels)):
            raise ValueError(
                f"ranges names {sorted(self.ranges)} and labels {sorted(self.labels or [])}; they must agree"
            )
        if self.columns is not None and self.format not in ("csv", "tsv"):
            raise ValueError(f"columns names the columns of a csv or tsv without a header; format is {self.format}")
        for label, (low, high) in (self.ranges or {}).items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"the range of {label!r} is empty: {low:g} is above {high:g}")
        _check_pin(self.source, self.sha256)
        return self
