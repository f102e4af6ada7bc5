"""What every test may use: tiny real base models on disk, and an environment that reaches nothing off this machine.

Knows nothing of Preface itself: the bases are saved by transformers, as anybody's would be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The libraries read these at import, so they are set before any test module is collected.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "DVC_NO_ANALYTICS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# A developer's own servers, folders and buckets are none of the tests' business.
for _name in (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "PREFECT_API_URL",
    "PREFACE_BASES",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
):
    os.environ.pop(_name, None)

TinyBase = Callable[..., Path]

# Wide weights: at the libraries' own 0.02 a random model is so flat that a wrong position hardly moves its logits.
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
_ROTARY: dict[str, Any] = _SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
KINDS: dict[str, dict[str, Any]] = {
    # grouped-query heads, tied head
    "llama": _ROTARY | {"model_type": "llama", "tie_word_embeddings": True},
    # grouped-query heads, untied head, head size 16 where hidden / heads is 8
    "qwen": _ROTARY | {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": False},
    # learned positions, one key/value head for each query head
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "initializer_range": 0.2,
    },
}
_CORPUS = (
    "Review: a gripping, funny and moving film from the first scene to the last. Sentiment: positive",
    "Review: a dull and lifeless mess, too long by half an hour. Sentiment: negative",
    "Article: shares fell as the bank reported a loss. Topic: business",
    "Article: the striker scored twice in the final. Topic: sports",
    "Decide whether the movie review is positive or negative.",
    "Abstract: we present a new method for the summarization of papers. Outcome: it beats the baselines.",
)


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    """A factory of tiny random bases, saved as folders of the hub's form: ``tiny_base_folder("qwen")``.

    Keyword arguments replace entries of the kind's configuration, such as ``tie_word_embeddings=False``. The same
    arguments give the same folder, so treat it as read-only and copy it before planting a fault.
    """
    made: dict[str, Path] = {}

    def folder(kind: str = "llama", **changes: Any) -> Path:
        key = json.dumps([kind, changes], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"base-{kind}")
            _save_tiny_base(made[key], KINDS[kind] | changes)
        return made[key]

    return folder


def _save_tiny_base(to: Path, config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(), eos_token="<|end|>", pad_token="<|end|>", model_max_length=512
    )
    end = tokenizer.eos_token_id
    settings = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end, "pad_token_id": end} | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


def _train_tokenizer() -> Any:
    """A byte-level BPE tokenizer of a few hundred entries: any text can be written with it, as with a real base's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    return tokenizer
