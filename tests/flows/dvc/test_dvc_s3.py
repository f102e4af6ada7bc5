"""A DVC remote on S3: what was pushed comes back by its hash, and faults are told as what they are.

moto's server stands for S3, behind a proxy that fails as it is told; DVC is the real one, in a process of its own.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.data.prepare import read_examples
from components.errors import DataError, SourceError, SourceUnavailable
from flows.dvc import by_hash, repro

pytestmark = pytest.mark.flow

MADE = ("data/raw/film", "data/prepared/film", ".dvc/cache", ".dvc/tmp")
BOUND = 60.0  # seconds that a push may take to say that S3 does not answer


@pytest.fixture
def root(prepared_folder: Path, faulty_store: Any) -> Path:
    """A prepared project whose DVC remote is a bucket, as the operations guide sets it up."""
    dvc(prepared_folder, "remote", "add", "--default", "store", "s3://reviews/dvc")
    return prepared_folder


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has the last word on how often S3 is asked; what else is repeated is s3fs's own patience."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=root, check=True)


def wipe(root: Path) -> None:
    """Another machine: a checkout with dvc.lock, without any data."""
    for made in MADE:
        shutil.rmtree(root / made, ignore_errors=True)


def restored(root: Path) -> Path:
    """The prepared rows by the hash in dvc.lock, as whoever has only the hash gets them back."""
    to = root / ".preface" / "restored"
    by_hash.restore(root, "film", repro.lock_entry(root, "film"), to)
    return to


def objects(bucket: Any) -> list[str]:
    return [found.key for found in bucket.objects.all()]


def test_what_was_pushed_comes_back_by_its_hash_through_faults_that_pass(
    root: Path, bucket: Any, faulty_store: Any
) -> None:
    before = read_examples(root / "data/prepared/film")
    for method in ("PUT", "GET"):
        for fault in (503, "cut"):
            faulty_store.plant(fault, method, "/dvc/files/md5/", times=1)
    repro.push(root, ["film"])
    wipe(root)

    assert read_examples(restored(root)) == before
    assert all(key.startswith("dvc/files/md5/") for key in objects(bucket))
    assert [fault.times for fault in faulty_store.faults] == [0, 0, 0, 0]


@pytest.mark.slow
def test_an_interrupted_push_leaves_nothing_that_a_pull_takes_for_good(
    root: Path, faulty_store: Any, bucket: Any, one_try: None
) -> None:
    kept = root.parent / "kept"
    shutil.copytree(root, kept)
    rows = (root / "data/prepared/film/examples.parquet").read_bytes()
    faulty_store.plant("cut", "PUT", hashlib.md5(rows, usedforsecurity=False).hexdigest()[2:])
    with pytest.raises(SourceUnavailable, match=r"dvc push failed, the remote does not answer: .*try again\Z"):
        repro.push(root, ["film"])
    prepared = repro.lock_entry(root, "film")["prepare@film"]["outs"][0]["md5"]
    assert objects(bucket)  # the other files got through
    assert not [key for key in objects(bucket) if key.endswith(prepared[2:])]
    faulty_store.heal()

    wipe(root)
    with pytest.raises(DataError, match=r"cannot be had from .*the remote store \(s3://reviews/dvc\): not there"):
        restored(root)
    assert not (root / ".preface/restored").exists()

    repro.push(kept, ["film"])
    assert read_examples(restored(root)) == read_examples(kept / "data/prepared/film")


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (403, SourceError, "the remote refuses: .*check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
        (503, SourceUnavailable, "the remote does not answer: .*check AWS_ENDPOINT_URL and try again"),
    ],
)
def test_a_lasting_fault_is_told_as_what_it_is(
    fault: int, kind: type[Exception], says: str, root: Path, faulty_store: Any, one_try: None
) -> None:
    faulty_store.plant(fault)
    began = time.monotonic()
    with pytest.raises(kind, match=rf"^dvc push failed, {says}") as caught:
        repro.push(root, ["film"])
    assert caught.type is kind
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < BOUND


def test_rows_that_a_remote_refuses_are_nowhere(root: Path, faulty_store: Any, one_try: None) -> None:
    """Another try is no remedy: the message names what to check."""
    wipe(root)
    faulty_store.plant(403)
    with pytest.raises(DataError, match=r"dvc pull failed, the remote refuses: .*check AWS_ACCESS_KEY_ID") as caught:
        restored(root)
    assert "\n" not in str(caught.value)


def test_a_remote_that_changed_its_bytes_is_found_out(root: Path, bucket: Any) -> None:
    """DVC takes a remote's word for its bytes, whoever reads the rows does not."""
    repro.push(root, ["film"])
    for found in bucket.objects.all():
        if not found.key.endswith(".dir"):
            content = found.get()["Body"].read()
            found.put(Body=content[: len(content) // 2])
    wipe(root)
    to = restored(root)
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(to)
