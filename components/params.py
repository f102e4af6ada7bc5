"""params.yaml as strict, frozen records; every fault reported at once, each with its key path.

What to run is written here and read once, at the edge of a command. Where things are (tracking server, buckets,
folders) is said by environment variables under the tools' own names, and this module does not know them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from components.errors import ParamsError
from components.params_faults import nearest, read_mapping, say

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MethodName = Literal["prompt", "prefix"]
# Names become MLflow model names, DVC stage names and folders: one alphabet that all three take as it is.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is not a sha256: 64 lower-case hexadecimal digits")
    return value


def _check_pin(source: str, sha256: str | None) -> None:
    """What pip downloads is checked before any of its code runs, so the digest must be there."""
    if source.startswith("pypi://") and sha256 is None:
        raise ValueError("a pypi:// source needs sha256, the digest of the distribution's file")


Sha256 = Annotated[str, AfterValidator(_sha256)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


def f1_metric(label: str) -> str:
    """The metric of one label, in the letters that MLflow takes for a name."""
    return "f1_" + re.sub(r"[^\w.\- :/]", "_", label)


class Record(BaseModel):
    """Strict (no silent conversion), frozen, and no key that is not declared."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class BaseParams(Record):
    """One frozen base model: where its bytes come from and what they must be.

    ``sha256`` pins the fetched file, ``hash`` the model itself (see ``components/base_model.py``).
    """

    source: str
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

    source: str
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


class TrainingParams(Record):
    """The loop's settings. Steps count optimizer steps of ``batch_size * accumulate`` rows."""

    steps: Count = 200
    batch_size: Count = 16
    accumulate: Count = 1
    learning_rate: Positive
    warmup: Share = 0.1
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    clip_norm: Positive = 1.0
    evaluate_every: Count = 50
    patience: Count = 4
    seed: Annotated[int, Field(ge=0)] = 0


class PromptTraining(TrainingParams):
    """The defaults that prompt tuning was measured best with."""

    learning_rate: Positive = 0.01


class PrefixTraining(TrainingParams):
    """The defaults that prefix tuning was measured best with."""

    learning_rate: Positive = 0.005


class PromptParams(Record):
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): P input vectors."""

    virtual_tokens: Count = 20
    init: Literal["text", "labels", "vocabulary", "random"] = "text"
    training: PromptTraining = PromptTraining()


class PrefixParams(Record):
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): keys and values of P tokens in every layer.

    ``reparameterization`` is the width of the feed-forward network that makes them in training, null for none.
    """

    virtual_tokens: Count = 20
    init: Literal["text", "random"] = "text"
    reparameterization: Count | None = None
    training: PrefixTraining = PrefixTraining()


class BaselineParams(Record):
    """What every adapter is measured beside. Both choices are made on the validation split."""

    hard_prompts: list[str] = Field(default_factory=list)
    in_context: list[Count] = Field(default_factory=lambda: [2, 4])


BASELINES = ("majority", "linear", "hard_prompt", "in_context")


class GateRule(Record):
    """One condition on one metric: exactly one of ``threshold`` and ``beats``.

    ``beats`` is ``champion`` or a list of baselines; ``margin`` is by how much (negative: how much worse may pass).
    """

    metric: str
    direction: Literal["higher", "lower"]
    threshold: FiniteFloat | None = None
    beats: Literal["champion"] | list[str] | None = None
    margin: FiniteFloat = 0.0

    @field_validator("beats", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value == [] or (isinstance(value, str) and value != "champion"):
            raise ValueError(f"beats is {value!r}; it is champion or a list of {', '.join(BASELINES)}")
        for name in value if isinstance(value, list) else ():
            if name not in BASELINES:
                raise ValueError(
                    f"no baseline {name!r}{nearest(str(name), BASELINES)}; they are {', '.join(BASELINES)}"
                )
        return value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.threshold is None) == (self.beats is None):
            raise ValueError("a rule has exactly one of threshold and beats")
        return self


class TaskParams(Record):
    """One task: its base, data, wording, method, gate."""

    base: str
    data: DataParams
    instruction: Annotated[str, Field(min_length=1)]
    template: str = "{text}\n"
    method: MethodName = "prompt"
    prompt: PromptParams = PromptParams()
    prefix: PrefixParams = PrefixParams()
    max_new_tokens: Count = 64
    baselines: BaselineParams = BaselineParams()
    gate: Annotated[list[GateRule], Field(min_length=1)]
    promotion: Literal["manual", "auto"] = "manual"

    @field_validator("template")
    @classmethod
    def _one_text(cls, value: str) -> str:
        fields = [part[1:] for part in string.Formatter().parse(value) if part[1] is not None]
        if fields != [("text", "", None)]:
            names = [name for name, _, _ in fields]
            raise ValueError(
                f"template must hold {{text}} once, as it stands here, and no other field; it holds {names}"
            )
        return value

    @model_validator(mode="after")
    def _gate_can_be_decided(self) -> Self:
        """A rule on what is never measured would refuse every candidate, and say so only after the training."""
        for rule in self.gate:
            if rule.metric not in self.metrics:
                raise ValueError(
                    f"gate asks for the metric {rule.metric!r}{nearest(rule.metric, self.metrics)}; "
                    f"this task is measured by {', '.join(self.metrics)}"
                )
            for name in rule.beats if isinstance(rule.beats, list) else ():
                if name not in self.measured_baselines:
                    raise ValueError(
                        f"gate wants {name} beaten, which this task does not measure (majority and linear need "
                        "data.labels, hard_prompt needs baselines.hard_prompts, in_context baselines.in_context)"
                    )
        return self

    @property
    def metrics(self) -> Sequence[str]:
        """Names of what evaluation measures for this task."""
        if self.data.labels is None:
            return ("exact_match", "chrf", "rouge_l")
        return ("accuracy", "macro_f1", *map(f1_metric, self.data.labels))

    @property
    def measured_baselines(self) -> Sequence[str]:
        """Names of the baselines that evaluation sets this task's candidate beside."""
        possible = (self.data.labels, self.data.labels, self.baselines.hard_prompts, self.baselines.in_context)
        return [name for name, given in zip(BASELINES, possible, strict=True) if given]

    @property
    def generates(self) -> bool:
        """Whether the target is free text and not one of a few labels."""
        return self.data.labels is None

    def settings(self, method: MethodName) -> PromptParams | PrefixParams:
        """The section of a method."""
        return self.prompt if method == "prompt" else self.prefix


class Params(Record):
    """The whole of params.yaml."""

    bases: dict[str, BaseParams]
    tasks: dict[str, TaskParams]

    def task(self, name: str) -> TaskParams:
        """The task's record, or a ParamsError that names the near misses."""
        if name not in self.tasks:
            raise ParamsError(
                f"params.yaml has no task {name!r}{nearest(name, self.tasks)}; it has {sorted(self.tasks)}"
            )
        return self.tasks[name]


def load(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: naming every fault of the file at once, a line each, with its key path.
    """
    raw = read_mapping(path)
    faults = list(_cross_faults(raw))
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        faults = [say(dict(fault), Params) for fault in error.errors()] + faults
    if faults:
        faults = list(dict.fromkeys(faults))  # a label that is no text is wrong as a key and as a word
        raise ParamsError("\n".join([f"{path} has {len(faults)} fault{'s' * (len(faults) > 1)}:", *faults]))
    return params


def _cross_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    """Faults between records, found on the raw mapping so that they are told together with those inside records."""
    bases, tasks = raw.get("bases"), raw.get("tasks")
    for section, entries in (("bases", bases), ("tasks", tasks)):
        for name in entries if isinstance(entries, dict) else ():
            if not NAME.fullmatch(str(name)):
                yield f"  {section}.{name}: a name is 1 to 64 lower-case letters, digits and inner hyphens"
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        base = task.get("base") if isinstance(task, dict) else None
        if isinstance(base, str) and isinstance(bases, dict) and base not in bases:
            yield f"  tasks.{name}.base: no base {base!r} under bases{nearest(base, bases)}"
