"""The adapter folder: what is written is read back, and every fault planted in it is a refusal."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import ArtifactError, BaseMismatch, PrefaceError
from registry.artifact import adapter_folder
from registry.artifact.manifest import Draft, Shape

MakeDraft = Callable[..., Draft]
MakeAdapter = Callable[..., Path]
NAMES = [*adapter_folder.FILES, adapter_folder.MANIFEST]


@pytest.fixture
def folder(tmp_path: Path, write_adapter: MakeAdapter) -> Path:
    return write_adapter(tmp_path / "adapter")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, write_adapter: MakeAdapter) -> Path:
    return write_adapter(tmp_path_factory.mktemp("pristine") / "adapter", "prefix")


def seal(folder: Path, edit: dict[str, Any]) -> None:
    """Edit the manifest and give it the digest of its new content, as a determined liar would."""
    content = json.loads((folder / adapter_folder.MANIFEST).read_text()) | edit
    del content["digest"]
    content["digest"] = hashlib.sha256(render(content)).hexdigest()
    (folder / adapter_folder.MANIFEST).write_bytes(render(content))


def render(content: Any) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def forge_weights(folder: Path, raw: bytes) -> None:
    """Put other weights in and make every digest agree again."""
    (folder / adapter_folder.WEIGHTS).write_bytes(raw)
    files = json.loads((folder / adapter_folder.MANIFEST).read_text())["files"]
    files[adapter_folder.WEIGHTS] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    seal(folder, {"files": files})


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_what_was_written_is_read_back(tmp_path: Path, draft: MakeDraft, method: str) -> None:
    made = draft(method, template="Avis : « {text} »\n")
    tensor = np.random.default_rng(0).standard_normal(made.tensor_shape).astype(np.float32)

    written = adapter_folder.write(tmp_path / "adapter", tensor, made)
    adapter = adapter_folder.read(tmp_path / "adapter", base_hash=made.base.hash)

    assert adapter.manifest == written
    assert adapter.manifest.model_dump(exclude={"format", "files", "digest"}) == made.model_dump()
    np.testing.assert_array_equal(adapter.tensor, tensor)
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == sorted(NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_the_same_draft_gives_the_same_bytes(tmp_path: Path, write_adapter: MakeAdapter) -> None:
    one, two = write_adapter(tmp_path / "one"), write_adapter(tmp_path / "two")

    assert [(one / n).read_bytes() for n in NAMES] == [(two / n).read_bytes() for n in NAMES]


def test_writing_again_replaces_the_whole_folder(folder: Path, write_adapter: MakeAdapter) -> None:
    (folder / "left-over").touch()

    write_adapter(folder, "prefix", seed=7)

    assert adapter_folder.read(folder).manifest.seed == 7


@pytest.mark.parametrize("name", NAMES)
class TestOneFile:
    def test_flipped_byte(self, folder: Path, name: str) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)

        with pytest.raises(ArtifactError, match=name):
            adapter_folder.read(folder)

    def test_truncated(self, folder: Path, name: str) -> None:
        os.truncate(folder / name, (folder / name).stat().st_size - 1)

        with pytest.raises(ArtifactError, match=name):
            adapter_folder.read(folder)

    def test_empty(self, folder: Path, name: str) -> None:
        os.truncate(folder / name, 0)

        with pytest.raises(ArtifactError, match=name):
            adapter_folder.read(folder)

    def test_grown(self, folder: Path, name: str) -> None:
        with (folder / name).open("ab") as file:
            file.write(b"\n")

        with pytest.raises(ArtifactError, match=name):
            adapter_folder.read(folder)

    def test_missing(self, folder: Path, name: str) -> None:
        (folder / name).unlink()

        with pytest.raises(ArtifactError, match=name):
            adapter_folder.read(folder)

    def test_symlink_to_the_right_bytes(self, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)

        with pytest.raises(ArtifactError, match="symbolic link"):
            adapter_folder.read(folder)

    def test_a_pipe_in_its_place_does_not_hang(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

        with pytest.raises(ArtifactError, match="regular file"):
            adapter_folder.read(folder)

    def test_a_folder_in_its_place(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

        with pytest.raises(ArtifactError, match="regular file"):
            adapter_folder.read(folder)


@pytest.mark.parametrize("extra", ["optimizer.pt", ".hidden", "sub/"])
def test_an_extra_entry_is_named(folder: Path, extra: str) -> None:
    (folder / extra).mkdir() if extra.endswith("/") else (folder / extra).touch()

    with pytest.raises(ArtifactError, match=f"holds \\['{extra.strip('/')}'\\]"):
        adapter_folder.read(folder)


def test_no_folder_and_no_manifest_are_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a folder"):
        adapter_folder.read(tmp_path / "absent")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        adapter_folder.read(tmp_path)


def test_another_base_is_refused_with_both_hashes(folder: Path, draft: MakeDraft) -> None:
    with pytest.raises(BaseMismatch, match=f"{draft().base.hash} and would run on {'a' * 64}"):
        adapter_folder.read(folder, base_hash="a" * 64)


@pytest.mark.parametrize("edit", [{"template": "{text}"}, {"seed": 1}, {"metrics": {"accuracy": 0.99}}])
def test_an_edited_manifest_is_refused(folder: Path, edit: dict[str, Any]) -> None:
    content = json.loads((folder / adapter_folder.MANIFEST).read_text())
    (folder / adapter_folder.MANIFEST).write_text(json.dumps(content | edit, indent=1, sort_keys=True) + "\n")

    with pytest.raises(ArtifactError, match="changed after it was written"):
        adapter_folder.read(folder)


def test_a_manifest_in_other_bytes_is_refused(folder: Path) -> None:
    path = folder / adapter_folder.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text())))

    with pytest.raises(ArtifactError, match="changed after it was written"):
        adapter_folder.read(folder)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ({"format": 2}, "format"),
        ({"virtual_tokens": "3"}, "virtual_tokens"),
        ({"surprise": 1}, "surprise"),
        ({"metrics": {"accuracy": None}}, r"metrics\.accuracy"),
        ({"base": dict.fromkeys(("hash", "weights", "config", "tokenizer"), "a" * 64) | {"name": "x"}}, "base hash"),
    ],
)
def test_a_manifest_of_another_form_is_refused(folder: Path, edit: dict[str, Any], fault: str) -> None:
    seal(folder, edit)

    with pytest.raises(ArtifactError, match=fault):
        adapter_folder.read(folder)


def test_a_manifest_that_forgets_a_file_is_refused(folder: Path) -> None:
    files = json.loads((folder / adapter_folder.MANIFEST).read_text())["files"]
    del files[adapter_folder.WEIGHTS]
    seal(folder, {"files": files})

    with pytest.raises(ArtifactError, match=r"lists \['adapter_config.json', 'card.md'\]"):
        adapter_folder.read(folder)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"seed": NaN}', b"null"])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, raw: bytes) -> None:
    (folder / adapter_folder.MANIFEST).write_bytes(raw)

    with pytest.raises(ArtifactError, match=adapter_folder.MANIFEST):
        adapter_folder.read(folder)


def test_a_manifest_of_a_gigabyte_is_not_read(folder: Path) -> None:
    os.truncate(folder / adapter_folder.MANIFEST, 1 << 30)  # sparse: costs nothing here

    with pytest.raises(ArtifactError, match="at most 1048576"):
        adapter_folder.read(folder)


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"prompt_embeddings": np.full((3, 32), np.nan, np.float32)}, "96 of 96 values"),
        ({"prompt_embeddings": np.full((3, 32), np.inf, np.float32)}, "96 of 96 values"),
        ({"prompt_embeddings": np.zeros((4, 32), np.float32)}, r"\(4, 32\), prompt of this base has \(3, 32\)"),
        ({"prompt_embeddings": np.zeros((32, 3), np.float32)}, r"\(32, 3\), prompt of this base has \(3, 32\)"),
        ({"prompt_embeddings": np.zeros((3, 32), np.float16)}, "float16, it must be float32"),
        ({"prompt_embeddings": np.zeros((3, 32), np.float64)}, "float64, it must be float32"),
        ({"embeddings": np.zeros((3, 32), np.float32)}, r"holds \['embeddings'\]"),
        ({k: np.zeros((3, 32), np.float32) for k in ("prompt_embeddings", "x")}, "alone"),
        ({}, r"holds \[\]"),
    ],
)
def test_a_wrong_tensor_is_refused_whatever_the_digests_say(
    folder: Path, tensors: dict[str, np.ndarray[Any, Any]], fault: str
) -> None:
    forge_weights(folder, safetensors.numpy.save(tensors))

    with pytest.raises(ArtifactError, match=fault):
        adapter_folder.read(folder)


@pytest.mark.parametrize("raw", [b"not safetensors at all", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}trailing"])
def test_weights_that_are_no_safetensors_are_refused_whatever_the_digests_say(folder: Path, raw: bytes) -> None:
    forge_weights(folder, raw)

    with pytest.raises(ArtifactError, match=adapter_folder.WEIGHTS):
        adapter_folder.read(folder)


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (np.full((3, 32), np.nan, np.float32), "not finite"),
        (np.zeros((2, 32), np.float32), r"\(2, 32\)"),
        (np.zeros((3, 32), np.float64), "float64"),
    ],
)
def test_a_wrong_tensor_is_not_written(
    tmp_path: Path, draft: MakeDraft, tensor: np.ndarray[Any, Any], fault: str
) -> None:
    with pytest.raises(ArtifactError, match=fault):
        adapter_folder.write(tmp_path / "adapter", tensor, draft())

    assert not list(tmp_path.iterdir())


def test_what_json_cannot_say_is_not_written(tmp_path: Path, draft: MakeDraft) -> None:
    with pytest.raises(ArtifactError, match="no manifest can say"):
        adapter_folder.write(tmp_path / "adapter", np.zeros((3, 32), np.float32), draft(params={"x": float("nan")}))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", range(1, 8))
@pytest.mark.parametrize("before", [None, "prompt"])
def test_a_full_disk_leaves_the_old_adapter_or_none(
    tmp_path: Path, write_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch, failing: int, before: str | None
) -> None:
    folder = tmp_path / "adapter"
    if before:
        write_adapter(folder, seed=1)
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    if failing <= 6:  # four files, their folder, and its parent
        with pytest.raises(ArtifactError, match="No space left on device"):
            write_adapter(folder, "prefix", seed=2)
    else:
        write_adapter(folder, "prefix", seed=2)

    # The last two: everything is on the disk, and only the parent's own entry may not outlive a power cut.
    expected = {"prefix"} if failing >= 6 else {before}
    found = adapter_folder.read(folder).manifest.method if folder.exists() else None
    assert found in expected
    assert {p.name for p in tmp_path.iterdir()} <= {"adapter"}


def test_a_full_disk_met_by_write_itself(tmp_path: Path, draft: MakeDraft) -> None:
    """A real one: the child may make no file longer than 300 bytes."""
    code = (
        "import resource, signal, sys, numpy as np; from pathlib import Path\n"
        "from registry.artifact import adapter_folder, manifest; from components.errors import ArtifactError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "draft = manifest.Draft.model_validate_json(sys.argv[2])\n"
        "try: adapter_folder.write(Path(sys.argv[1]), np.zeros(draft.tensor_shape, np.float32), draft)\n"
        "except ArtifactError: sys.exit(7)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "adapter"), draft().model_dump_json()]

    assert subprocess.run(arguments, check=False).returncode == 7
    assert not list(tmp_path.iterdir())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_flip_cut_or_swap_is_ever_accepted(pristine: Path, tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "adapter"
    shutil.copytree(pristine, folder)
    path = folder / data.draw(st.sampled_from(NAMES))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "insert", "swap"]))
    if damage == "flip":
        changed = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    elif damage == "cut":
        changed = raw[:at]
    elif damage == "insert":
        changed = raw[:at] + data.draw(st.binary(min_size=1, max_size=4)) + raw[at:]
    else:
        changed = (folder / data.draw(st.sampled_from([n for n in NAMES if n != path.name]))).read_bytes()
    path.write_bytes(changed)

    with pytest.raises(ArtifactError):
        adapter_folder.read(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_fuzzed_manifest_raises_nothing_but_our_own(
    pristine: Path, tmp_path_factory: Any, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzzed") / "adapter"
    shutil.copytree(pristine, folder)
    content = json.loads((folder / adapter_folder.MANIFEST).read_text())
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(json_values)
    (folder / adapter_folder.MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

    try:
        adapter_folder.read(folder)
    except PrefaceError:
        return
    assert content == json.loads((pristine / adapter_folder.MANIFEST).read_text())


@pytest.mark.parametrize(("method", "limit"), [("prompt", 64_000), ("prefix", 1_000_000)])
def test_twenty_tokens_of_the_demo_base_stay_small(
    tmp_path: Path, write_adapter: MakeAdapter, method: str, limit: int
) -> None:
    shape = Shape(layers=30, kv_heads=3, head_size=64, hidden=576, heads=9)

    folder = write_adapter(tmp_path / "adapter", method, virtual_tokens=20, shape=shape)

    assert sum(path.stat().st_size for path in folder.iterdir()) < limit


def test_the_card_says_what_a_person_asks(folder: Path) -> None:
    text = (folder / adapter_folder.CARD).read_text()

    assert "# movie-sentiment" in text
    assert adapter_folder.read(folder).manifest.base.hash in text
    assert "| accuracy | 0.9000 |" in text


def test_reading_an_adapter_imports_nothing_heavy() -> None:
    heavy = {"torch", "mlflow", "pandas", "prefect"}
    code = f"import registry.artifact.adapter_folder, sys; sys.exit(bool({heavy} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
