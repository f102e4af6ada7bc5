"""Which architectures fit, and that each of the others is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from components.base.base_support import KVShape, refuse_by_config, try_cache
from components.errors import UnsupportedBase

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
ROTARY: dict[str, Any] = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
LATENT: dict[str, Any] = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8}
MLA: dict[str, Any] = ROTARY | LATENT | {"num_key_value_heads": 4, "v_head_dim": 8}


def config(kind: str, **settings: Any) -> Any:
    return AutoConfig.for_model(kind, pad_token_id=0, bos_token_id=0, eos_token_id=0, **settings)


def model(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(kind, initializer_range=0.2, **settings)).eval()


@pytest.mark.parametrize(
    ("kind", "settings", "kv_heads", "head_size"),
    [
        ("llama", ROTARY | {"tie_word_embeddings": True}, 2, 8),
        ("llama", ROTARY | {"tie_word_embeddings": False, "head_dim": 16}, 2, 16),
        ("qwen2", ROTARY, 2, 8),
        ("qwen3", ROTARY | {"head_dim": 16}, 2, 16),
        ("mistral", ROTARY | {"sliding_window": None}, 2, 8),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 64}, 4, 8),
        ("gpt_neox", SIZES | {"intermediate_size": 64, "max_position_embeddings": 64}, 4, 8),
    ],
    ids=["llama tied", "llama untied wide", "qwen2", "qwen3", "mistral without a window", "gpt2", "gpt_neox"],
)
def test_full_attention_fits_and_its_shape_is_read_off(
    kind: str, settings: dict[str, Any], kv_heads: int, head_size: int
) -> None:
    refuse_by_config(config(kind, **settings))
    expected = KVShape(layers=2, kv_heads=kv_heads, head_size=head_size, hidden=32, context=64, heads=4)
    assert try_cache(model(kind, **settings)) == expected


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("mistral", ROTARY | {"sliding_window": 16}, "attends within a sliding window of 16 tokens"),
        ("gemma2", ROTARY, "layers of the kind sliding_attention"),
        ("gemma3_text", ROTARY, "layers of the kind sliding_attention"),
        (
            "qwen2",
            ROTARY | {"use_sliding_window": True, "max_window_layers": 1},
            "layers of the kind sliding_attention",
        ),
        ("gpt_neo", {"attention_types": [[["global", "local"], 1]], "num_layers": 2}, "layers of the kind local"),
        ("qwen3_next", ROTARY, "layers of the kind linear_attention"),
        ("deepseek_v3", MLA, r"latent keys and values \(MLA\) of rank 8"),
        (
            "gemma3n_text",
            ROTARY | {"layer_types": ["full_attention"] * 2, "num_kv_shared_layers": 1},
            "between 1 layers",
        ),
        ("cohere", ROTARY | {"logit_scale": 0.0625}, r"scales or caps its logits \(logit_scale is 0\.0625\)"),
        ("granite", ROTARY | {"logits_scaling": 8.0}, r"scales or caps its logits \(logits_scaling is 8\.0\)"),
        ("t5", {}, "is an encoder with a decoder"),
    ],
)
def test_what_a_configuration_tells_is_refused(kind: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedBase, match=f"{reason}.*; choose a decoder of full attention"):
        refuse_by_config(config(kind, **settings))


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("mamba", SIZES | {"state_size": 4}, "cache"),
        ("mistral", ROTARY | {"sliding_window": 16}, "keeps its past in DynamicSlidingWindowLayer"),
        (
            "deepseek_v3",
            MLA,
            "different shapes",
        ),
        ("cohere", ROTARY | {"logit_scale": 0.0625}, "does more to its logits"),
    ],
)
def test_what_a_configuration_might_hide_is_found_by_trying(kind: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedBase, match=reason):
        try_cache(model(kind, **settings))


def test_a_model_that_forgets_its_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = model("llama", **ROTARY)
    layer = tiny.model.layers[1].self_attn
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda *args, **kw: forward(*args, **kw | {"position_embeddings": still(kw)}))
    with pytest.raises(UnsupportedBase, match="answers otherwise when it goes on from its key/value cache"):
        try_cache(tiny)


def still(kw: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Rotary angles that begin at zero again with each call: a continued text takes the places of its own past."""
    return tuple(angles[:, :1] + 0.5 * torch.arange(angles.shape[1])[:, None] for angles in kw["position_embeddings"])


def test_a_model_that_returns_no_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = model("llama", **ROTARY)
    forward = tiny.forward

    def forgetful(**kw: Any) -> Any:
        output = forward(**kw)
        output.past_key_values = None
        return output

    monkeypatch.setattr(tiny, "forward", forgetful)
    with pytest.raises(UnsupportedBase, match="llama returns no key/value cache"):
        try_cache(tiny)
