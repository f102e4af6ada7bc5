"""The records of params.yaml that say where bytes come from: base models, and rows with what becomes of them.

Faults inside one record are found here; params.py adds those between records. Nothing is fetched or read.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, FiniteFloat, field_validator, model_validator

from components.config.addresses import fault_of
from components.config.values import composed, same_labels
from components.records import Count, Record, Sha256, Share

Quoting = Literal["doubled", "backslash", "none"]

# MLflow takes names of 250 characters; a name may stand behind that of a contestant.
MAX_METRIC, MAX_READABLE = 200, 100


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


def f1_metrics(labels: Iterable[str]) -> dict[str, str]:
    """The metric of each label, one name for each, in the form that MLflow takes.

    Letters, digits and the like stand in it as they are, others become `_`. Where that is no name for MLflow
    (`/r/python/` is no normal path), is too long, or two labels would share it, the label's digest stands behind it.
    """
    plain = {label: "f1_" + re.sub(r"[^\w.\- :/]", "_", label) for label in labels}
    shared = Counter(plain.values())
    return {
        label: name
        if shared[name] == 1 and len(name) <= MAX_METRIC and posixpath.normpath(name) == name
        else f"{name[:MAX_READABLE].replace('/', '_')}_{hashlib.sha256(label.encode()).hexdigest()[:8]}"
        for label, name in plain.items()
    }


def _label_text(value: object) -> str:
    """A label or its word. The reader of params.yaml gives them as typed; other callers may give numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"the label {value!r} is not text; put it in quotes (YAML reads yes, no, null as others)")
    if not value.strip():
        raise ValueError(f"the label or word {value!r} is empty; write one, in quotes where it is of punctuation")
    return value


class BaseParams(Record):
    """One frozen base model: where its bytes come from and what they must be.

    ``sha256`` pins the fetched file, ``hash`` the model itself (see ``components/base/base_model.py``).
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
    ``ignore`` lists files and folders of the source that hold no rows, by name, path or pattern.
    ``delimiter`` and ``quoting`` say how a csv or tsv is written (rows/tables/dialect.py); without them it is detected.
    ``first_lines`` keeps the first non-empty lines of a text, ``max_tokens`` its first tokens.
    """

    source: Address
    sha256: Sha256 | None = None
    format: Literal["csv", "tsv", "jsonl", "parquet", "folder"]
    encoding: str = "utf-8"
    ignore: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    delimiter: str | None = None
    quoting: Quoting | None = None
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

    @field_validator("text", "target")
    @classmethod
    def _composed(cls, value: str) -> str:
        """As the names of columns are compared."""
        return composed(value)

    @field_validator("labels", mode="before")
    @classmethod
    def _list_of_labels(cls, value: object) -> object:
        """``[a, b]`` is short for ``{a: a, b: b}``. Whole numbers are taken as the text that they are written as."""
        if isinstance(value, dict):
            named = {_label_text(label): _label_text(word) for label, word in value.items()}
            if len(named) != len(value):
                raise ValueError(f"a label stands twice in {list(value)}")
            return named
        if value is None:
            return None
        if not isinstance(value, list):
            raise ValueError(
                f"{value!r} is no list; write [good, bad], or each label with its word, {{good: great, ...}}"
            )
        labels = [_label_text(label) for label in value]
        twice = [label for label, count in Counter(labels).items() if count > 1]
        if twice:
            raise ValueError(f"a label stands twice in {value}: {twice[0]!r}")
        return {label: label for label in labels}

    @field_validator("ranges", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """YAML has lists, not tuples."""
        if isinstance(value, dict):
            return {label: tuple(pair) if isinstance(pair, list) else pair for label, pair in value.items()}
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, value: str | None) -> str | None:
        """``tab`` and a tab as YAML leaves it without double quotes are the character that they mean."""
        if value in ("tab", "\\t"):
            return "\t"
        if value is not None and (len(value) != 1 or value in '"\\\r\n'):
            raise ValueError(f'{value!r} is not one character that can part cells; write ",", ";", "|" or tab')
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
        if twins := same_labels(self.labels or ()):
            raise ValueError(
                f"two labels look the same and differ in their bytes: {twins[0]!a} and {twins[1]!a}; keep one"
            )
        if self.ranges is not None and (self.labels is None or set(self.ranges) != set(self.labels)):
            raise ValueError(
                f"ranges names {sorted(self.ranges)} and labels {sorted(self.labels or [])}; they must agree"
            )
        if self.columns is not None and self.format not in ("csv", "tsv"):
            raise ValueError(f"columns names the columns of a csv or tsv without a header; format is {self.format}")
        for key in ("delimiter", "quoting"):
            if getattr(self, key) is not None and self.format not in ("csv", "tsv"):
                raise ValueError(f"{key} says how a csv or tsv is written; format is {self.format}")
        for label, (low, high) in (self.ranges or {}).items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"the range of {label!r} is empty: {low:g} is above {high:g}")
        _check_pin(self.source, self.sha256)
        return self
