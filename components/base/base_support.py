"""Which base models fit: decoders of uniform full attention whose whole past is one key/value cache of one shape.

What a configuration tells is refused before any weight is read; the rest is tried on six tokens, since a configuration
cannot be trusted to tell everything. The cache's shape is read off that trial. It knows nothing of folders and hashes.

Notation: B batch, T text tokens, L layers, Hkv key/value heads, D head size, H hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import UnsupportedBase

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "choose a decoder of full attention with one key/value shape, such as Llama, Qwen or GPT-2"
# Keys by which architectures scale or bend their logits after the head. None or 1 means that they do not.
_LOGIT_KEYS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
_TRIAL_TOKENS = 6


@dataclass(frozen=True)
class KVShape:
    """The cache's shape [L, Hkv, T, D] without T, and the sizes around it. ``heads`` are the query heads."""

    layers: int
    kv_heads: int
    head_size: int
    hidden: int
    context: int
    heads: int


def refuse_by_config(config: Any) -> None:
    """Refuse what a transformers configuration says does not fit.

    Raises:
        UnsupportedBase: with the reason.
    """
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or getattr(text, "attention_layers", None) or ())
    others = sorted(kinds - {"full_attention", "global"})
    windowed = not kinds and getattr(text, "use_sliding_window", True)
    window = getattr(text, "sliding_window", None) if windowed else None
    bent = [key for key in _LOGIT_KEYS if getattr(text, key, None) not in (None, 1, 1.0)]
    reason = None
    if config.is_encoder_decoder:
        reason = "is an encoder with a decoder"
    elif others:
        reason = f"has layers of the kind {', '.join(others)}"
    elif window:
        reason = f"attends within a sliding window of {window} tokens"
    elif getattr(text, "kv_lora_rank", None):
        reason = f"keeps latent keys and values (MLA) of rank {text.kv_lora_rank}"
    elif getattr(text, "num_kv_shared_layers", 0):
        reason = f"shares keys and values between {text.num_kv_shared_layers} layers"
    elif bent:
        reason = f"scales or caps its logits ({bent[0]} is {getattr(text, bent[0])})"
    if reason:
        raise UnsupportedBase(f"{text.model_type} {reason}; {REMEDY}")


def try_cache(model: Any) -> KVShape:
    """Try the model on a few tokens, whole and continued from the cache of its first half.

    Args:
        model: A causal language model of transformers, in evaluation mode.

    Raises:
        UnsupportedBase: the cache is missing, not uniform, or does not carry the whole past.
    """
    import torch
    from transformers import DynamicCache

    kind, text = model.config.model_type, model.config.get_text_config(decoder=True)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, text.vocab_size, (1, _TRIAL_TOKENS), generator=generator).to(model.device)  # [1, T]
    half = _TRIAL_TOKENS // 2
    try:
        with torch.no_grad():
            whole = model(input_ids=ids, use_cache=True)
            pairs = _keys_and_values(kind, whole)
            hidden = model.base_model(input_ids=ids).last_hidden_state
            headed = model.get_output_embeddings()(hidden)  # [1, T, V]
            continued = model(
                input_ids=ids[:, half:],
                attention_mask=torch.ones_like(ids),
                position_ids=torch.arange(half, _TRIAL_TOKENS, device=ids.device).unsqueeze(0),
                past_key_values=DynamicCache([(k[:, :, :half], v[:, :, :half]) for k, v in pairs]),
                use_cache=True,
            )
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise UnsupportedBase(f"{kind} cannot go on from a key/value cache ({error}); {REMEDY}") from error
    if len(pairs) != text.num_hidden_layers:
        raise UnsupportedBase(f"{kind} has {text.num_hidden_layers} layers and keys of {len(pairs)}; {REMEDY}")
    # Reduced precision rounds otherwise when a product has another shape; a wrong position moves logits by whole units.
    near = 1e-3 if model.dtype == torch.float32 else 0.2
    if not _distance(headed, whole.logits) <= near:
        raise UnsupportedBase(f"{kind} does more to its logits than its output embeddings do; {REMEDY}")
    if not _distance(continued.logits, whole.logits[:, half:]) <= near:
        raise UnsupportedBase(f"{kind} answers otherwise when it goes on from its key/value cache; {REMEDY}")
    _, kv_heads, _, head_size = pairs[0][0].shape
    return KVShape(
        layers=len(pairs),
        kv_heads=kv_heads,
        head_size=head_size,
        hidden=hidden.shape[-1],
        context=text.max_position_embeddings,
        heads=text.num_attention_heads,
    )


def _keys_and_values(kind: str, output: Any) -> list[tuple[Tensor, Tensor]]:
    """A keys and values pair [1, Hkv, T, D] for each layer, all of one shape."""
    from transformers.cache_utils import DynamicLayer

    cache = getattr(output, "past_key_values", None)
    if cache is None:
        raise UnsupportedBase(f"{kind} returns no key/value cache; {REMEDY}")
    others = sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer})
    if others:
        raise UnsupportedBase(f"{kind} keeps its past in {', '.join(others)}; {REMEDY}")
    pairs = [(layer.keys, layer.values) for layer in cache.layers]
    shapes = {tuple(tensor.shape) for pair in pairs for tensor in pair}
    if len(shapes) != 1:
        raise UnsupportedBase(f"{kind} has keys and values of different shapes {sorted(shapes)}; {REMEDY}")
    return pairs


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, in standard deviations of the logits."""
    difference = (one.float() - other.float()).abs().max() / other.float().std()
    return float(difference)
