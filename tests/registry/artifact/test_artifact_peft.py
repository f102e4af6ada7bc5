"""The adapter folder as PEFT sees it: loaded without a word, and computing what our own layout means."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from registry.artifact import adapter_folder
from registry.artifact.manifest import PEFT_VERSION, Draft, Shape

MakeDraft = Callable[..., Draft]
TOKENS = 5
TOLERANCE = 1e-5


@pytest.fixture(params=["llama", "qwen", "gpt2"])
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[[str], Path]) -> PreTrainedModel:
    folder = tiny_base_folder(request.param)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded: PreTrainedModel = model.eval()
    return loaded


def shape_of(base: PreTrainedModel) -> Shape:
    """Read off the cache of a forward, as the base loader does: a configuration's own words differ by architecture."""
    layers = base(torch.zeros(1, 1, dtype=torch.long)).past_key_values.layers
    _, kv_heads, _, head_size = layers[0].keys.shape
    config: Any = base.config
    return Shape(
        layers=len(layers),
        kv_heads=kv_heads,
        head_size=head_size,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
    )


def peft_logits(base: PreTrainedModel, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        # PEFT asks transformers by a name that 5.23 deprecates, for every model and any adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model: Any = peft.PeftModel.from_pretrained(base, folder)
        logits: torch.Tensor = model.eval()(input_ids=ids).logits
        return logits


@torch.no_grad()
def test_a_prompt_is_embeddings_before_the_text(base: PreTrainedModel, tmp_path: Path, draft: MakeDraft) -> None:
    made = draft("prompt", virtual_tokens=TOKENS, shape=shape_of(base))
    tensor = np.random.default_rng(0).standard_normal(made.tensor_shape).astype(np.float32)
    adapter_folder.write(tmp_path / "adapter", tensor, made)
    ids = torch.randint(0, base.config.vocab_size, (3, 9))

    embedded = base.get_input_embeddings()(ids)
    soft = torch.from_numpy(tensor).expand(3, -1, -1)  # [B, P, H]
    ours = base(inputs_embeds=torch.cat([soft, embedded], dim=1)).logits

    torch.testing.assert_close(peft_logits(base, tmp_path / "adapter", ids), ours, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_a_prefix_is_keys_and_values_before_the_text(base: PreTrainedModel, tmp_path: Path, draft: MakeDraft) -> None:
    shape = shape_of(base)
    made = draft("prefix", virtual_tokens=TOKENS, shape=shape)
    tensor = np.random.default_rng(0).standard_normal(made.tensor_shape).astype(np.float32)
    adapter_folder.write(tmp_path / "adapter", tensor, made)
    ids = torch.randint(0, base.config.vocab_size, (3, 9))

    # [P, L*2*Hkv*D] -> [L, 2, B, Hkv, P, D]: the layout as design and docstring state it, not as PEFT does.
    columns = torch.from_numpy(tensor).view(TOKENS, shape.layers, 2, shape.kv_heads, shape.head_size)
    blocks = columns.permute(1, 2, 3, 0, 4).unsqueeze(2).expand(-1, -1, 3, -1, -1, -1)
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(blocks):
        cache.update(keys.contiguous(), values.contiguous(), layer)
    positions = torch.arange(TOKENS, TOKENS + 9).unsqueeze(0)
    ours = base(input_ids=ids, past_key_values=cache, position_ids=positions).logits

    torch.testing.assert_close(peft_logits(base, tmp_path / "adapter", ids), ours, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_the_configuration_holds_peft_s_own_keys_only(tmp_path: Path, draft: MakeDraft, method: str) -> None:
    made = draft(method)
    adapter_folder.write(tmp_path / "adapter", np.zeros(made.tensor_shape, np.float32), made)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = peft.PeftConfig.from_pretrained(str(tmp_path / "adapter"))

    assert config.peft_type == {"prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}[method]
    assert config.inference_mode
    assert config.num_virtual_tokens == made.virtual_tokens


def test_the_layout_was_checked_against_the_installed_peft() -> None:
    assert peft.__version__ == PEFT_VERSION
