"""Ten thousand spoilt adapter folders, none of which the registry takes for what was registered.

A share of them in every test run. All of them, with the figures, in the slow tier (no pretrained model is needed):

    pytest -m slow tests/registry/artifact/test_artifact_faults.py --log-cli-level=info
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from components.base.base_hash import BaseHash
from components.errors import ArtifactError, PrefaceError
from registry.artifact import adapter_folder
from registry.artifact.manifest import Manifest
from registry.protocol import Version
from registry.releases import checks

from .mutations import KINDS, Contents, Mutant, mutant

Campaign = Callable[..., Counter[str]]
BY_RECORD = "told by the registry's record alone"


class Accepted(Exception):
    """A spoilt folder passed for a good one."""


def contents_of(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(folder: Path, contents: Contents) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)


def refusal(check: Callable[[], object]) -> str:
    """What one of our own errors said, empty where none was raised; whatever else is raised goes on."""
    try:
        check()
    except PrefaceError as error:
        return str(error)
    return ""


def judge(store: Any, version: Version, spoilt: Mutant) -> bool:
    """Whether the folder alone tells that it is spoilt.

    Raises:
        Accepted: not even together with the registry's record.
    """
    folder = Path(version.source)
    put(folder, spoilt.contents)
    alone, recorded = refusal(lambda: adapter_folder.read(folder)), refusal(lambda: checks.verify(store, version))
    if not recorded or not (alone or spoilt.consistent):
        raise Accepted(f"{spoilt.kind}: {version.name}")
    assert all(len(text.encode()) < 4000 and len(text.splitlines()) <= 1 for text in (alone, recorded))
    return bool(alone)


@pytest.fixture
def campaign(candidate: Callable[..., Version], store: Any, tmp_path: Path, write_adapter: Any, draft: Any) -> Campaign:
    """Spoil registered adapters of both methods ``count`` times over; how often in which way."""
    base = draft().base
    other = BaseHash("9" * 64, base.config, base.tokenizer)
    other_base = base.model_copy(update={"weights": other.weights, "hash": other.value})
    registered = {method: candidate(store, method=method) for method in ("prompt", "prefix")}
    good = {method: contents_of(Path(version.source)) for method, version in registered.items()}
    donors = dict(good)
    for method in good:
        donors[f"{method}, other seed"] = contents_of(Path(candidate(store, method=method).source))
        donors[f"{method}, other base"] = contents_of(Path(candidate(store, method=method, base=other_base).source))
        donors[f"{method}, other task"] = contents_of(write_adapter(tmp_path / method, method, task="other"))

    def spoil(kind: str, count: int, options: dict[str, Any]) -> Counter[str]:
        counts: Counter[str] = Counter()
        seen = set()

        @settings(max_examples=count, suppress_health_check=list(HealthCheck), **options)
        @given(data=st.data())
        def one(data: st.DataObject) -> None:
            method = data.draw(st.sampled_from(sorted(good)))
            others = {name: contents for name, contents in donors.items() if name != method}
            spoilt = mutant(data.draw, good[method], others, kind)
            alone = judge(store, registered[method], spoilt)
            drawn = (method, frozenset(spoilt.contents.items()))
            assume(drawn not in seen)  # judged again, but not counted again
            seen.add(drawn)
            counts.update([kind] if alone else [kind, BY_RECORD])

        one()
        return counts

    def run(count: int, **options: Any) -> Counter[str]:
        counts: Counter[str] = Counter()
        # The kinds with few ways to go come first, and what they lack of their share the others make up for.
        few = [kind for kind in KINDS if kind.startswith(("swap", "rearrange"))]
        for position, kind in enumerate(few + [kind for kind in KINDS if kind not in few]):
            left = count - counts.total() + counts[BY_RECORD]
            counts += spoil(kind, -(-left // (len(KINDS) - position)), options)
        for method, version in registered.items():
            put(Path(version.source), good[method])
            checks.verify(store, version)
        return counts

    return run


@pytest.mark.parametrize("store", ["memory"], indirect=True)
@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_spoilt_folder_is_accepted(campaign: Campaign, count: int) -> None:
    began = time.monotonic()

    counts = campaign(count)

    by_record = counts.pop(BY_RECORD)
    logging.getLogger(__name__).info(
        "%d spoilt folders in %.0f s, 0 accepted, %d told by the registry's record alone: %s",
        counts.total(),
        time.monotonic() - began,
        by_record,
        dict(counts),
    )
    assert counts.total() >= count
    assert set(counts) == set(KINDS)
    assert by_record > 0


def _no_digest_of_a_file(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adapter_folder, "_read_file", lambda path, expected: path.read_bytes())


def _no_digest_of_the_manifest(patch: pytest.MonkeyPatch) -> None:
    def believe(folder: Path) -> Manifest:
        try:
            return Manifest.model_validate(json.loads((folder / adapter_folder.MANIFEST).read_bytes()))
        except ValueError as error:
            raise ArtifactError("not a manifest") from error

    patch.setattr(adapter_folder, "_read_manifest", believe)


def _no_look_at_the_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adapter_folder, "_tensor_fault", lambda tensor, draft: None)


def _no_look_at_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checks, "verify", lambda store, version: adapter_folder.read(store.download(version)))


@pytest.mark.parametrize("store", ["memory"], indirect=True)
@pytest.mark.parametrize(
    "plant", [_no_digest_of_a_file, _no_digest_of_the_manifest, _no_look_at_the_values, _no_look_at_the_record]
)
def test_each_check_is_missed_where_it_is_gone(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)

    with pytest.raises(Accepted):
        campaign(400, phases=[Phase.generate], derandomize=True, database=None)
