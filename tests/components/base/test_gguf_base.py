"""A GGUF becomes the model that it was made of, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.base.base_hash import hash_base
from components.base.gguf_base import convert
from components.errors import UnsupportedBase

TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def packed(folder: Path, to: Path, split: str = "smollm") -> Path:
    """The tiny Llama of ``folder`` as llama.cpp would write it, in float32."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(to, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    words = tokenizer.backend_tokenizer
    end = tokenizer.eos_token_id
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([words.id_to_token(number) for number in range(config.vocab_size)])
    writer.add_token_types([3 if number == end else 1 for number in range(config.vocab_size)])
    writer.add_token_merges([" ".join(pair) for pair in merges_of(words)])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(end)
    for name, tensor in model.model.state_dict(prefix="model.").items():
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}.get(name[-len("q_proj.weight")])
        writer.add_tensor(packed_name(name), interleaved(tensor.numpy(), heads) if heads else tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


def merges_of(words: Any) -> list[list[str]]:
    return json.loads(words.to_str())["model"]["merges"]


def packed_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return TENSORS[name]
    number, rest = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{number}.{TENSORS[rest]}"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp turns neighbouring pairs of a head's rows, transformers its two halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


@pytest.fixture
def file(tiny_base_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return packed(tiny_base_folder("llama"), tmp_path / "tiny.gguf")


def made(file: Path, to: Path) -> Path:
    to.mkdir()
    convert(file, to)
    return to


def test_it_is_the_model_that_was_packed(file: Path, tiny_base_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = made(file, tmp_path / "base")
    before = AutoModelForCausalLM.from_pretrained(tiny_base_folder("llama"), dtype=torch.bfloat16)
    after = AutoModelForCausalLM.from_pretrained(folder)
    assert after.dtype == torch.bfloat16
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    text = "Review: a dull mess"
    tokenizers = [AutoTokenizer.from_pretrained(place) for place in (tiny_base_folder("llama"), folder)]
    assert tokenizers[0](text).input_ids == tokenizers[1](text).input_ids
    assert tokenizers[0].eos_token == tokenizers[1].eos_token


def test_the_same_file_gives_the_same_bytes_and_no_trace_of_its_place(file: Path, tmp_path: Path) -> None:
    one, other = made(file, tmp_path / "one"), made(file, tmp_path / "other")
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other)]
    assert contents[0] == contents[1]
    assert hash_base(one) == hash_base(other)
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


def test_digits_stand_alone_where_the_model_was_trained_so(
    file: Path, tiny_base_folder: Callable[..., Path], tmp_path: Path
) -> None:
    digits = AutoTokenizer.from_pretrained(made(file, tmp_path / "smollm")).backend_tokenizer.pre_tokenizer
    assert [word for word, _ in digits.pre_tokenize_str("a  12")] == ["a", "ĠĠ", "1", "2"]
    plain = packed(tiny_base_folder("llama"), tmp_path / "plain.gguf", split="gpt-2")
    words = AutoTokenizer.from_pretrained(made(plain, tmp_path / "plain")).backend_tokenizer.pre_tokenizer
    assert [word for word, _ in words.pre_tokenize_str("a  12")] == ["a", "Ġ", "Ġ12"]


@pytest.mark.parametrize("size", [0, 4, 100, 20_000])
def test_a_cut_off_file_is_refused(file: Path, size: int, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UnsupportedBase, match=r"transformers cannot read tiny\.gguf"):
        made(file, tmp_path / "base")
