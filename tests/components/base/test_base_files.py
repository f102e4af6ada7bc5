"""A source that is no whole base is refused with what it lacks and how to make that, never with a circle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from components.base import base_files
from components.base.base_hash import hash_base
from components.base.base_model import materialise
from components.config.params import BaseParams
from components.errors import BaseError, PrefaceError, UnsupportedBase
from tests.conftest import TinyBase

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a0" * 32 + "\nsize 269060552\n"


@pytest.fixture
def base(tiny_base_folder: TinyBase, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_base_folder(), tmp_path / "source")


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    held = json.loads(file.read_text(encoding="utf-8"))
    change(held)
    file.write_text(json.dumps(held), encoding="utf-8")


def refused(folder: Path, tmp_path: Path, kind: type[PrefaceError], match: str) -> None:
    """``materialise`` refuses the source so, and leaves nothing."""
    pin = BaseParams(source=str(folder), hash="0" * 64)
    with pytest.raises(kind, match=match) as caught:
        materialise("tiny", pin, tmp_path / "bases" / "tiny")
    assert "\n" not in str(caught.value)
    assert "preface prepare" not in str(caught.value)
    assert not (tmp_path / "bases" / "tiny").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_git_lfs_pointer_is_told_in_place_of_any_file(base: Path, tmp_path: Path, name: str) -> None:
    (base / name).write_text(POINTER)
    refused(base, tmp_path, BaseError, rf"{name} is a Git LFS pointer to 269060552 bytes.*git lfs pull")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", r"holds no config\.json, it holds .*save_pretrained"),
        ("model.safetensors", r"holds no model\.safetensors.*pytorch_model\.bin.*safetensors with"),
        ("tokenizer.json", r"holds no tokenizer\.json.*AutoTokenizer\.from_pretrained\(.*save_pretrained\('FOLDER'\)"),
    ],
)
def test_a_missing_file_is_told_with_how_it_is_made(base: Path, tmp_path: Path, name: str, said: str) -> None:
    (base / name).unlink()
    refused(base, tmp_path, BaseError, said)


@pytest.mark.parametrize("other", ["tokenizer.model", "vocab.json", "vocab.txt"])
def test_a_slow_tokenizer_is_told_by_its_file(base: Path, tmp_path: Path, other: str) -> None:
    (base / "tokenizer.json").unlink()
    (base / other).write_text("x")
    refused(base, tmp_path, BaseError, rf"holds no tokenizer\.json, only {other}; make it once")


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "is empty"), ("<!DOCTYPE html><html>", "is a page of a web site"), ("abcdefghij", "not a whole safetensors")],
)
def test_weights_that_are_something_else_are_told(base: Path, tmp_path: Path, content: str, said: str) -> None:
    (base / "model.safetensors").write_text(content)
    refused(base, tmp_path, BaseError, said)


def test_shards_that_are_not_there_are_named(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(base, tmp_path, BaseError, r"lacks 1 of the 2 files .*model-00002-of-00002\.safetensors; download")


@pytest.mark.parametrize("name", ["../model.safetensors", "", "m" * 300, 7, None, [], "é" * 128, "\ud800" * 300])
def test_an_index_of_what_can_be_no_file_is_refused(base: Path, tmp_path: Path, name: object) -> None:
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused(base, tmp_path, BaseError, "does not map tensors to files beside it")


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"load_in_8bit": True},
        *(
            {"quant_method": how}
            for how in ("gptq", "awq", "compressed-tensors", "fp8", "mxfp4", "hqq", "aqlm", "quark")
        ),
    ],
)
def test_quantised_bases_are_refused_whatever_the_method(base: Path, tmp_path: Path, said: dict[str, Any]) -> None:
    edit(base / "config.json", lambda held: held.update(quantization_config=said))
    refused(base, tmp_path, UnsupportedBase, f"quantised by {said.get('quant_method', 'bitsandbytes')}.*full precision")


def test_packed_weights_are_known_by_their_tensors_too(base: Path, tmp_path: Path) -> None:
    held = load_file(base / "model.safetensors")
    save_file({**held, "model.layers.0.mlp.up_proj.qweight": np.zeros((2, 2), np.int32)}, base / "model.safetensors")
    refused(base, tmp_path, UnsupportedBase, r"packed: model\.layers\.0\.mlp\.up_proj\.qweight is I32")


@pytest.mark.parametrize("special", [True, False])
def test_a_token_beyond_the_embedding_is_refused_with_both_numbers(base: Path, tmp_path: Path, special: bool) -> None:
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    token = {"id": rows, "content": "<order>", "special": special} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
    edit(base / "tokenizer.json", lambda held: held["added_tokens"].append(token))
    refused(base, tmp_path, UnsupportedBase, rf"id {rows} for '<order>' .* has {rows} rows \(ids 0 to {rows - 1}\)")


def test_safetensors_are_the_base_although_a_gguf_lies_beside_them(base: Path, tmp_path: Path) -> None:
    pin = BaseParams(source=str(base), hash=hash_base(base).value)
    (base / "tiny.gguf").write_bytes(b"GGUF\3")
    assert materialise("tiny", pin, tmp_path / "bases" / "tiny").value == pin.hash
    assert not list((tmp_path / "bases" / "tiny").glob("*.gguf"))


def test_several_ggufs_ask_which_and_parts_of_one_how_to_merge(tmp_path: Path) -> None:
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(BaseError, match=r"one GGUF in 2 parts .*gguf-split --merge"):
        base_files.gguf_of(tmp_path, "here")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(BaseError, match=r"holds 3 GGUF files .*source: here/a-00001-of-00002\.gguf"):
        base_files.gguf_of(tmp_path, "here")


@pytest.mark.parametrize("added", [5, "abc", {"id": 3}, None])
def test_added_tokens_that_are_no_list_add_none(base: Path, added: object) -> None:
    edit(base / "tokenizer.json", lambda said: said.update(added_tokens=added))
    base_files.check(base, str(base))
