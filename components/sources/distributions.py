"""A Python distribution's file, wheel or sdist, found on the indexes that pip is set to and pinned by its digest.

pip itself would build an sdist's metadata, which runs code of it. So pip is asked for its settings alone (index, proxy,
certificates), and the file is taken as the archive that it is. This module does not know what is in it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, canonicalize_name
from packaging.utils import parse_sdist_filename as sdist_of
from packaging.utils import parse_wheel_filename as wheel_of
from packaging.version import InvalidVersion, Version

from components.errors import SourceError, SourceUnavailable, sanitized

PYPI = "https://pypi.org/simple"
_PAGES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_SETTING = re.compile(r"(:env:|global|download)\.([\w-]+)=(.*)")
_TIMEOUT = 30.0  # seconds for a connection, and between two packets
_BLOCK = 1 << 20


@dataclass(frozen=True)
class _File:
    """A file that a page names; ``sha256`` is empty where the page does not say it."""

    name: str
    url: str
    sha256: str


class _Unreachable(Exception):
    """A page could not be had now."""


class _WantsLogin(Exception):
    """A page is shown to those alone whom the index knows."""


def download(requirement: str, sha256: str, to: Path) -> Path:
    """The file of ``NAME==VERSION`` that has this digest, put into the folder ``to``.

    Raises:
        SourceUnavailable: no index that answered has it, and one did not answer.
        SourceError: there is no such distribution, or none with this digest; or pip's settings cannot be read.
    """
    name, _, version = requirement.partition("==")
    settings = _pip_settings()
    other: list[str] = []
    silent: list[str] = []
    closed: list[str] = []
    with _session(settings) as session:
        for page in _pages(name, settings):
            try:
                files = [file for file in _listed(session, page) if _is_of(file.name, name, version)]
                for file in files:
                    if file.sha256 not in ("", sha256):
                        other.append(file.sha256)
                        continue
                    got = _fetch(session, file, to)
                    if got == sha256:
                        return to / file.name
                    other.append(got)
            except _Unreachable as error:
                silent.append(f"{page} ({error})")
            except _WantsLogin:
                closed.append(page)
    if other and not silent:
        raise SourceError(
            f"{requirement} has the sha256 {' and '.join(dict.fromkeys(other))}, params.yaml pins {sha256}; find out"
            " why before you change the pin"
        )
    if silent:
        raise SourceUnavailable(
            f"could not reach an index for {requirement}: {'; '.join(silent)}; check the network and try again"
        )
    if closed:
        raise SourceError(
            f"{requirement}: {' and '.join(closed)} answered 401, a login is missing or wrong; put it into ~/.netrc or"
            " pip's own settings (PIP_INDEX_URL)"
        )
    looked = ", ".join(_pages(name, settings))
    raise SourceError(f"no index has {requirement} (looked at {looked}); correct the address, or PIP_INDEX_URL")


def _pip_settings() -> Mapping[str, str]:
    """What pip is told by its files and the environment, which wins.

    Raises:
        SourceError: pip cannot read them. Without them somebody else's index would be asked.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        why = sanitized(" ".join((done.stderr or done.stdout).split())) or f"status {done.returncode}"
        raise SourceError(f"pip's own settings cannot be read: {why}; correct pip.conf, or the variable PIP_*")
    found: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for line in done.stdout.splitlines():
        if match := _SETTING.fullmatch(line):
            found[match[1]][match[2]] = str(ast.literal_eval(match[3]))
    return found["global"] | found["download"] | found[":env:"]


def _session(settings: Mapping[str, str]) -> Any:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    retry = Retry(int(settings.get("retries", 3)), backoff_factor=0.5, status_forcelist=[500, 502, 503, 504])
    retry.raise_on_status = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    if cert := settings.get("cert"):
        session.verify = cert
    if client := settings.get("client-cert"):
        session.cert = client
    if proxy := settings.get("proxy"):
        session.proxies = {"http": proxy, "https": proxy}
    session.headers["Accept-Encoding"] = "identity"
    return session


def _pages(name: str, settings: Mapping[str, str]) -> list[str]:
    """Where pip would look: folders and pages of links, then the page of the project on each index."""
    found = settings.get("find-links", "").split()
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        indexes = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
        found += [f"{index.rstrip('/')}/{canonicalize_name(name)}/" for index in indexes]
    return found


def _is_of(file: str, name: str, version: str) -> bool:
    """Whether a file's name is that of a wheel or an sdist of this version."""
    try:
        found = wheel_of(file)[:2] if file.endswith(".whl") else sdist_of(file)
        return found == (canonicalize_name(name), Version(version))
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return False


def _listed(session: Any, page: str) -> Iterable[_File]:
    """The files that a page, or a folder, names; none where there is no such page."""
    here = _local(page)
    if here is None:
        with _answer(session, page, {"Accept": _PAGES}) as response:
            if response.status_code == 401:
                raise _WantsLogin
            if response.status_code >= 400:
                if response.status_code >= 500 or response.status_code == 429:
                    raise _Unreachable(f"it answered {response.status_code}")
                return []
            return list(_links(response.text, response.headers.get("Content-Type", ""), response.url))
    if here.is_dir() and not (here / "index.html").is_file():
        return [_File(path.name, path.absolute().as_uri(), "") for path in sorted(here.iterdir()) if path.is_file()]
    file = here / "index.html" if here.is_dir() else here
    if not file.is_file():
        return []
    return list(_links(file.read_text("utf-8", "replace"), "text/html", file.absolute().as_uri()))


def _links(text: str, kind: str, address: str) -> Iterator[_File]:
    if "json" in kind:
        for said in json.loads(text).get("files", []):
            yield _File(
                _name(said["filename"]), urljoin(address, said["url"]), said.get("hashes", {}).get("sha256", "")
            )
        return
    reader = _Anchors()
    reader.feed(text)
    for link in reader.found:
        url, said = urldefrag(urljoin(address, link))
        yield _File(_name(unquote(urlsplit(url).path)), url, said.removeprefix("sha256=") if "sha256=" in said else "")


class _Anchors(HTMLParser):
    """The addresses that a page's links lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]


def _fetch(session: Any, file: _File, to: Path) -> str:
    """Write the file into the folder, and return its digest."""
    digest = hashlib.sha256()
    with (to / file.name).open("wb") as target:
        for block in _blocks(session, file.url):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def _blocks(session: Any, url: str) -> Iterator[bytes]:
    if here := _local(url):
        with here.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
        return
    with _answer(session, url, {}) as response:
        if response.status_code != 200:
            raise _Unreachable(f"{url} answered {response.status_code}")
        yield from response.iter_content(_BLOCK)


@contextmanager
def _answer(session: Any, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    import requests

    try:
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            yield response
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:  # JSON of any kind
        raise _Unreachable(type(error).__name__) from None


def _local(address: str) -> Path | None:
    """The path that an address without a host means."""
    if address.startswith("file:"):
        return Path(url2pathname(urlsplit(address).path))
    return None if "://" in address else Path(address).expanduser()


def _name(path: str) -> str:
    return PurePosixPath(path).name
