"""HTTP addresses: what a change looks like, and which failures are worth another try."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from typing import Any

import pytest

from components.errors import SourceError, SourceUnavailable
from components.sources import web


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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501, 500])
def test_where_head_is_refused_get_decides(site: Any, status: int) -> None:
    address = site.put("/rows.csv", b"1\n", headers={"ETag": '"1"'}, head=False, head_status=status)
    assert web.identity(address + "?X-Amz-Signature=abc") == {"etag": '"1"'}
    assert site.asked == ["HEAD /rows.csv?X-Amz-Signature=abc", "GET /rows.csv?X-Amz-Signature=abc"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("?X-Amz-Date=1&X-Amz-Signature=a", "?X-Amz-Date=2&X-Amz-Signature=b", True),
        ("?AWSAccessKeyId=1&Expires=1&Signature=a", "?AWSAccessKeyId=1&Expires=2&Signature=b", True),
        ("?X-Goog-Signature=a", "?X-Goog-Signature=b", True),
        ("?sv=2024&sp=r&se=1&sig=a", "?sv=2024&sp=r&se=2&sig=b", True),
        ("?token=a", "?token=b", True),
        ("?Policy=a&Key-Pair-Id=k&Signature=a", "", True),
        ("?id=1", "?id=2", False),
        ("?sp=r", "?sp=w", False),
        ("?X-Amz-Signature=a&versionId=1", "?X-Amz-Signature=a&versionId=2", False),
    ],
)
def test_a_tag_is_believed_where_the_query_does_not_choose_the_content(
    site: Any, one: str, other: str, same: bool
) -> None:
    """The site answers both with one tag, as a server may: tags are told apart within one address alone."""
    address = site.put("/rows.csv", b"1\n", headers={"ETag": '"1"'})
    first = web.identity(address + one)
    assert first == ({"etag": '"1"'} if same else {"sha256": hashlib.sha256(b"1\n").hexdigest()})
    site.put("/rows.csv", b"2\n", headers={"ETag": '"1"'})
    assert (web.identity(address + other) == first) == same


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>", b"\n\n<html lang=en>", b"\xef\xbb\xbf<!-- hi -->\n<!doctype HTML>"]
)
def test_a_page_where_rows_are_expected_is_refused(site: Any, page: bytes, tmp_path: Path) -> None:
    site.put("/login", page + b"<body>Character in</body>", headers={"Content-Type": "text/html"})
    source = site.put("/rows.csv", status=302, headers={"Location": "/login?next=rows&session=planted"})
    with pytest.raises(SourceError, match=r"gave a web page after a redirect to \S+/login.*~/\.netrc") as raised:
        web.download(source, tmp_path)
    assert "planted" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    web.download(site.put("/text.html", page), tmp_path)  # where a page is what is asked for


def test_many_comments_before_rows_take_no_time(site: Any, tmp_path: Path) -> None:
    rows = b"<!-- a note -->\n" * 5000 + b"<row/>"
    web.download(site.put("/rows.xml", rows), tmp_path)  # 30 of them once took minutes
    assert (tmp_path / "rows.xml").read_bytes() == rows


def test_rows_that_speak_of_html_are_rows(site: Any, tmp_path: Path) -> None:
    web.download(site.put("/rows.csv", b"text,label\n<html>,good\n"), tmp_path)
    web.download(site.put("/rows.jsonl", b'{"text": "<!doctype html>"}\n'), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_login_in_netrc_is_used(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login bob password planted\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    address = site.put("/rows.csv", b"1\n", headers={"ETag": '"1"'}, login="bob:planted")
    assert web.identity(address) == {"etag": '"1"'}
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SourceError, match=r"401, credentials are missing or wrong; put them into ~/\.netrc \(machine"):
        web.identity(address)


@pytest.mark.parametrize(
    "path", ["/broken.csv", "/closed.csv", "/gone.csv", "http://127.0.0.1:9/rows.csv", "http://a..b/a.csv"]
)
@pytest.mark.parametrize("does", ["identity", "download"])
def test_no_error_holds_the_address_with_its_secrets(site: Any, path: str, does: str, tmp_path: Path) -> None:
    """Not as its cause either: a log of Prefect's writes the whole chain."""
    site.put("/broken.csv", b"half", promised=8)
    site.put("/closed.csv", status=403)
    secret = "-".join(["planted", "one"])  # so that it stands in no line of code that a traceback shows
    address = f"{path if '://' in path else site.url + path}?id=1&X-Amz-Signature={secret}"
    with pytest.raises(SourceError) as raised:
        web.identity(address) if does == "identity" else web.download(address, tmp_path)
    assert secret not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("host", ["a..b", "-", "x" * 70, "\u2603.example", "1.2.3.4.5", "%zz"])
def test_an_odd_host_is_told_in_one_line(host: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"rows\.csv cannot be"):
        web.download(f"http://{host}:9/rows.csv", tmp_path)


def test_a_proxy_that_does_not_answer_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://bob:planted@127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="check HTTPS_PROXY and HTTP_PROXY") as raised:
        web.identity("http://host.example/rows.csv")
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "says"), [("http:///rows.csv", "correct the address"), ("{url}/", "names no file")]
)
def test_an_address_without_a_file_is_refused(site: Any, address: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=says):
        web.download(address.format(url=site.url), tmp_path)
