"""PEFT's way to train the same adapter: a bare loop over given batches, and transformers' Trainer as its pages show it.

What a careful user of PEFT would write: the adapter begins from the task's text (prefix tuning: from the keys and
values of it, by PEFT's own function), labels cover the answer alone, rows are padded to the longest of their batch.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model, initialize_kv_prefix_from_text

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams, TrainingParams
from components.training.batches import TrainingRow

IGNORED = -100  # PEFT and transformers leave such labels out of the loss
# PEFT asks transformers by a name that 5.23 deprecates, for every model and any adapter.
DEPRECATED = "`is_gradient_checkpointing` is deprecated"


def model_of(
    base: Base, task: TaskParams, method: MethodName, virtual_tokens: int, start: torch.Tensor | None = None
) -> Any:
    """The base with an adapter of PEFT's around it, which begins from the task's text by PEFT's own functions.

    Args:
        start: what it begins from instead, the adapter's numbers in PEFT's layout.
    """
    model = _begun_from_text(base, task, method, virtual_tokens)
    if start is not None:
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight.copy_(start)
    return model


def _begun_from_text(base: Base, task: TaskParams, method: MethodName, virtual_tokens: int) -> Any:
    warnings.filterwarnings("ignore", DEPRECATED, FutureWarning)
    if method == "prompt":
        begun = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": task.instruction}
        folder = {"tokenizer_name_or_path": base.tokenizer.name_or_path}
        prompt = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=virtual_tokens, **begun, **folder)
        return get_peft_model(base.model, prompt)
    model = get_peft_model(
        base.model, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=virtual_tokens)
    )
    text = " ".join([task.instruction] * (1 + virtual_tokens // 4))
    initialize_kv_prefix_from_text(model, base.tokenizer, text=text, use_chat_template=False)
    return model


def collated(rows: Sequence[TrainingRow], base: Base) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask, labels: [B, T], right-padded, whole rows with all of their answers."""
    width = max(len(row.text) + len(row.target) for row in rows)
    ids, mask, labels = [], [], []
    for row in rows:
        gap = width - len(row.text) - len(row.target)
        ids.append([*row.text, *row.target, *[0] * gap])
        mask.append([1] * (width - gap) + [0] * gap)
        labels.append([*[IGNORED] * len(row.text), *row.target, *[IGNORED] * gap])
    parts = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.tensor(part, device=base.device) for name, part in parts.items()}


def bare_loop(base: Base, model: Any, settings: TrainingParams) -> Callable[[Sequence[TrainingRow]], None]:
    """One optimizer step on a batch, with the same optimizer and clipping as ours."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def step(rows: Sequence[TrainingRow]) -> None:
        optimizer.zero_grad(set_to_none=True)
        model(**collated(rows, base)).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()

    return step


def trainer(
    base: Base, model: Any, rows: Sequence[TrainingRow], settings: TrainingParams, steps: int, callback: Any = None
) -> Any:
    """transformers' Trainer: random batches, each padded to its longest row, a linear schedule, AdamW."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=f"{tempfile.gettempdir()}/preface-trainer",  # made by it, and left empty
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        max_grad_norm=settings.clip_norm,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup * steps),
        seed=settings.seed,
        use_cpu=base.device.type == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=list(rows),
        data_collator=lambda batch: collated(batch, base),
        callbacks=[callback] if callback else None,
    )
