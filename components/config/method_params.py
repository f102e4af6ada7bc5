"""The records of params.yaml that say how an adapter is trained: the loop, and each method's own settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from components.records import Count, Positive, Record, Share

# Far beyond the bound float32 itself overflows: told with its key path, and not by a crash in the first step.
LearningRate = Annotated[Positive, Field(le=100)]
# What every library takes; ours are multiplied on the way to torch, which takes 64 bits (batches.py).
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class TrainingParams(Record):
    """The loop's settings. Steps count optimizer steps of ``batch_size * accumulate`` rows.

    Twice the steps of half the rows did better than 200 of 16 in about the same time (docs/experiments.md).
    ``recompute`` keeps no activations for the gradient but makes them again: less memory, a third more work.
    ``processes``: so many take each step together, every one on a device of its own and on its share of the rows.
    """

    steps: Count = 400
    batch_size: Count = 8
    accumulate: Count = 1
    learning_rate: LearningRate
    warmup: Share = 0.1
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    clip_norm: Positive = 1.0
    evaluate_every: Count = 50
    patience: Count = 4
    seed: Seed = 0
    recompute: bool = Field(default=False, exclude_if=lambda on: not on)  # as with AdapterParams.frozen_first
    processes: Count = Field(default=1, exclude_if=lambda count: count == 1)


class PromptTraining(TrainingParams):
    """The defaults that prompt tuning was measured best with."""

    learning_rate: LearningRate = 0.02


class PrefixTraining(TrainingParams):
    """The defaults that prefix tuning was measured best with."""

    learning_rate: LearningRate = 0.005


class AdapterParams(Record):
    """What both methods may be told of their virtual tokens: how many, and what they begin as.

    ``frozen_first`` leaves the first as it begins: a model rests much of its attention on the first token, whatever it
    says (Xiao et al. 2023, arXiv:2309.17453), and training need not move that.
    """

    virtual_tokens: Count = 20
    init: Literal["text", "examples", "labels", "vocabulary", "random"] = "text"
    # Left out where it says nothing, as it was before there was such a setting: fingerprints stay what they were.
    frozen_first: bool = Field(default=False, exclude_if=lambda on: not on)

    @model_validator(mode="after")
    def _some_are_trained(self) -> Self:
        if self.frozen_first and self.virtual_tokens == 1:
            raise ValueError("virtual_tokens is 1 and frozen_first leaves that one alone: nothing would be trained")
        return self


class PromptParams(AdapterParams):
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): P input vectors."""

    training: PromptTraining = PromptTraining()


class PrefixParams(AdapterParams):
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190): keys and values of P tokens in every layer.

    ``reparameterization`` is the width of the feed-forward network that makes them in training, null for none.
    ``layers`` trains those of the last so many layers alone, null all of them: less work a step (docs/experiments.md).
    """

    reparameterization: Count | None = None
    layers: Count | None = Field(default=None, exclude_if=lambda layers: layers is None)
    training: PrefixTraining = PrefixTraining()

    @model_validator(mode="after")
    def _begun_from_text(self) -> Self:
        if self.layers and self.init == "random":
            raise ValueError(f"layers is {self.layers} and init random: what is not trained must say something")
        return self
