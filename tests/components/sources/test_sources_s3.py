"""Files and bases from s3://, when the object store fails in the middle: outlived, told in time, or refused for good.

moto's server stands for S3, behind a proxy that fails as it is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import SourceError, SourceUnavailable
from components.sources.byte_source import fetch, resolve

ROWS = b"text\tlabel\nfine\tpositive\n" * 1000
FILE, PREFIX = "s3://reviews/movies/a.tsv", "s3://reviews/movies/"
EITHER = pytest.mark.parametrize("source", [FILE, PREFIX], ids=["file", "prefix"])


@pytest.fixture(autouse=True)
def objects(bucket: Any, faulty_store: Any) -> None:
    for key in ("movies/a.tsv", "movies/deep/b.tsv"):
        bucket.put_object(Key=key, Body=ROWS)


def got(to: Path) -> dict[str, bytes]:
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick_retries")
@EITHER
@pytest.mark.parametrize("fault", [500, 503, "cut"])
def test_a_fault_that_passes_is_outlived(source: str, fault: int | str, faulty_store: Any, tmp_path: Path) -> None:
    before = resolve(source)
    faulty_store.plant(503, "HEAD", "a.tsv", times=2)
    faulty_store.plant(fault, "GET", "list-type", times=2)
    assert resolve(source) == before
    faulty_store.heal()
    faulty_store.plant(fault, "GET", "a.tsv", times=2)

    fetch(source, tmp_path / "out")

    assert got(tmp_path / "out")["a.tsv"] == ROWS
    assert faulty_store.faults[0].times == 0


@pytest.mark.usefixtures("quick_retries")
def test_how_often_a_request_is_tried_is_boto3_s_own_variable_s_to_say(
    faulty_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tries, left in (("1", 1), ("2", 0)):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", tries)
        monkeypatch.setenv("AWS_RETRY_MODE", "standard")
        faulty_store.heal()
        faulty_store.plant(503, "HEAD", "a.tsv", times=2)
        with pytest.raises(SourceUnavailable):
            resolve(FILE)
        assert faulty_store.faults[0].times == left


@pytest.mark.usefixtures("quick_retries")
@EITHER
@pytest.mark.parametrize("fault", [503, "cut"])
def test_a_lasting_fault_is_worth_another_try_and_leaves_what_was_there(
    source: str, fault: int | str, faulty_store: Any, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.tsv").write_bytes(b"old")
    faulty_store.plant(fault, "GET", "a.tsv")

    with pytest.raises(SourceUnavailable, match="again") as raised:
        fetch(source, tmp_path / "out")

    assert "\n" not in str(raised.value)
    assert got(tmp_path) == {"out/old.tsv": b"old"}
    faulty_store.heal()
    fetch(source, tmp_path / "out")
    assert got(tmp_path / "out")["a.tsv"] == ROWS


def test_a_lasting_fault_is_told_in_time(faulty_store: Any) -> None:
    faulty_store.plant(503)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="503; try again later"):
        resolve(FILE)
    assert time.monotonic() - began < 10


@EITHER
@pytest.mark.parametrize("ask", [lambda source, to: resolve(source), fetch], ids=["resolve", "fetch"])
def test_wrong_credentials_are_not_worth_another_try(
    source: str, ask: Callable[..., Any], faulty_store: Any, tmp_path: Path
) -> None:
    faulty_store.plant(403)

    with pytest.raises(SourceError, match=f"{source}: .*check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY") as raised:
        ask(source, tmp_path / "out")

    assert raised.type is SourceError
    assert "\n" not in str(raised.value)
    assert len(faulty_store.asked) == 1
    assert not list(tmp_path.iterdir())


def test_an_object_that_goes_while_a_prefix_is_fetched(faulty_store: Any, tmp_path: Path) -> None:
    faulty_store.plant(404, "", "deep/b.tsv")
    with pytest.raises(SourceError, match="404, there is no such thing") as raised:
        fetch(PREFIX, tmp_path / "out")
    assert raised.type is SourceError
    assert not list(tmp_path.iterdir())
