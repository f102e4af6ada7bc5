"""The base hash: what changes it, what does not, and which of its three digests says so."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from components.base.base_hash import BaseHash, hash_base, require
from components.errors import BaseError, BaseMismatch


@pytest.fixture
def base(tiny_base_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama to plant faults in."""
    return Path(shutil.copytree(tiny_base_folder("llama"), tmp_path / "base"))


def changed(before: BaseHash, after: BaseHash) -> set[str]:
    """The names of the digests that differ."""
    return {name for name in ("weights", "config", "tokenizer") if getattr(before, name) != getattr(after, name)}


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes one away."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if changes.get(key, "") is not None}))


def shard(folder: Path, parts: int) -> None:
    """The same weights, in several files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = {name: tensors[name] for name in sorted(tensors)[part::parts]}
        save_file(mine, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


# --- weights ----------------------------------------------------------------------------------------------------------


def test_sharding_and_metadata_do_not_count(base: Path) -> None:
    before = hash_base(base)
    save_file(load_file(base / "model.safetensors"), base / "model.safetensors", metadata={"written": "elsewhere"})
    assert hash_base(base) == before
    shard(base, 3)
    assert hash_base(base) == before


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_bit_of_every_weight_counts(
    tiny_base_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    base = Path(shutil.copytree(tiny_base_folder("llama"), tmp_path_factory.mktemp("flip") / "base"))
    before = hash_base(base)
    content = bytearray((base / "model.safetensors").read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    content[start + int(where * (len(content) - start))] ^= 1 << bit
    (base / "model.safetensors").write_bytes(content)
    assert changed(before, hash_base(base)) == {"weights"}


@pytest.mark.parametrize("fault", ["name", "shape", "dtype", "gone"])
def test_names_shapes_and_dtypes_count(base: Path, fault: str) -> None:
    before = hash_base(base)
    tensors = load_file(base / "model.safetensors")
    norm = tensors.pop("model.norm.weight")
    if fault == "name":
        tensors["model.norm.weights"] = norm
    elif fault == "shape":
        tensors["model.norm.weight"] = norm.reshape(2, -1)
    elif fault == "dtype":
        tensors["model.norm.weight"] = norm.view(np.int32)
    save_file(tensors, base / "model.safetensors")
    assert changed(before, hash_base(base)) == {"weights"}


def test_files_that_are_not_loaded_do_not_count(base: Path) -> None:
    before = hash_base(base)
    save_file({"x": np.zeros(1)}, base / "consolidated.safetensors")
    (base / "generation_config.json").unlink()
    (base / "README.md").write_text("about it")
    assert hash_base(base) == before


# --- configuration and tokenizer --------------------------------------------------------------------------------------


def test_stamps_of_version_place_and_precision_do_not_count(base: Path) -> None:
    before = hash_base(base)
    edit(
        base / "config.json", transformers_version="9.0", _name_or_path="/elsewhere", torch_dtype="float16", dtype=None
    )
    edit(base / "tokenizer_config.json", model_max_length=7, name_or_path="/elsewhere")
    edit(base / "tokenizer.json", padding={"strategy": "BatchLongest"}, truncation={"max_length": 3})
    assert hash_base(base) == before


@pytest.mark.parametrize("change", [{"rms_norm_eps": 1e-5}, {"rope_parameters": {"rope_theta": 2e4}}, {"new_key": 1}])
def test_every_other_key_of_the_configuration_counts(base: Path, change: dict[str, Any]) -> None:
    before = hash_base(base)
    edit(base / "config.json", **change)
    assert changed(before, hash_base(base)) == {"config"}


def swap_two_words(base: Path) -> None:
    content = json.loads((base / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (base / "tokenizer.json").write_text(json.dumps(content))


def drop_a_merge(base: Path) -> None:
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    (base / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        swap_two_words,
        drop_a_merge,
        lambda base: edit(base / "tokenizer.json", normalizer={"type": "Lowercase"}),
        lambda base: edit(base / "tokenizer_config.json", eos_token="a"),
        lambda base: edit(base / "tokenizer_config.json", add_bos_token=True),
        lambda base: edit(base / "tokenizer_config.json", chat_template="{{ messages }}"),
        lambda base: (base / "chat_template.jinja").write_text("{{ messages }}"),
    ],
    ids=["vocabulary", "merges", "normalizer", "end token", "begin token", "chat template", "chat template file"],
)
def test_what_makes_other_tokens_counts(base: Path, change: Callable[[Path], object]) -> None:
    before = hash_base(base)
    change(base)
    assert changed(before, hash_base(base)) == {"tokenizer"}


def test_two_spellings_of_one_tokenizer_are_one(base: Path) -> None:
    edit(base / "tokenizer_config.json", chat_template="{{ messages }}")
    before = hash_base(base)
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (base / "tokenizer.json").write_text(json.dumps(content, indent=4))
    edit(base / "tokenizer_config.json", eos_token={"content": "<|end|>", "lstrip": False}, chat_template=None)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert hash_base(base) == before


# --- the memory -------------------------------------------------------------------------------------------------------


def age(base: Path) -> None:
    """Make the weights old enough to be remembered."""
    past = time.time() - 60
    os.utime(base / "model.safetensors", (past, past))


def test_weights_are_read_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(base)
    before = hash_base(base)
    monkeypatch.setattr("components.base.base_hash.tensors", lambda file: pytest.fail(f"{file} was read again"))
    assert hash_base(base) == before


def test_a_changed_byte_is_seen_in_spite_of_the_memory_even_with_its_time_put_back(base: Path) -> None:
    age(base)
    before, times = hash_base(base), os.stat(base / "model.safetensors")
    with (base / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    os.utime(base / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed(before, hash_base(base)) == {"weights"}


def test_a_folder_that_may_only_be_read_is_hashed_each_time(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(base)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    assert hash_base(base) == hash_base(base)


def test_a_broken_memory_is_not_believed(base: Path) -> None:
    age(base)
    before = hash_base(base)
    (memory,) = base.parent.glob(".base.*")
    for content in ("", "[]", '{"folder": 1}'):
        memory.write_text(content)
        assert hash_base(base) == before


def test_the_folder_itself_gets_no_file(base: Path) -> None:
    age(base)
    before = sorted(base.iterdir())
    hash_base(base)
    assert sorted(base.iterdir()) == before


# --- faults -----------------------------------------------------------------------------------------------------------


def test_the_pinned_base_passes(base: Path) -> None:
    found = hash_base(base)
    assert require(base, found.value) == found


def test_another_base_is_refused_with_both_hashes_and_the_three_digests(base: Path) -> None:
    found = hash_base(base)
    with pytest.raises(BaseMismatch) as raised:
        require(base, "0" * 64)
    for part in (found.value, "0" * 64, found.weights, found.config, found.tokenizer, "preface prepare"):
        assert part in str(raised.value)


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"no base model at .*nowhere; make it with `preface prepare`"):
        require(tmp_path / "nowhere", "0" * 64)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_refused(base: Path, name: str) -> None:
    (base / name).unlink()
    with pytest.raises(BaseError, match=name):
        hash_base(base)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_file_that_is_not_json_is_refused(base: Path, name: str, content: str) -> None:
    (base / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(BaseError, match=name):
        hash_base(base)


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_cut_off_weight_file_is_refused(base: Path, keep: int) -> None:
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(BaseError, match=r"model\.safetensors is not a whole safetensors file"):
        hash_base(base)


def test_a_missing_shard_is_refused(base: Path) -> None:
    shard(base, 3)
    (base / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(BaseError, match=r"lacks model-00002-of-00003\.safetensors"):
        hash_base(base)


def test_a_tensor_in_two_shards_is_refused(base: Path) -> None:
    shard(base, 2)
    shutil.copy(base / "model-00001-of-00002.safetensors", base / "model-00002-of-00002.safetensors")
    with pytest.raises(BaseError, match=r"stands in .*00001.* and in .*00002"):
        hash_base(base)


@pytest.mark.parametrize("weight_map", [None, {"a": "../model.safetensors"}, {"a": 1}])
def test_an_index_that_leads_elsewhere_is_refused(base: Path, weight_map: object) -> None:
    shard(base, 2)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BaseError, match="does not map tensors to files of its own folder"):
        hash_base(base)
