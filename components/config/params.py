"""params.yaml as strict, frozen records; every fault reported at once, each with its key path.

What to run is written here and read once, at the edge of a command. Where things are (tracking server, buckets,
folders) is said by environment variables under the tools' own names, and this module does not know them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, FiniteFloat, ValidationError, field_validator, model_validator

# Named "as" themselves: whoever needs a record of params.yaml finds it here.
from components.config.data_params import BaseParams as BaseParams
from components.config.data_params import DataParams as DataParams
from components.config.data_params import SplitParams as SplitParams
from components.config.data_params import f1_metrics
from components.config.method_params import PrefixParams as PrefixParams
from components.config.method_params import PromptParams as PromptParams
from components.config.method_params import TrainingParams as TrainingParams
from components.config.params_faults import nearest, read_mapping, say
from components.config.schedule_params import RetrainParams, ScheduleParams
from components.config.sweep_params import SweepParams, apply_overrides, choices, samples
from components.errors import ParamsError, sanitized
from components.records import SPLITS as SPLITS
from components.records import Count as Count
from components.records import MethodName as MethodName
from components.records import Record as Record
from components.records import Sha256 as Sha256
from components.records import Split as Split

MAX_FAULTS = 100  # told of one file; nobody reads more at once

# What is a text whatever it looks like: a label `no` is a word and no boolean, a column `1` no number.
TYPED = frozenset({"labels", "columns", "text", "target"})

# Names become MLflow model names, DVC stage names and folders: one alphabet that all three take as it is.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


class BaselineParams(Record):
    """What every adapter is measured beside. Both choices are made on the validation split."""

    hard_prompts: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
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
    """One task: its base, data, wording, method, gate, and when it is retrained."""

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
    schedule: ScheduleParams | None = None
    retrain: RetrainParams = RetrainParams()
    sweep: SweepParams | None = None

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
        named = {f"f1_{label}": name for label, name in f1_metrics(self.data.labels or ()).items()}
        gate = [rule.model_copy(update={"metric": named.get(rule.metric, rule.metric)}) for rule in self.gate]
        object.__setattr__(self, "gate", gate)  # `f1_<label>` means the label's metric, whatever its characters became
        metrics, baselines = frozenset(self.metrics), self.measured_baselines
        for name in self.retrain.unmeasured(self.metrics):
            raise ValueError(f"retrain.floor names {name!r}; this task is measured by {', '.join(self.metrics)}")
        for rule in self.gate:
            if rule.metric not in metrics:
                raise ValueError(
                    f"gate asks for the metric {rule.metric!r}{nearest(rule.metric, self.metrics)}; "
                    f"this task is measured by {', '.join(self.metrics)}"
                )
            for name in rule.beats if isinstance(rule.beats, list) else ():
                if name not in baselines:
                    raise ValueError(
                        f"gate wants {name} beaten, which this task does not measure (majority and linear need "
                        "data.labels, hard_prompt needs baselines.hard_prompts, in_context baselines.in_context)"
                    )
        return self

    @model_validator(mode="after")
    def _sweep_can_be_tried(self) -> Self:
        """What the settings do not take, a value or several together, would be told only when its trial begins."""
        for method, space in (self.sweep.spaces if self.sweep else {}).items():
            for name, value in samples(space):
                if fault := self._refused(method, {name: value}):
                    raise ValueError(f"sweep.{method}.{name} cannot be {value!r}: {fault}")
            for choice in choices(space, self.sweep.trials, self.sweep.seed) if self.sweep else ():
                if fault := self._refused(method, choice):
                    raise ValueError(f"sweep.{method} would try {choice} together: {fault}")
        return self

    def _refused(self, method: MethodName, choice: Mapping[str, Any]) -> str:
        """Why the task cannot be trained by such settings; empty if it can."""
        try:
            self.with_settings(method, choice)
        except ValidationError as error:
            return error.errors(include_url=False)[0]["msg"]
        return ""

    def with_settings(self, method: MethodName, choice: Mapping[str, Any]) -> TaskParams:
        """The task trained by a method with other settings of it, each by its dotted name.

        Raises:
            ValidationError: settings that there are not, or that do not go together.
        """
        settings = self.settings(method)
        chosen = type(settings).model_validate(apply_overrides(settings.model_dump(), choice))
        return self.model_copy(update={"method": method, method: chosen})

    @property
    def metrics(self) -> Sequence[str]:
        """Names of what evaluation measures for this task."""
        if self.data.labels is None:
            return ("exact_match", "chrf", "rouge_l")
        return ("accuracy", "macro_f1", *f1_metrics(self.data.labels).values())

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
    tasks: Annotated[dict[str, TaskParams], BeforeValidator(lambda given: {} if given is None else given)]

    def task(self, name: str) -> TaskParams:
        """The task's record, or a ParamsError that names the near misses."""
        if name not in self.tasks:
            raise ParamsError(
                f"params.yaml has no task {name!r}{nearest(name, self.tasks)}; it has {sorted(self.tasks)}"
            )
        return self.tasks[name]

    def base(self, name: str) -> str:
        """The name of a declared base, or a ParamsError that names the near misses."""
        if name not in self.bases:
            raise ParamsError(
                f"params.yaml has no base {name!r}{nearest(name, self.bases)}; it has {sorted(self.bases)}"
            )
        return name


def load(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: naming every fault of the file at once (up to a hundred), a line each, with its key path.
    """
    raw = read_mapping(path, texts=TYPED)
    found = _cross_faults(raw)
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        found = chain((say(dict(fault), Params) for fault in error.errors(include_url=False)), found)
    # As a mapping: a label that is no text is wrong as a key and as a word.
    faults = list(dict.fromkeys(islice(found, MAX_FAULTS)))
    if faults:
        more = "more than " * (next(found, None) is not None)
        raise ParamsError("\n".join([f"{path} has {more}{len(faults)} fault{'s' * (len(faults) > 1)}:", *faults]))
    return params


def _cross_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    """Faults between records, found on the raw mapping so that they are told together with those inside records."""
    bases, tasks = raw.get("bases"), raw.get("tasks")
    for section, entries in (("bases", bases), ("tasks", tasks)):
        for name in entries if isinstance(entries, dict) else ():
            if not NAME.fullmatch(str(name)):
                said = sanitized(str(name))
                yield f"  {section}.{said}: a name is 1 to 64 lower-case letters, digits and inner hyphens"
    if not isinstance(tasks, dict):
        return
    for name, task in tasks.items():
        base = task.get("base") if isinstance(task, dict) else None
        if isinstance(base, str) and isinstance(bases, dict) and base not in bases:
            yield f"  tasks.{sanitized(str(name))}.base: no base {sanitized(base)!r} under bases{nearest(base, bases)}"
        retrain = task.get("retrain") if isinstance(task, dict) else None
        other = retrain.get("warm_start") if isinstance(retrain, dict) else None
        if isinstance(other, str) and (other not in tasks or other == name):
            near = nearest(other, [each for each in tasks if each != name])
            yield (
                f"  tasks.{sanitized(str(name))}.retrain.warm_start: it is true, false or another task's name, and"
                f" there is no other task {sanitized(other)!r}{near}"
            )
