"""Whatever stands in a file of an adapter folder, only our own errors leave its reader, and they can be printed.

`adapter_config.json` is not parsed by `artifact.read`: its digest counts, and PEFT reads it. What is promised of
hostile bytes in it is just that. Time, memory and execution are measured in test_hostile_files.py.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import ArtifactError
from registry.artifact import adapter_folder
from registry.artifact.adapter_folder import CONFIG, FILES, MANIFEST, TENSOR, WEIGHTS

from . import hostile_json, mutations
from .mutations import Contents

many = pytest.mark.parametrize("count", [150, pytest.param(5_000, marks=pytest.mark.slow)])


@pytest.fixture(params=["prompt", "prefix"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, write_adapter: Callable[..., Path]) -> Path:
    return write_adapter(tmp_path / "adapter", request.param)


@pytest.fixture
def good(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(folder: Path, contents: Contents) -> adapter_folder.Adapter | None:
    """The adapter, None where our own error refuses it. Whatever else is raised goes on."""
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)
    try:
        return adapter_folder.read(folder)
    except ArtifactError as error:
        told = str(error)
    assert len(told.encode()) < 4000
    assert len(told.splitlines()) == 1
    return None


@many
def test_a_hostile_manifest(folder: Path, good: Contents, count: int) -> None:
    document = json.loads(good[MANIFEST])

    @settings(max_examples=count)
    @given(raw=hostile_json.arbitrary())
    def arbitrary(raw: bytes) -> None:
        assert read(folder, {**good, MANIFEST: raw}) is None

    @settings(max_examples=count)
    @given(spoilt=hostile_json.holed(document), is_sealed=st.booleans())
    def near_miss(spoilt: tuple[dict[str, Any], str], is_sealed: bool) -> None:
        changed, text = spoilt
        if is_sealed:
            changed = {**changed, "digest": mutations.digest_of(hostile_json.fill(_without_digest(changed), text))}
        adapter = read(folder, {**good, MANIFEST: hostile_json.fill(changed, text)})
        # A sealed manifest that could have been written is believed here: the registry's record tells.
        assert adapter is None or is_sealed or adapter.manifest.model_dump() == document

    arbitrary()
    near_miss()


def _without_digest(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "digest"}


@many
def test_hostile_bytes_in_a_file_that_is_not_parsed(folder: Path, good: Contents, count: int) -> None:
    document = json.loads(good[CONFIG])
    near = hostile_json.holed(document).map(lambda spoilt: hostile_json.fill(*spoilt))
    tensor = adapter_folder.read(folder).tensor

    @settings(max_examples=count)
    @given(raw=hostile_json.arbitrary() | near, name=st.sampled_from([n for n in FILES if n != WEIGHTS]))
    def fuzz(raw: bytes, name: str) -> None:
        spoilt = {**good, name: raw}
        adapter = read(folder, mutations.seal(spoilt))
        assert adapter is not None
        np.testing.assert_array_equal(adapter.tensor, tensor)
        assert raw == good[name] or read(folder, spoilt) is None

    fuzz()


SIZES = st.sampled_from(
    [0, 1, 3, 32, 96, 384, 385, -1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 2**64, 10**30, 1.5, "3", None]
)
DTYPES = st.sampled_from(
    [
        "F32",
        "F16",
        "F64",
        "BF16",
        "F8_E5M2",
        "F8_E4M3",
        "F4",
        "F6_E2M3",
        "C64",
        "I32",
        "U64",
        "BOOL",
        "f32",
        "",
        "object",
        0,
    ]
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.just("F32") | DTYPES,
        "shape": st.lists(SIZES, max_size=4) | st.just([0]) | st.integers(0, 100).map(lambda n: [1] * n) | SIZES,
        "data_offsets": st.sampled_from([[0, 384], [0, 768], [384, 0], [0, 0]]) | st.lists(SIZES, max_size=3) | SIZES,
    },
    optional={"extra": hostile_json.VALUES},
)
TENSOR_NAMES = st.sampled_from([TENSOR, TENSOR + "2", "__metadata__", ""]) | hostile_json.ANY_TEXT


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """The JSON of a header: several tensors, names that stand twice, or anything at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(hostile_json.arbitrary())
    pairs = draw(st.lists(st.tuples(TENSOR_NAMES, ENTRIES | hostile_json.VALUES), max_size=4))
    return hostile_json.encode("{" + ", ".join(f"{json.dumps(name)}: {json.dumps(said)}" for name, said in pairs) + "}")


@st.composite
def weights(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file whose header says anything of itself; the data may be right, cut, or more than was said."""
    header = draw(headers())
    lengths = st.sampled_from([0, 1, 7, 8, 2**31, 2**32, 10**8, 10**8 + 1, 2**63, 2**64 - 1]) | st.integers(0, 400)
    length = draw(st.just(len(header)) | lengths)
    return struct.pack("<Q", length) + header + draw(st.sampled_from([data, b"", data[:-1], data * 2, data + b"\0"]))


@many
def test_a_hostile_header_whatever_the_digests_say(folder: Path, good: Contents, count: int) -> None:
    tensor = adapter_folder.read(folder).tensor

    @settings(max_examples=count)
    @given(raw=weights(tensor.tobytes()))
    def fuzz(raw: bytes) -> None:
        adapter = read(folder, mutations.seal({**good, WEIGHTS: raw}))
        if adapter is not None:  # the strategy may happen on a header that is right
            assert (adapter.tensor.shape, adapter.tensor.dtype) == (tensor.shape, np.float32)
            assert np.isfinite(adapter.tensor).all()

    fuzz()


def test_a_header_that_names_thousands_of_tensors_is_not_parsed(folder: Path, good: Contents) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(number): entry for number in range(10_000)}).encode()
    spoilt = mutations.seal({**good, WEIGHTS: struct.pack("<Q", len(header)) + header})
    for name, raw in spoilt.items():
        (folder / name).write_bytes(raw)

    with pytest.raises(ArtifactError, match=f"header of {len(header)} bytes, at most 4096"):
        adapter_folder.read(folder)


@pytest.mark.parametrize("size", [2**24 + 1, int("9" * 4000)], ids=["large", "of 4000 digits"])
def test_sizes_beyond_every_model_are_refused_before_they_are_multiplied(
    folder: Path, good: Contents, size: int
) -> None:
    manifest = json.loads(good[MANIFEST])
    manifest["shape"] = dict.fromkeys(manifest["shape"], size)
    (folder / MANIFEST).write_bytes(mutations.sealed(manifest))

    with pytest.raises(ArtifactError, match=r"shape\.layers: Input should be less than or equal to 16777216"):
        adapter_folder.read(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"params": {"note": "x" * (1 << 20)}}, r"manifest\.json of \d+ bytes would be too long to read"),
        ({"template": "x" * (1 << 20)}, r"card\.md of \d+ bytes would be too long to read"),
        ({"template": "half a character: \ud800"}, "no manifest can say this"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path, write_adapter: Callable[..., Path], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ArtifactError, match=told):
        write_adapter(tmp_path / "new", **changes)

    assert not list(tmp_path.iterdir())


def test_the_fuzzing_would_show_a_missing_check(folder: Path, good: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_folder, "SafetensorError", KeyError)

    with pytest.raises(safetensors.SafetensorError):
        read(folder, mutations.seal({**good, WEIGHTS: b"\0" * 8}))
