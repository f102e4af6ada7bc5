"""Proxies of the environment: whatever they are, what runs on this machine is asked past them."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Mapping
from unittest import mock

import httpx
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.errors import SetupError
from flows.process import proxies
from tests.conftest import Site

NOWHERE = "http://127.0.0.1:9"  # nothing listens there: whoever asks the proxy fails
HOSTS = ("127.0.0.1", "localhost")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process's, without any proxy; set and read in place."""
    for name in list(os.environ):
        if name.lower() in (*proxies.PROXIES, proxies.EXCEPT):
            monkeypatch.delenv(name)
    plain = dict(os.environ)
    monkeypatch.setattr("os.environ", os.environ.copy())
    for name in (*proxies.PROXIES, proxies.EXCEPT):  # what is set below is gone afterwards
        for spelling in (name, name.upper()):
            monkeypatch.setenv(spelling, "")
            monkeypatch.delenv(spelling)
    return plain


def asked(site: Site) -> list[bool]:
    """Whether httpx, requests and urllib reach a server of this machine."""
    found = []
    for host in HOSTS:
        url = site.url.replace("127.0.0.1", host) + "/there"
        found += [
            httpx.get(url).status_code == 200,
            requests.get(url, timeout=5).status_code == 200,
            urllib.request.build_opener().open(url, timeout=5).status == 200,
        ]
    return found


def every(value: str) -> dict[str, str]:
    return {spelling: value for name in proxies.PROXIES for spelling in (name, name.upper())}


@pytest.mark.parametrize(
    "said",
    [
        every(NOWHERE),
        every("socks5://127.0.0.1:9"),
        {"ALL_PROXY": "socks5h://127.0.0.1:9"},
        {"all_proxy": "socks://127.0.0.1:9/"},
        {"HTTP_PROXY": "127.0.0.1:9"},
        every(NOWHERE) | {"NO_PROXY": "corp.example,10.0.0.0/8"},
        every(NOWHERE) | {"no_proxy": "[::1],fe80::/10, ::1/128"},
        every(NOWHERE) | {"no_proxy": "", "NO_PROXY": "corp.example"},
        every(NOWHERE) | {"no_proxy": "one.example", "NO_PROXY": "two.example"},
        every(NOWHERE) | {"NO_PROXY": "*"},
        every(NOWHERE) | {"no_proxy": "corp.example, *"},
    ],
)
def test_what_runs_on_this_machine_is_asked_past_any_proxy(
    said: Mapping[str, str], environment: dict[str, str], site: Site
) -> None:
    site.put("/there")
    os.environ |= said
    os.environ |= proxies.settled(os.environ)

    assert asked(site) == [True] * 3 * len(HOSTS)
    assert proxies.settled(os.environ) == {}, "settled once, it is settled"


def test_what_lies_beyond_is_still_asked_through_the_proxy(environment: dict[str, str], site: Site) -> None:
    site.put("http://far.example/there")  # as a proxy is asked
    os.environ |= every(site.url) | {"NO_PROXY": "near.example"}
    os.environ |= proxies.settled(os.environ)

    assert httpx.get("http://far.example/there").status_code == 200
    assert requests.get("http://far.example/there", timeout=5).status_code == 200
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "near.example,127.0.0.1,localhost,::1"


def test_without_a_proxy_nothing_is_set() -> None:
    assert proxies.settled({"PATH": "/bin", "NO_PROXY": "corp.example", "HTTP_PROXY": ""}) == {}


@pytest.mark.parametrize("value", ["socks4://h:1", "ftp://h:1", "http://h:port", "http://[::1", "http://", "h:99999"])
def test_what_can_be_no_proxy_is_told_with_what_to_write(value: str) -> None:
    with pytest.raises(SetupError, match=r"ALL_PROXY is .* socks5://HOST:PORT.*unset ALL_PROXY"):
        proxies.settled({"ALL_PROXY": value})


def test_a_password_of_a_proxy_is_not_shown() -> None:
    with pytest.raises(SetupError) as told:
        proxies.settled({"HTTPS_PROXY": "socks4://bob:sesame-42@h:1"})

    assert "sesame-42" not in str(told.value)


@settings(max_examples=60)
@given(st.lists(st.text("ab.*:[]/09- %", max_size=10), max_size=4))
@example(["[::1]:80"])
@example(["fe80::/10", "a:b"])
@example(["http://[", "://"])
def test_whatever_the_list_of_exceptions_httpx_can_read_it(entries: list[str]) -> None:
    said = {"http_proxy": NOWHERE, "NO_PROXY": ",".join(entries)}
    with mock.patch.dict(os.environ, said):
        found = proxies.settled(os.environ)["no_proxy"]
        os.environ |= {"no_proxy": found, "NO_PROXY": found}
        httpx.Client().close()

    assert found == "*" or set(proxies.LOOPBACK) <= set(found.split(","))
