"""What an adapter says of itself, in the three forms that it says it: manifest, PEFT's configuration, model card.

Pure records and texts. This module reads and writes no file; `adapter_folder.py` does, and checks them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from components.base.base_hash import BaseHash
from components.base.machine import Machine
from components.config.params import Count, MethodName, Record, Sha256
from components.markdown import code, escaped
from components.provenance.fingerprint import recorded_fingerprint

PEFT_VERSION = "0.21.2"  # whose layout this is; tests/registry/artifact/test_artifact_peft.py holds it to that
MAX_FILE = 1 << 30  # 512 virtual tokens of a 32-layer base without grouped heads come to half of this

# So far beyond every model that their product is a number to compare and print, whoever wrote the manifest.
Size = Annotated[int, Field(ge=1, le=1 << 24)]


class Shape(Record):
    """The base's sizes that the tensor must agree with: L, Hkv, D, H and the number of query heads."""

    layers: Size
    kv_heads: Size
    head_size: Size
    hidden: Size
    heads: Size


class BasePin(Record):
    """The base that the adapter was trained on: its name here, its hash, and the three digests that make the hash."""

    name: str
    hash: Sha256
    weights: Sha256
    config: Sha256
    tokenizer: Sha256

    @model_validator(mode="after")
    def _whole(self) -> Self:
        made = BaseHash(self.weights, self.config, self.tokenizer).value
        if made != self.hash:
            raise ValueError(f"the three digests make the base hash {made}, not {self.hash}")
        return self


class DataPin(Record):
    """The prepared rows: the hash of their content, and DVC's complete lock entry for getting them back."""

    hash: Sha256
    lock: dict[str, JsonValue]


class CodePin(Record):
    """Which code made the adapter; ``git_commit`` is empty outside a git checkout."""

    version: str
    git_commit: str


class StartPin(Record):
    """The version that training went on from, beside a cold start, and its manifest's digest. task: whose it is, if it
    is another task's; left out where it is not."""

    version: Count
    digest: Sha256
    task: str = Field(default="", exclude_if=lambda task: not task)


class FileDigest(Record):
    """What a file of the folder must be."""

    size: Annotated[int, Field(ge=0, le=MAX_FILE)]
    sha256: Sha256


class Draft(Record):
    """Everything that a manifest says and that the folder's own bytes do not tell.

    ``recipe`` is the training code's (provenance/fingerprint.py) and ``machine`` what it ran on; None where an adapter
    came from elsewhere. ``label_order`` is that of ``labels``, which JSON need not keep: a tie goes to the first.
    """

    task: str
    method: MethodName
    kind: Literal["classification", "generation"]
    virtual_tokens: Size
    shape: Shape
    base: BasePin
    data: DataPin
    fingerprint: Sha256
    recipe: Count | None
    seed: Annotated[int, Field(ge=0)]
    params: dict[str, JsonValue]
    template: str
    labels: dict[str, str] | None
    label_order: list[str] | None
    max_tokens: Count
    max_new_tokens: Count
    metrics: dict[str, FiniteFloat]
    code: CodePin
    libraries: dict[str, str]
    machine: Machine | None
    created: str
    # Left out where there is none, as it was before there was such a thing: digests stay what they were.
    start: StartPin | None = Field(default=None, exclude_if=lambda start: start is None)

    @model_validator(mode="before")
    @classmethod
    def _labels_in_order(cls, said: Any) -> Any:
        """Labels as they were ordered for training. A draft that is made here need not say the order twice."""
        if not isinstance(said, dict):
            return said
        labels: dict[str, Any] = said["labels"] if isinstance(said.get("labels"), dict) else {}
        order = said.get("label_order", list(labels) or None)
        if sorted(map(repr, order if isinstance(order, list) else [])) != sorted(map(repr, labels)):
            raise ValueError(f"label_order is {order}, the labels are {list(labels)}; they must agree")
        ordered = {"labels": {label: labels[label] for label in order}} if order else {}
        return {**said, **ordered, "label_order": order}

    @property
    def tensor_shape(self) -> tuple[int, int]:
        """[P, H] for a soft prompt, [P, L*2*Hkv*D] for a key/value prefix."""
        s = self.shape
        return self.virtual_tokens, s.hidden if self.method == "prompt" else s.layers * 2 * s.kv_heads * s.head_size


class Manifest(Draft):
    """A draft with the digests of the files beside it and, over all of that, its own."""

    format: Literal[1]
    files: dict[str, FileDigest]
    digest: Sha256


def trained_fingerprint(said: Draft, *, settings_alone: bool = False) -> str | None:
    """The fingerprint of what a draft says; None where it was not trained here.

    Args:
        settings_alone: without base and rows, as ``components.provenance.fingerprint.settings_fingerprint`` gives it.
    """
    settings, instruction = said.params.get(said.method), said.params.get("instruction")
    if said.recipe is None or settings is None or instruction is None:
        return None
    return recorded_fingerprint(
        base="" if settings_alone else said.base.hash,
        data="" if settings_alone else said.data.hash,
        instruction=str(instruction),
        template=said.template,
        labels=said.labels,
        max_tokens=said.max_tokens,
        max_new_tokens=said.max_new_tokens,
        method=said.method,
        settings=settings,
        recipe=said.recipe,
        start=said.start.digest if said.start and not settings_alone else None,
    )


def peft_config(draft: Draft) -> dict[str, JsonValue]:
    """The keys that PEFT needs, and no other. PEFT counts a prefix's heads and width in key/value terms."""
    shape = draft.shape
    shared: dict[str, JsonValue] = {
        "peft_version": PEFT_VERSION,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": draft.base.name,
        "inference_mode": True,
        "num_virtual_tokens": draft.virtual_tokens,
        "num_layers": shape.layers,
        "num_transformer_submodules": 1,
    }
    if draft.method == "prompt":
        width: dict[str, JsonValue] = {"token_dim": shape.hidden, "num_attention_heads": shape.heads}
        return {**shared, **width, "peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}
    token_dim = shape.kv_heads * shape.head_size
    width = {"token_dim": token_dim, "num_attention_heads": shape.kv_heads, "encoder_hidden_size": token_dim}
    return {**shared, **width, "peft_type": "PREFIX_TUNING", "prefix_projection": False}


def card(draft: Draft) -> str:
    """A model card in the hub's form: front matter for machines, then what a person asks first."""
    kind = {"prompt": "soft prompt (prompt tuning)", "prefix": "key/value prefix (prefix tuning)"}[draft.method]
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in sorted(draft.metrics.items()))
    labels = ", ".join(
        f"{escaped(label)} (asked as {code(repr(word))})" for label, word in (draft.labels or {}).items()
    )
    return f"""---
library_name: peft
pipeline_tag: text-generation
base_model: {draft.base.name}
tags: [preface, {draft.method}-tuning, {draft.kind}]
---

# {draft.task}

A {kind} of {draft.virtual_tokens} virtual tokens for the frozen base model {draft.base.name}.
It runs on that base alone: base hash `{draft.base.hash}`.

- Input, through the template: {code(json.dumps(draft.template, ensure_ascii=False))}
- {f"Labels: {labels}" if labels else f"Answers with free text, at most {draft.max_new_tokens} tokens"}
- Texts longer than {draft.max_tokens} tokens are cut at the end.
- Prepared data `{draft.data.hash}`, seed {draft.seed}, fingerprint `{draft.fingerprint}`
- Made {draft.created} by preface {draft.code.version}, git commit `{draft.code.git_commit or "none"}`

| test split | |
|---|---|
{metrics}

Load it with PEFT: `PeftModel.from_pretrained(base, folder)`. `manifest.json` says all of this for machines.
"""
