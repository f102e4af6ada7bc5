"""A folder from elsewhere: what PEFT saved is read to the last bit, and everything that is not that is told."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.base.base_support import KVShape
from components.errors import ArtifactError
from components.prefix.decoder import Decoder, logits
from components.prefix.inference import from_artifact
from components.prefix.kv_prefix import PrefixRows
from registry.artifact import peft_folder, peft_kind
from registry.artifact.adapter_folder import CONFIG, MANIFEST, TENSOR, WEIGHTS

from . import hostile_json

TinyBase = Callable[..., Path]
WriteAdapter = Callable[..., Path]
TOKENS, TOLERANCE = 5, 1e-5
SHAPE = KVShape(layers=2, kv_heads=2, head_size=8, hidden=32, context=512, heads=4)
METHODS = {
    "prompt": peft.PromptTuningConfig,
    "prefix": peft.PrefixTuningConfig,
    "projected": lambda **common: peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=12, **common),
}
GOOD: Mapping[str, Any] = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "CAUSAL_LM",
    "num_virtual_tokens": 2,
    "num_transformer_submodules": 1,
    "num_layers": 2,
    "token_dim": 32,
    "num_attention_heads": 4,
    "base_model_name_or_path": "someone/their-model",
}


def saved_by_peft(base: Path, to: Path, how: str) -> tuple[Any, Path]:
    """A model with an adapter that PEFT trained a few steps, and the folder in which PEFT saved it."""
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that 5.23 deprecates, for every model and any adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        torch.manual_seed(0)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model: Any = peft.get_peft_model(plain, METHODS[how](task_type="CAUSAL_LM", num_virtual_tokens=TOKENS))
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        ids = torch.randint(0, plain.config.vocab_size, (4, 7))
        for _ in range(3):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval().save_pretrained(to)
    return model, to


def write(folder: Path, config: Any = None, tensors: Mapping[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """A folder as PEFT would save it, with something changed in it."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    (folder / CONFIG).write_text(json.dumps(said if config is None else config))
    save_file(dict(tensors or {TENSOR: torch.arange(64.0).view(2, 32)}), folder / WEIGHTS)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        peft_folder.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what PEFT saves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("kind", ["llama", "qwen", "gpt2"])
def test_what_peft_trained_and_saved_computes_what_it_computed_there(
    kind: str, how: str, tiny_base_folder: TinyBase, tmp_path: Path
) -> None:
    """Grouped heads, heads of another width than hidden / heads, and projections, folded in by PEFT when it saves."""
    folder = tiny_base_folder(kind)
    base = load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)
    model, saved = saved_by_peft(folder, tmp_path / "theirs", how)

    found = peft_folder.read(saved)
    peft_folder.fit(found, base.shape, kind)

    ids = torch.randint(0, base.model.config.vocab_size, (3, 9))
    with torch.no_grad():
        theirs = model(input_ids=ids).logits[:, -9:]
    assert found.method == ("prompt" if how == "prompt" else "prefix")
    torch.testing.assert_close(ours(base, found, ids), theirs, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def ours(base: Base, found: peft_folder.Foreign, ids: torch.Tensor) -> torch.Tensor:
    """What evaluation and serving compute with it."""
    prefix = from_artifact(base, found.method, torch.from_numpy(found.tensor))
    decoder = Decoder.behind(base, PrefixRows.broadcast(prefix, len(ids)))
    return logits(base, decoder.read(ids, torch.full((len(ids),), ids.shape[1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_value_of_a_shorter_type_arrives_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    table = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)).to(dtype)

    found = peft_folder.read(write(tmp_path / "a", tensors={TENSOR: table}))

    assert found.tensor.dtype == np.float32
    assert np.array_equal(found.tensor, table.float().numpy())


def test_what_else_lies_in_the_folder_is_not_opened(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", unheard_of={"by": "us"}, revision=None, num_layers=None, task_type=...)
    os.mkfifo(folder / "training_args.bin")  # opening it would hang
    (folder / "README.md").write_bytes(b"\xff")

    assert peft_folder.read(folder).sizes == {"token_dim": 32, "num_attention_heads": 4}


def test_a_folder_of_our_own_is_read_as_ours_and_its_manifest_proves_its_base(
    tmp_path: Path, write_adapter: WriteAdapter
) -> None:
    folder = write_adapter(tmp_path / "ours", "prefix", seed=4)
    said = json.loads((folder / MANIFEST).read_text())

    found = peft_folder.read(folder)

    assert (found.method, found.base, found.base_hash) == ("prefix", said["base"]["name"], said["base"]["hash"])
    assert found.sha256 == said["files"][WEIGHTS]["sha256"]
    peft_folder.fit(found, SHAPE, "tiny")

    (folder / MANIFEST).write_text("{}")
    assert "without its manifest.json it would be an adapter of PEFT's, of an unknown base" in refusal(folder)


# --- the base ---------------------------------------------------------------------------------------------------------


class TestBase:
    def test_a_local_folder_is_hashed_and_its_path_is_still_a_claim(
        self, tmp_path: Path, tiny_base_folder: TinyBase
    ) -> None:
        base = tiny_base_folder("llama")
        found = peft_folder.read(write(tmp_path / "a", base_model_name_or_path=str(base)))

        assert "path is a claim and proves nothing" in peft_folder.base_fault(found, "tiny", hash_base(base).value)
        fault = peft_folder.base_fault(found, "tiny", "a" * 64)
        assert hash_base(base).value in fault
        assert "params.yaml declares tiny " + "a" * 64 in fault

    @pytest.mark.parametrize("name", ["someone/their-model", "", None, ".", "\0", "a" * 9999, "\ud800", "/dev/null"])
    def test_a_name_proves_nothing(self, tmp_path: Path, name: str | None) -> None:
        found = peft_folder.read(write(tmp_path / "a", base_model_name_or_path=name))

        assert found.base_hash == ""
        fault = peft_folder.base_fault(found, "tiny", "a" * 64)
        assert "of unknown hash: a name or a path proves nothing" in fault
        assert "params.yaml declares tiny " + "a" * 64 in fault
        assert len(fault) < 1500
        assert fault.isprintable()

    def test_an_address_of_a_base_keeps_no_password(self, tmp_path: Path) -> None:
        found = peft_folder.read(write(tmp_path / "a", base_model_name_or_path="https://me:secret@host/base"))

        assert found.base == "https://***@host/base"

    def test_a_folder_of_pipes_is_no_base(self, tmp_path: Path) -> None:
        for name in ("config.json", "tokenizer.json"):
            os.mkfifo(tmp_path / name)

        assert peft_folder.read(write(tmp_path / "a", base_model_name_or_path=str(tmp_path))).base_hash == ""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"hidden": 64}, r"prompt_embeddings is \[2, 32\], prompt tuning of the base tiny has \[P, 64\]"),
            ({"layers": 3}, "says num_layers 2, prompt tuning of the base tiny has 3"),
            ({"heads": 8}, "says num_attention_heads 4, prompt tuning of the base tiny has 8"),
        ],
    )
    def test_a_prompt_of_another_base_s_shape_is_told(self, tmp_path: Path, change: Any, said: str) -> None:
        found = peft_folder.read(write(tmp_path / "a"))
        peft_folder.fit(found, SHAPE, "tiny")

        with pytest.raises(ArtifactError, match=said):
            peft_folder.fit(found, replace(SHAPE, **change), "tiny")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"layers": 3}, r"prefix tuning of the base tiny has \[P, 96\]"),
            # As many columns, and keys and values in other places.
            ({"kv_heads": 1, "head_size": 16}, "says num_attention_heads 2, prefix tuning of the base tiny has 1"),
            ({"layers": 1, "head_size": 16}, "says num_layers 2, prefix tuning of the base tiny has 1"),
        ],
    )
    def test_a_prefix_of_another_base_s_shape_is_told(self, tmp_path: Path, change: Any, said: str) -> None:
        sizes = {"peft_type": "PREFIX_TUNING", "token_dim": 16, "num_attention_heads": 2}
        found = peft_folder.read(write(tmp_path / "a", tensors={TENSOR: torch.zeros(2, 64)}, **sizes))
        peft_folder.fit(found, SHAPE, "tiny")

        with pytest.raises(ArtifactError, match=said):
            peft_folder.fit(found, replace(SHAPE, **change), "tiny")


# --- planted faults ---------------------------------------------------------------------------------------------------

CONFIGURATIONS = [
    ({"peft_type": "LORA"}, "peft_type is 'LORA', it must be PROMPT_TUNING or PREFIX_TUNING"),
    ({"peft_type": ["PROMPT_TUNING"]}, r"peft_type is \['PROMPT_TUNING'\]"),
    ({"peft_type": ...}, "peft_type is None"),
    ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS', it must be CAUSAL_LM; it belongs to a classification head"),
    ({"task_type": "TOKEN_CLS"}, "it belongs to a head over each token, which is no prefix"),
    ({"task_type": "SEQ_2_SEQ_LM"}, "a prefix of an encoder with a decoder"),
    ({"peft_type": "P_TUNING"}, "P-tuning makes its prompt by an encoder"),
    ({"peft_type": "MULTITASK_PROMPT_TUNING"}, "multiplies its prompt by a matrix for each task"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save is .*belongs to an altered base"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices is .*belongs to an altered base"),
    ({"num_transformer_submodules": 2}, "num_transformer_submodules is 2, it must be 1"),
    ({"num_transformer_submodules": True}, "num_transformer_submodules is True"),
    ({"num_virtual_tokens": 3}, "prompt_embeddings has 2 rows, num_virtual_tokens says 3"),
    ({"num_virtual_tokens": ...}, "num_virtual_tokens is None, it must be a whole number"),
    ({"num_virtual_tokens": 2.0}, "num_virtual_tokens is 2.0, it must be a whole number"),
    ({"num_virtual_tokens": 10**400}, "num_virtual_tokens is 1000"),
    ({"token_dim": 16}, "prompt_embeddings has 32 columns, token_dim says 16"),
    ({"token_dim": "32"}, "token_dim is '32', it must be a whole number"),
    ({"num_layers": 0}, "num_layers is 0, it must be a whole number"),
    ({"base_model_name_or_path": 7}, "base_model_name_or_path is 7, it must be a name or a folder"),
]


@pytest.mark.parametrize(("change", "said"), CONFIGURATIONS, ids=[said[:40] for _, said in CONFIGURATIONS])
def test_a_configuration_that_does_not_do_is_told_with_what_would(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        peft_folder.read(write(tmp_path / "a", **change))


TENSORS = [
    ({TENSOR: torch.zeros(2, 32, dtype=torch.float64)}, "prompt_embeddings is F64, it must be F32, F16 or BF16"),
    ({TENSOR: torch.zeros(2, 32, dtype=torch.int32)}, "prompt_embeddings is I32"),
    ({TENSOR: torch.zeros(64)}, r"prompt_embeddings is \[64\], it must have two dimensions"),
    ({TENSOR: torch.zeros(1, 2, 32)}, "it must have two dimensions"),
    ({TENSOR: torch.full((2, 32), torch.nan)}, "64 of 64 values of prompt_embeddings are not finite"),
    ({TENSOR: torch.full((2, 32), torch.inf, dtype=torch.bfloat16)}, "64 of 64 values"),
    ({"base_model.model.q.lora_A.weight": torch.zeros(2, 32)}, "holds .*lora_A.*: these change the base's"),
    (
        {TENSOR: torch.zeros(2, 32), "base_model.model.model.embed_tokens.weight": torch.zeros(9, 32)},
        "embed_tokens.*brings an embedding of its own and belongs to an altered base",
    ),
    ({TENSOR: torch.zeros(2, 32), "base_model.model.lm_head.weight": torch.zeros(9, 32)}, "belongs to an altered base"),
    ({TENSOR: torch.zeros(2, 32), "base_model.model.score.weight": torch.zeros(2, 32)}, "a classification head is no"),
    ({TENSOR: torch.zeros(2, 32), "prompt_encoder.weight": torch.zeros(1)}, "holds .*prompt_encoder"),
]


@pytest.mark.parametrize(("tensors", "said"), TENSORS, ids=[said[:40] for _, said in TENSORS])
def test_a_tensor_that_does_not_do_is_told(tmp_path: Path, tensors: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        peft_folder.read(write(tmp_path / "a", tensors=tensors))


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.PT", "adapter.pkl"])
def test_a_pickle_is_never_opened_and_how_to_convert_it_is_told(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "a")
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / name)  # opening it would hang

    said = refusal(folder)

    assert f"has its weights in {name} and not in {WEIGHTS}" in said
    assert "save_pretrained(NEW_FOLDER, safe_serialization=True)" in said


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("plant", ["absent", "link", "pipe", "folder", "huge"])
def test_only_files_of_a_right_size_are_read(tmp_path: Path, name: str, plant: str) -> None:
    folder = write(tmp_path / "a")
    path = folder / name
    path.rename(tmp_path / "outside")
    if plant == "link":
        path.symlink_to(tmp_path / "outside")
    elif plant == "pipe":
        os.mkfifo(path)
    elif plant == "folder":
        path.mkdir()
    elif plant == "huge":
        path.touch()
        os.truncate(path, 1 << 34)

    said = refusal(folder)

    assert str(path) in said
    reasons = {"huge": "bytes, at most", "pipe": "is not a regular file", "folder": "is not a regular file"}
    assert reasons.get(plant, "`cp -rL` copies what links point to") in said


@pytest.mark.parametrize("folder", ["absent", "file", "a" * 300, "nul\0"])
def test_what_is_no_folder_is_told(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()

    assert "as an adapter of PEFT's" in (said := refusal(tmp_path / folder)) or "is not a folder" in said


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"a":' * 100_000, "\ud800", "9" * 5000])
def test_a_configuration_that_is_no_object_is_told(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path / "a")
    (folder / CONFIG).write_bytes(hostile_json.encode(text))

    assert CONFIG in refusal(folder)


def test_a_header_of_thousands_of_tensors_is_not_parsed(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", tensors={f"t{n}": torch.zeros(1) for n in range(2000)})

    assert "announces a header of" in refusal(folder)


# --- hostile folders --------------------------------------------------------------------------------------------------


def read_hostile(config: bytes, weights: bytes) -> peft_folder.Foreign | None:
    """What is read of such a folder, in little memory; None where it is refused, which only our own error does."""
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        (folder / CONFIG).write_bytes(config)
        (folder / WEIGHTS).write_bytes(weights)
        tracemalloc.start()
        try:
            found, said = peft_folder.read(folder), ""
        except ArtifactError as error:
            found, said = None, str(error)
        finally:
            memory = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert memory < 64 << 20
    assert "\n" not in said
    assert len(said) < 3000
    return found


def with_header(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


HEADER = {TENSOR: {"dtype": "F32", "shape": [2, 32], "data_offsets": [0, 256]}, "__metadata__": {"format": "pt"}}
DATA = np.arange(64, dtype=np.float32).tobytes()
fuzzing = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def test_the_folder_that_is_made_hostile_is_a_good_one() -> None:
    found = read_hostile(json.dumps(GOOD).encode(), with_header(json.dumps(HEADER).encode(), DATA))

    assert found is not None
    assert found.tensor.tobytes() == DATA


@fuzzing
@given(hostile_json.holed(dict(GOOD)))
def test_a_hostile_value_in_the_configuration_is_read_as_itself_or_refused(
    holed: tuple[dict[str, Any], str],
) -> None:
    config = hostile_json.fill(*holed)
    found = read_hostile(config, with_header(json.dumps(HEADER).encode(), DATA))

    if found is not None:
        assert found.tensor.shape == (2, 32)
        assert found.method == peft_kind.METHODS[json.loads(config)["peft_type"]]


@fuzzing
@given(hostile_json.edited(dict(GOOD)))
def test_an_edited_configuration_is_read_as_itself_or_refused(config: dict[str, Any]) -> None:
    found = read_hostile(hostile_json.encode(json.dumps(config)), with_header(json.dumps(HEADER).encode(), DATA))

    assert found is None or found.tensor.shape == (config["num_virtual_tokens"], 32)


@fuzzing
@given(hostile_json.arbitrary())
def test_a_configuration_of_any_bytes_is_refused(config: bytes) -> None:
    assert read_hostile(config, with_header(json.dumps(HEADER).encode(), DATA)) is None


@fuzzing
@given(hostile_json.holed(HEADER) | hostile_json.edited(HEADER).map(lambda header: (header, "0")))
def test_a_hostile_header_gives_the_same_tensor_or_is_refused(holed: tuple[dict[str, Any], str]) -> None:
    found = read_hostile(json.dumps(GOOD).encode(), with_header(hostile_json.fill(*holed).strip(), DATA))

    assert found is None or (found.tensor.shape == (2, 32) and np.isfinite(found.tensor).all())


@fuzzing
@given(
    st.binary(max_size=64) | st.builds(with_header, st.binary(max_size=64), st.binary(max_size=64)),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_weights_of_any_bytes_are_refused(weights: bytes, length: int | None) -> None:
    weights = weights if length is None else struct.pack("<Q", length) + weights[8:]

    assert read_hostile(json.dumps(GOOD).encode(), weights) is None


@fuzzing
@given(st.integers(0, 8 * 400), st.booleans())
def test_a_flipped_bit_or_a_cut_is_refused_or_changes_no_more_than_a_value(place: int, cut: bool) -> None:
    """PEFT's folder has no digests: a value that stays finite passes here, and is what the gate is for."""
    whole = with_header(json.dumps(HEADER).encode(), DATA)
    assume(place // 8 < len(whole))
    raw = bytearray(whole[: place // 8] if cut else whole)
    if not cut:
        raw[place // 8] ^= 1 << place % 8

    found = read_hostile(json.dumps(GOOD).encode(), bytes(raw))

    assert found is None or (not cut and found.tensor.shape == (2, 32) and np.isfinite(found.tensor).all())


def test_what_peft_wrote_holds_one_tensor(tiny_base_folder: TinyBase, tmp_path: Path) -> None:
    """As long as this holds, nothing of what a projection needs is left out."""
    _, saved = saved_by_peft(tiny_base_folder("llama"), tmp_path / "theirs", "projected")

    assert set(load_file(saved / WEIGHTS)) == {TENSOR}
    assert json.loads((saved / CONFIG).read_text())["prefix_projection"] is True


def test_a_folder_of_several_adapters_asks_which(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / "both" / name)
    with pytest.raises(ArtifactError, match=r"holds 2 adapters in folders of their own \(one, two\); name one"):
        peft_folder.read(tmp_path / "both")
