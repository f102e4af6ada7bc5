"""The fingerprint of a retraining: one hash over everything that its adapter follows from. Pure.

Two runs of one fingerprint would give the same adapter, so a run whose fingerprint is registered stops early. Gates and
baselines are not in it: they judge an adapter and do not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.config.params import MethodName, TaskParams

# Raised by hand whenever training would give another adapter from the same inputs; a golden-loss test guards it. It
# stands here and not in the loop so that a run with nothing to do need not import torch.
RECIPE = 3
# The same for components/evaluation/baselines.py.
BASELINES_RECIPE = 1


def fingerprint(task: TaskParams, method: MethodName, base_hash: str, data_hash: str, start: str | None = None) -> str:
    """sha256 over base, data, wording, method with its training settings and seed, recipe, and starting adapter.

    Args:
        base_hash: the pinned base's hash.
        data_hash: the content hash of the prepared rows.
        start: digest of the adapter that training starts from, None for a cold start.
    """
    settings = task.settings(method).model_dump(mode="json")
    return _trained(_asked(task, base_hash, data_hash), method, settings, RECIPE, start)


def recorded_fingerprint(
    *,
    base: str,
    data: str,
    instruction: str,
    template: str,
    labels: Mapping[str, str] | None,
    max_tokens: int,
    max_new_tokens: int,
    method: MethodName,
    settings: Any,
    recipe: int,
    start: str | None = None,
) -> str:
    """The same from what a manifest keeps, by its own recipe and settings; today's may have other defaults."""
    asked = _wording(base, data, instruction, template, labels, max_tokens, max_new_tokens)
    return _trained(asked, method, settings, recipe, start)


def settings_fingerprint(task: TaskParams, method: MethodName) -> str:
    """The same over wording, method, settings and recipe alone: two that differ were asked for differently."""
    return fingerprint(task, method, "", "")


def import_fingerprint(task: TaskParams, method: MethodName, base_hash: str, data_hash: str, digest: str) -> str:
    """The same for an adapter that was trained elsewhere: sha256 over base, data, wording, and what was brought.

    Args:
        digest: sha256 of the file that holds the tensor.
    """
    return _hash({**_asked(task, base_hash, data_hash), "method": method, "imported": digest})


def baselines_fingerprint(task: TaskParams, base_hash: str, data_hash: str) -> str:
    """sha256 over everything that the baselines' answers follow from; no method is in it, they train no adapter."""
    measured = {"baselines": task.baselines.model_dump(mode="json"), "recipe": BASELINES_RECIPE}
    return _hash({**_asked(task, base_hash, data_hash), **measured})


def sweep_fingerprint(task: TaskParams, methods: Sequence[MethodName], base_hash: str, data_hash: str) -> str:
    """sha256 over everything that a sweep's choice of settings follows from."""
    settings = {method: task.settings(method).model_dump(mode="json") for method in methods}
    space = task.sweep.model_dump(mode="json") if task.sweep else None
    return _hash({**_asked(task, base_hash, data_hash), "settings": settings, "sweep": space, "recipe": RECIPE})


def comparison_fingerprint(task: TaskParams, base_hash: str, data_hash: str) -> str:
    """sha256 over everything that a comparison's figures follow from, but the machine."""
    settings = {"prompt": task.prompt.model_dump(mode="json"), "prefix": task.prefix.model_dump(mode="json")}
    asked, measured = _asked(task, base_hash, data_hash), baselines_fingerprint(task, base_hash, data_hash)
    return _hash({**asked, "settings": settings, "baselines": measured, "recipe": RECIPE, "comparison": 2})


def _asked(task: TaskParams, base_hash: str, data_hash: str) -> dict[str, Any]:
    """What every contestant has in common: base, rows and wording."""
    limits = task.data.max_tokens, task.max_new_tokens
    return _wording(base_hash, data_hash, task.instruction, task.template, task.data.labels, *limits)


def _wording(
    base: str,
    data: str,
    instruction: str,
    template: str,
    labels: Mapping[str, str] | None,
    max_tokens: int,
    max_new_tokens: int,
) -> dict[str, Any]:
    return {
        "base": base,
        "data": data,
        "instruction": instruction,
        "template": template,
        "labels": list((labels or {}).items()),  # their order counts where a prompt starts from them
        "max_tokens": max_tokens,
        "max_new_tokens": max_new_tokens,
    }


def _trained(asked: dict[str, Any], method: MethodName, settings: Any, recipe: int, start: str | None) -> str:
    return _hash({**asked, "method": method, "settings": settings, "recipe": recipe, "start": start})


def _hash(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
