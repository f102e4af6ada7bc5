"""Every way in which an adapter folder is spoilt in the tests, by accident or by a determined liar.

A folder is here the names and bytes of its files. Nothing is read from or written to a disk, and nothing is judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from hypothesis import assume
from hypothesis import strategies as st

from registry.artifact.adapter_folder import FILES, MANIFEST, TENSOR, WEIGHTS

from . import hostile_json

Contents = dict[str, bytes]
# Functions of hypothesis' ``data.draw``: a strategy would carry whole folders around in its name.
Draw = Callable[[st.SearchStrategy[Any]], Any]
Floats = npt.NDArray[np.float32]
NAMES = [*FILES, MANIFEST]
BEYOND = st.sampled_from([np.nan, np.inf, -np.inf])


@dataclass(frozen=True)
class Mutant:
    """A spoilt folder. ``consistent``: every digest in it agrees, so that only what is recorded elsewhere can tell."""

    kind: str
    contents: Contents
    consistent: bool


def seal(contents: Contents) -> Contents:
    """Make every digest agree again, as a determined liar would."""
    manifest = json.loads(contents[MANIFEST])
    for name in FILES:
        raw = contents[name]
        manifest["files"][name] = {"size": len(raw), "sha256": digest_of(raw)}
    return {**contents, MANIFEST: sealed(manifest)}


def sealed(manifest: dict[str, object]) -> bytes:
    """The manifest's bytes, with the digest of whatever it says."""
    said = {key: value for key, value in manifest.items() if key != "digest"}
    digest = digest_of(hostile_json.encode(hostile_json.render(said)))
    return hostile_json.encode(hostile_json.render({**said, "digest": digest}))


def digest_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def flipped(draw: Draw, raw: bytes) -> bytes:
    at = draw(st.integers(0, len(raw) - 1))
    return raw[:at] + bytes([raw[at] ^ draw(st.integers(1, 255))]) + raw[at + 1 :]


def overwritten(draw: Draw, raw: bytes) -> bytes:
    at, put = draw(st.integers(0, len(raw) - 2)), draw(st.binary(min_size=2, max_size=64))
    return (raw[:at] + put + raw[at + len(put) :])[: len(raw)]


def truncated(draw: Draw, raw: bytes) -> bytes:
    return raw[: draw(st.integers(0, len(raw) - 1))]


def grown(draw: Draw, raw: bytes) -> bytes:
    at = draw(st.integers(0, len(raw)))
    return raw[:at] + draw(st.binary(min_size=1, max_size=64)) + raw[at:]


Change = Callable[[Draw, Contents, Mapping[str, Contents]], Contents]
BYTES = {"flip": flipped, "overwrite": overwritten, "truncate": truncated, "grow": grown}


def rearranged(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
    """A file lost, added, or under another's name."""
    name, other = draw(st.permutations(NAMES))[:2]
    what = draw(st.sampled_from(["lose", "add", "exchange", "copy"]))
    if what == "lose":
        return {key: raw for key, raw in contents.items() if key != name}
    if what == "add":
        return {**contents, draw(st.sampled_from(["x", ".x", "optimizer.pt", name + "~"])): contents[name]}
    return {**contents, name: contents[other], **({other: contents[name]} if what == "exchange" else {})}


def swapped(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
    """One to three files of another good adapter: of the same task, another task, method or base."""
    donor = donors[draw(st.sampled_from(sorted(donors)))]
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    return {**contents, **{name: donor[name] for name in names}}


def replaced(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
    """All of another good adapter."""
    return donors[draw(st.sampled_from(sorted(donors)))]


def with_tensor(contents: Contents, change: Callable[[Floats], None]) -> Contents:
    tensor = safetensors.numpy.load(contents[WEIGHTS])[TENSOR].copy()
    change(tensor)
    return {**contents, WEIGHTS: safetensors.numpy.save({TENSOR: tensor})}


def reordered(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
    """Two rows, columns or values of the tensor change places."""
    what = draw(st.sampled_from(["rows", "columns", "values"]))
    one, other = draw(st.integers(0, 9999)), draw(st.integers(0, 9999))

    def change(tensor: Floats) -> None:
        view = {"rows": tensor, "columns": tensor.T, "values": tensor.reshape(-1)}[what]
        a, b = one % len(view), other % len(view)
        view[[a, b]] = view[[b, a]]

    return with_tensor(contents, change)


def poisoned(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
    """Some values are no numbers, or infinite."""
    at, value = draw(st.lists(st.integers(0, 9999), min_size=1, max_size=5)), draw(BEYOND)

    def change(tensor: Floats) -> None:
        tensor.reshape(-1)[[place % tensor.size for place in at]] = value

    return with_tensor(contents, change)


def edited(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
    """The manifest says something else, or says the same in other bytes."""
    manifest = json.loads(contents[MANIFEST])
    if draw(st.integers(0, 9)) == 0:
        other = json.dumps(manifest, indent=draw(st.sampled_from([None, 0, 2])), sort_keys=draw(st.booleans()))
        return {**contents, MANIFEST: other.encode()}
    return {**contents, MANIFEST: hostile_json.encode(hostile_json.render(draw(hostile_json.edited(manifest))))}


def _bytewise(change: Callable[[Draw, bytes], bytes], names: list[str]) -> Change:
    def spoilt(draw: Draw, contents: Contents, donors: Mapping[str, Contents]) -> Contents:
        name = draw(st.sampled_from(names))
        return {**contents, name: change(draw, contents[name])}

    return spoilt


AS_FOUND: dict[str, Change] = {
    **{kind: _bytewise(change, NAMES) for kind, change in BYTES.items()},
    "rearrange": rearranged,
    "swap files": swapped,
    "swap all files": replaced,
    "reorder": reordered,
    "poison": poisoned,
    "edit manifest": edited,
}
SEALED: dict[str, Change] = {
    **{kind: _bytewise(change, list(FILES)) for kind, change in BYTES.items()},
    "swap files": swapped,
    "reorder": reordered,
    "poison": poisoned,
    "edit manifest": edited,
}
KINDS = [*AS_FOUND, *(f"{kind}, sealed" for kind in SEALED)]


def mutant(draw: Draw, contents: Contents, donors: Mapping[str, Contents], kind: str) -> Mutant:
    """A folder spoilt in that way; never one that is still the same."""
    plain, _, is_sealed = kind.partition(", ")
    changed = (SEALED if is_sealed else AS_FOUND)[plain](draw, contents, donors)
    if is_sealed:
        edit = plain == "edit manifest"
        changed = {**changed, MANIFEST: sealed(json.loads(changed[MANIFEST]))} if edit else seal(changed)
    assume(changed != contents)
    # Values that are no numbers are seen in the tensor itself, whatever the digests say.
    consistent = plain != "poison" if is_sealed else changed in donors.values()
    return Mutant(kind, changed, consistent)
