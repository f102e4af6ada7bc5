"""What an address may look like; a secret in one is refused, with the place where it belongs, and never told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.addresses import fault_of
from components.config.params import load
from components.errors import ParamsError, SourceError
from components.redaction import redact
from components.sources.byte_source import fetch, resolve

COMMIT = "0" * 40
SECRETS = [
    "http://bob:planted@host/rows.csv",
    "https://planted@host/rows.csv",
    "https://bob:planted@host:8443/rows.csv?x=1",
    "https://bob:pl@nted:planted@host/rows.csv",
    "https://:planted@host/rows.csv",
    "http://bob:planted@[::1]:80/rows.csv",
    "s3://AKIA:planted@bucket/rows.csv",
    f"hf://bob:planted@owner/name@{COMMIT}",
    "pypi://bob:planted@name==1.0/rows.csv",
]
ODD = [
    ("", "the address is empty"),
    ("   ", "the address is empty"),
    ("rows\n.csv", "holds the character"),
    ("rows\x00.csv", "holds the character"),
    ("https://host/a\tb", "holds the character"),
    ("rows\ud800.csv", "holds the character"),
    ("https://host/a%00b", "holds %00, a character that no file name may hold"),
    ("https://host/a%0Ab", "holds %0A, a character"),
    ("https:///rows.csv", "names no host; write https://HOST/PATH"),
    ("https://:80/rows.csv", "names no host"),
    ("https://host:99999/rows.csv", "is no address: .*[Pp]ort"),
    ("https://host:abc/rows.csv", "is no address: .*[Pp]ort"),
    ("https://[::1/rows.csv", "is no address: .*IPv6"),
    ("https://ho st/rows.csv", "has a space in its host"),
    ("gs://bucket/rows.csv", "has the scheme gs://; known are a path"),
    ("file:///data/rows.csv", "write the path alone, without file://"),
    ("HTTPS://host/rows.csv", "has the scheme HTTPS://; known are"),
]


@pytest.mark.parametrize("source", SECRETS)
def test_a_password_is_refused_with_the_place_where_it_belongs(source: str) -> None:
    fault = fault_of(source)
    assert "take it out and put it into" in fault
    assert any(place in fault for place in ("~/.netrc (machine", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "PIP_INDEX_URL"))
    assert "planted" not in fault
    for ask in (resolve, lambda source: fetch(source, Path("never-made"))):
        with pytest.raises(SourceError) as raised:
            ask(source)
        assert "planted" not in str(raised.value)


@pytest.mark.parametrize("source", SECRETS)
@pytest.mark.parametrize("key", ["bases", "tasks"])
def test_a_password_is_refused_in_params_yaml(source: str, key: str, tmp_path: Path) -> None:
    rows, base = ("rows.csv", source) if key == "bases" else (source, "base")
    (tmp_path / "params.yaml").write_text(
        f"""
bases: {{tiny: {{source: "{base}", hash: "{"0" * 64}"}}}}
tasks:
  film:
    base: tiny
    data: {{source: "{rows}", format: csv, labels: [neg, pos]}}
    instruction: Say it.
    gate: [{{metric: accuracy, direction: higher, threshold: 0.5}}]
"""
    )
    with pytest.raises(
        ParamsError, match=rf"  {key}\.(tiny|film\.data)\.source: the \w+:// address holds a user"
    ) as raised:
        load(tmp_path / "params.yaml")
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(("source", "says"), ODD)
def test_an_odd_address_is_told_in_one_line(source: str, says: str) -> None:
    for ask in (resolve, lambda source: fetch(source, Path("never-made"))):
        with pytest.raises(SourceError, match=says) as raised:
            ask(source)
        assert "\n" not in str(raised.value)
    assert not Path("never-made").exists()


@pytest.mark.parametrize(
    "source",
    [
        "data/reviews.csv",
        "Daten/Bewertungen für Köln.csv",
        "/mnt/a@b/rows.csv",
        "https://host/rows.csv?X-Amz-Signature=abc",
        "https://host:8443/@user/my rows.csv",
        "https://[::1]:8443/rows.csv",
        "https://höst.example/straße.csv",
        "s3://bucket/a@b/rows.csv",
        f"hf://datasets/owner/name@{COMMIT}/rows.csv",
        "pypi://name==1.0/a@b.csv",
        "https://***@host/rows.csv",  # as an older manifest's address is shown
    ],
)
def test_an_address_without_a_secret_is_taken(source: str) -> None:
    assert fault_of(source) == ""


@given(
    st.text(max_size=40), st.sampled_from(["", "http://", "https://host/", "s3://", "hf://", "pypi://", "https://["])
)
def test_whatever_is_typed_is_judged_without_a_traceback(text: str, before: str) -> None:
    assert "\n" not in fault_of(before + text).removesuffix("\n")


@given(st.from_regex(r"[A-Za-z0-9._~-]{6,20}", fullmatch=True))
def test_no_password_gets_through(password: str) -> None:
    source = f"https://bob:{password}!@host.example/rows.csv"
    fault = fault_of(source)
    assert fault
    assert f"{password}!" not in fault
    assert f"{password}!" not in redact(source)
