"""From an address to a frozen model: nothing but the pinned base gets through."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from components.base import base_model
from components.base.base_hash import hash_base
from components.base.base_model import bases_folder, load, materialise, pick_dtype
from components.base.base_support import KVShape
from components.config import params
from components.config.params import BaseParams
from components.errors import BaseError, BaseMismatch, PrefaceError, SourceError, UnsupportedBase
from components.sources import identity


@pytest.fixture
def folder(tiny_base_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama to plant faults in."""
    return Path(shutil.copytree(tiny_base_folder("llama"), tmp_path / "upstream"))


def pinned(source: Path, **changes: Any) -> BaseParams:
    return BaseParams.model_validate({"source": str(source), "hash": hash_base(source).value} | changes)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- materialise ------------------------------------------------------------------------------------------------------


def test_a_folder_of_the_hubs_form_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "bases" / "tiny"
    found = materialise("tiny", pinned(folder), to)
    assert found == hash_base(to)
    assert {path.name: path.read_bytes() for path in to.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert names(to.parent) <= {"tiny", ".tiny.weights.json"}


def test_a_base_that_lies_elsewhere_already_is_copied_and_not_fetched(folder: Path, tmp_path: Path) -> None:
    others, to = tmp_path / "elsewhere", tmp_path / "bases" / "tiny"
    shutil.copytree(folder, others / "under-another-name")
    gone = pinned(folder).model_copy(update={"source": str(tmp_path / "gone")})

    assert materialise("tiny", gone, to, others=others).value == gone.hash
    assert names(to) == names(folder)

    with pytest.raises(PrefaceError, match="gone"):  # another one is not taken
        materialise("tiny", gone.model_copy(update={"hash": "0" * 64}), to, others=others)
    assert hash_base(to).value == gone.hash


def test_pickles_and_code_stay_where_they_are(folder: Path, tmp_path: Path) -> None:
    before = names(folder)
    for name in ("pytorch_model.bin", "modeling_tiny.py", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(b"never read")
    materialise("tiny", pinned(folder), tmp_path / "bases" / "tiny")
    assert names(tmp_path / "bases" / "tiny") == before


def test_another_model_is_refused_and_the_old_base_kept(folder: Path, tmp_path: Path) -> None:
    to, pin = tmp_path / "bases" / "tiny", pinned(folder)
    materialise("tiny", pin, to)
    before = hash_base(to)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = hash_base(folder)
    with pytest.raises(BaseMismatch) as raised:
        materialise("tiny", pin, to)
    for part in (found.value, pin.hash, found.weights, found.config, found.tokenizer, "bases.tiny.hash"):
        assert part in str(raised.value)
    assert hash_base(to) == before


def test_an_architecture_that_does_not_fit_is_refused_before_it_is_in_place(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mistral", "sliding_window": 16}))
    with pytest.raises(UnsupportedBase, match="sliding window of 16 tokens"):
        materialise("tiny", pinned(folder), tmp_path / "bases" / "tiny")
    assert not (tmp_path / "bases" / "tiny").exists()


def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config | code))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UnsupportedBase, match="transformers cannot read"):
        materialise("tiny", pinned(folder), tmp_path / "bases" / "tiny")
    with pytest.raises(UnsupportedBase, match="transformers cannot read"):
        load(folder, hash_base(folder).value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("files", "says"), [(0, "holds no file"), (2, "holds 2 GGUF files")])
def test_an_address_without_one_model_is_refused(files: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "upstream").mkdir()
    for number in range(files):
        (tmp_path / "upstream" / f"{number}.gguf").touch()
    pin = BaseParams(source=str(tmp_path / "upstream"), hash="0" * 64)
    with pytest.raises((BaseError, SourceError), match=says):
        materialise("tiny", pin, tmp_path / "bases" / "tiny")


def test_the_stage_makes_a_base_of_params_yaml(folder: Path, tmp_path: Path) -> None:
    bases = {"tiny": pinned(folder).model_dump(exclude_none=True)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"bases": bases, "tasks": {}}))

    def stage(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "components.stage", "base", name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    note = tmp_path / identity.FOLDER / "bases" / "tiny.json"
    identity.write(note, identity.pins(pinned(folder)) | {"hash": "0" * 64})
    assert "tiny.json says of hash what params.yaml said before; run `preface prepare`" in stage("tiny").stderr
    identity.write(note, identity.pins(pinned(folder)))
    assert stage("tiny").returncode == 0
    assert hash_base(tmp_path / "bases" / "tiny").value == bases["tiny"]["hash"]
    refused = stage("huge")
    assert refused.returncode == 1
    assert refused.stderr == "ParamsError: params.yaml has no base 'huge'; it has ['tiny']\n"


def test_where_bases_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bases_folder(tmp_path) == tmp_path / "bases"
    monkeypatch.setenv("PREFACE_BASES", "/models")
    assert bases_folder(tmp_path) == Path("/models")


# --- load -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen", "gpt2"])
def test_a_loaded_base_is_frozen_and_knows_its_shape(tiny_base_folder: Callable[..., Path], kind: str) -> None:
    folder = tiny_base_folder(kind)
    base = load(folder, hash_base(folder).value, name=kind, device="cpu", dtype=torch.float32)
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert {parameter.dtype for parameter in base.model.parameters()} == {base.dtype} == {torch.float32}
    assert (base.name, base.device, base.hash) == (kind, torch.device("cpu"), hash_base(folder))
    shape = base.shape
    assert (shape.layers, shape.hidden, shape.context, shape.heads) == (2, 32, 512, 4)
    assert (shape.kv_heads, shape.head_size) == {"llama": (2, 8), "qwen": (2, 16), "gpt2": (4, 8)}[kind]
    assert base.tokenizer("a film").input_ids == base.words.encode("a film").ids


def test_the_dtype_is_the_one_that_the_device_is_fast_at(tiny_base_folder: Callable[..., Path]) -> None:
    folder = tiny_base_folder("llama")
    base = load(folder, hash_base(folder).value)
    assert base.dtype == pick_dtype(base.device)[0] == base.model.dtype
    assert base.name == folder.name


@pytest.mark.parametrize(
    ("able", "dtype", "why"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16, "the CPU has amx_bf16 and avx512_bf16"),
        ({"avx512_bf16": True}, torch.bfloat16, "the CPU has avx512_bf16"),
        ({"avx2": True, "avx512_bf16": False}, torch.float32, "the CPU has no bfloat16 units"),
    ],
)
def test_a_cpu_is_asked_for_its_units(
    able: dict[str, bool], dtype: torch.dtype, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert pick_dtype(torch.device("cpu")) == (dtype, why)


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_a_gpu_is_asked_for_its_generation(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_dtype(torch.device("cuda"))[0] == dtype


def test_another_base_is_not_even_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "refuse_by_config", lambda config: pytest.fail("it was opened"))
    with pytest.raises(BaseMismatch, match="0" * 64):
        load(folder, "0" * 64)
    with pytest.raises(BaseError, match="no base model at"):
        load(folder / "nowhere", "0" * 64)


def test_a_gap_in_the_weights_is_not_filled_with_random_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseError, match=r"lacks 1 tensors of its architecture, the first is model\.layers\.1\.mlp"):
        load(folder, hash_base(folder).value)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:16].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseError):
        load(folder, hash_base(folder).value)


def test_hashing_and_comparing_need_no_torch() -> None:
    code = (
        "import sys, components.base.base_model; sys.exit(bool({'torch', 'transformers', 'boto3'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_is_taken_where_there_is_one(tiny_base_folder: Callable[..., Path]) -> None:
    folder = tiny_base_folder("llama")
    base = load(folder, hash_base(folder).value)
    assert base.device.type == base.model.device.type == "cuda"


@pytest.mark.slow
def test_the_demos_base_is_the_one_that_params_yaml_pins() -> None:
    root = Path(__file__).parents[3]
    pin = params.load(root / "params.yaml").bases["smollm2-135m"]
    base = load(bases_folder(root) / "smollm2-135m", pin.hash, dtype=torch.float32)
    assert base.shape == KVShape(layers=30, kv_heads=3, head_size=64, hidden=576, context=8192, heads=9)
    assert base.words.encode("a  12").tokens == ["a", "ĠĠ", "1", "2"]
    ids = torch.tensor([base.words.encode("The capital of France is").ids], device=base.device)
    assert base.tokenizer.decode(base.model(input_ids=ids).logits[0, -1].argmax()) == " Paris"
