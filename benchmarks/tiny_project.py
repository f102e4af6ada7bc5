"""A project of many tasks alike on one tiny random base, prepared by nobody yet: what is timed is what surrounds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from components.base.base_hash import hash_base

ROOT = Path(__file__).parents[1]
WORDS = ("dull", "funny")
TEXTS = [f"text {n} {WORDS[n % 2]}" for n in range(120)]


def make(root: Path, tasks: int, steps: int) -> list[str]:
    """Fill the folder, which is not there yet; the tasks' names. They differ in their seed alone.

    Args:
        steps: of each training, which makes a run as long as is wanted.
    """
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, root / name)
    _base(root / "sources" / "tiny")
    rows = "".join(f"{text},{WORDS[n % 2]}\n" for n, text in enumerate(TEXTS))
    (root / "rows.csv").write_text(f"text,target\n{rows}", encoding="utf-8")
    names = [f"task-{number:03}" for number in range(tasks)]
    said = {
        "bases": {"tiny": {"source": "sources/tiny", "hash": hash_base(root / "sources" / "tiny").value}},
        "tasks": {name: _task(seed, steps) for seed, name in enumerate(names)},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    for command in ("init --quiet", "add .", "-c user.name=Bench -c user.email=b@example.org commit --quiet -m Start"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    return names


def _task(seed: int, steps: int) -> dict[str, Any]:
    training = {"steps": steps, "batch_size": 8, "learning_rate": 0.3, "evaluate_every": 50, "patience": 1000}
    return {
        "base": "tiny",
        "data": {"source": "rows.csv", "format": "csv", "labels": list(WORDS), "max_tokens": 16},
        "instruction": "Say whether it is dull or funny.",
        "template": "{text}",
        "method": "prefix",
        "prefix": {"virtual_tokens": 4, "training": {**training, "seed": seed}},
        "baselines": {"hard_prompts": ["Say it.\n"], "in_context": [2]},
        "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.0}],
        "promotion": "auto",
    }


def _base(to: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", model_max_length=512
    )
    end = fast.eos_token_id
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(to)
    fast.save_pretrained(to)


def environment(root: Path, **more: str) -> dict[str, str]:
    """What a process of the project is started with: its own stores and DVC folders, and no others."""
    own = {
        "PREFECT_HOME": str(root / ".preface" / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{root}/.preface/mlflow.db",
        "PREFACE_BASES": str(root / "bases"),
        "PYTHONPATH": str(ROOT),
        "PREFACE_ROOT": str(root),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **{name: str(root / ".preface" / "dvc") for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR")},
    }
    return os.environ | own | more
