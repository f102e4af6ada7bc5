"""What PEFT's configuration says of an adapter: which kinds of PEFT's are prefixes, and what the others are.

An adapter that brings trained parts of its base belongs to an altered base, whatever the base that it names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config.params import MethodName
from components.errors import ArtifactError, sanitized
from components.io import plain_file
from registry.artifact import adapter_folder
from registry.artifact.adapter_folder import TENSOR

METHODS: Mapping[str, MethodName] = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
SIZES = ("num_layers", "token_dim", "num_attention_heads")
MAX_SIZE = 1 << 24
REMEDY = "save the adapter again with PEFT's save_pretrained, or ask whoever gave it to you"
PREFIXES_ALONE = "Preface keeps adapters that are prefixes, and no others"
# Kinds of PEFT's that people mistake for a prefix, and what they are.
_KINDS = {
    "LORA": "LoRA changes the base's weight matrices",
    "ADALORA": "AdaLoRA changes the base's weight matrices",
    "IA3": "IA3 scales the base's activations",
    "P_TUNING": "P-tuning makes its prompt by an encoder",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning multiplies its prompt by a matrix for each task",
    "ADAPTION_PROMPT": "LLaMA-Adapter mixes its prompt in by gates of its own",
    "CPT": "context-aware prompt tuning adds its prompt to tokens of a text",
}
_TASKS = {
    "SEQ_CLS": "a classification head over the base, which is no prefix",
    "TOKEN_CLS": "a head over each token, which is no prefix",
    "QUESTION_ANS": "a head that marks answers, which is no prefix",
    "SEQ_2_SEQ_LM": "a prefix of an encoder with a decoder",
    "FEATURE_EXTRACTION": "a prefix of a model that gives vectors",
}
ITS_OWN = "declare its own base under bases: in params.yaml and name that for the task"


def read_config(path: Path) -> dict[str, Any]:
    """PEFT's configuration, once all that matters of it can be used.

    Raises:
        ArtifactError: it is no JSON object, of a kind that is no prefix, or of an altered base.
    """
    try:
        config = json.loads(plain_file.read(path, adapter_folder.MAX_TEXT, REMEDY))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {sanitized(str(error))}; {REMEDY}") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{path} holds {sanitized(repr(config))}, not an object; {REMEDY}")

    def refuse(key: str, wanted: str, remedy: str = REMEDY) -> ArtifactError:
        return ArtifactError(f"{path}: {key} is {sanitized(repr(config.get(key)))}, it must be {wanted}; {remedy}")

    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in METHODS:
        what = f"{_KINDS[kind]}; " if isinstance(kind, str) and kind in _KINDS else ""
        raise refuse("peft_type", " or ".join(METHODS), what + PREFIXES_ALONE)
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        what = f"it belongs to {_TASKS[task]}; " if isinstance(task, str) and task in _TASKS else ""
        raise refuse("task_type", "CAUSAL_LM", f"{what}train it as CAUSAL_LM, where the answer is a word of the text")
    for key in ("modules_to_save", "trainable_token_indices"):
        if config.get(key):
            raise ArtifactError(f"{path}: {key} is {sanitized(repr(config[key]))}, {altered('modules of its own')}")
    if config.get("num_transformer_submodules") not in (None, 1) or config.get("num_transformer_submodules") is True:
        raise refuse("num_transformer_submodules", "1", "2 is for encoders with a decoder")
    for key in ("num_virtual_tokens", *SIZES):
        value = config.get(key)
        if not (type(value) is int and 0 < value <= MAX_SIZE) and not (key in SIZES and value is None):
            raise refuse(key, f"a whole number from 1 to {MAX_SIZE}")
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        raise refuse("base_model_name_or_path", "a name or a folder")
    return config


def altered(brought: str) -> str:
    """What an adapter is that carries trained parts of its base, and the two ways on."""
    return (
        f"so it brings {brought} and belongs to an altered base, not to the one that it names: save that altered base"
        f" (model.get_base_model().save_pretrained(FOLDER)) and {ITS_OWN}, with an adapter that holds {TENSOR} alone;"
        " or train the adapter again on the unaltered base"
    )
