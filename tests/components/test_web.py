"""HTTP addresses: what a change looks like, and which failures are worth another try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components import web
from components.errors import SourceError, SourceUnavailable


def test_a_file_keeps_the_name_at_the_end_of_its_address(site: Any, tmp_path: Path) -> None:
    web.download(site.put("/a/my%20rows.csv", b"text\nfine\n") + "?version=2", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"my rows.csv": b"text\nfine\n"}


def test_a_redirect_is_followed(site: Any, tmp_path: Path) -> None:
    site.put("/new.csv", b"rows")
    web.download(site.put("/old.csv", status=302, headers={"Location": "/new.csv"}), tmp_path)
    assert (tmp_path / "old.csv").read_bytes() == b"rows"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ({"headers": {"ETag": '"1"'}}, {"headers": {"ETag": '"2"'}}, "etag"),
        ({"headers": {"Last-Modified": "Mon"}}, {"headers": {"Last-Modified": "Tue"}}, "last_modified"),
        ({"headers": {"Last-Modified": "Mon"}}, {"headers": {"Last-Modified": "Mon"}}, "length"),
        ({}, {}, "sha256"),
        ({"head": False}, {"head": False}, "sha256"),
    ],
    ids=["etag", "time", "length", "content", "no HEAD"],
)
def test_a_change_is_noticed_by_what_the_server_tells(
    site: Any, before: dict[str, Any], after: dict[str, Any], kind: str
) -> None:
    address = site.put("/rows.csv", b"1\n", **before)
    first = web.identity(address)
    assert first == web.identity(address)
    site.put("/rows.csv", b"1\n2\n", **after)
    second = web.identity(address)
    assert first != second
    assert kind in first
    assert kind in second


def test_a_tag_is_asked_for_without_the_content(site: Any) -> None:
    web.identity(site.put("/rows.csv", b"1\n", headers={"ETag": '"1"'}))
    assert site.asked == ["HEAD /rows.csv"]


@pytest.mark.parametrize(
    "ask", [web.identity, lambda address: web.download(address, Path())], ids=["identity", "download"]
)
@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (404, SourceError, "404, there is no such thing"),
        (403, SourceError, "403, access is denied"),
        (500, SourceUnavailable, "500; try again later"),
        (503, SourceUnavailable, "503; try again later"),
        (429, SourceUnavailable, "429; try again later"),
    ],
)
def test_a_refusal_says_whether_to_try_again(site: Any, ask: Any, status: int, error: type, says: str) -> None:
    with pytest.raises(SourceError, match=says) as raised:
        ask(site.put("/rows.csv", status=status))
    assert raised.type is error


@pytest.mark.parametrize(
    "ask", [web.identity, lambda address: web.download(address, Path())], ids=["identity", "download"]
)
def test_a_server_that_is_down_is_worth_another_try(ask: Any) -> None:
    with pytest.raises(SourceUnavailable, match=r"rows.csv cannot be had \(ConnectionError\)"):
        ask("http://127.0.0.1:9/rows.csv")


def test_a_connection_that_breaks_off_is_worth_another_try(site: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        web.download(site.put("/rows.csv", b"half", promised=8), tmp_path)


@pytest.mark.parametrize(
    ("address", "says"), [("http:///rows.csv", "correct the address"), ("{url}/", "names no file")]
)
def test_an_address_without_a_file_is_refused(site: Any, address: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=says):
        web.download(address.format(url=site.url), tmp_path)
