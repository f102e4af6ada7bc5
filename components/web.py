"""A file at an HTTP address, and what a server's answers mean. It knows of no other form of address.

Raises SourceUnavailable for what another try may mend, SourceError for the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from components.errors import SourceError, SourceUnavailable

_TIMEOUT = 30.0  # seconds for a connection, and between two packets
_BLOCK = 1 << 20


@contextmanager
def _open(source: str, method: str) -> Iterator[Any]:
    """The open response of one request, whose errors become ours."""
    import requests

    # Compressed on the way, one content would have several tags.
    headers = {"Accept-Encoding": "identity"}
    try:
        with requests.request(method, source, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if method == "GET" and response.status_code != 200:
                refuse_status(source, response.status_code)
            yield response
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        reason = type(error).__name__
        raise SourceUnavailable(f"{source} cannot be had ({reason}); check the network and try again") from error
    except requests.RequestException as error:
        raise SourceError(f"{source} cannot be had: {error}; correct the address") from error


def identity(source: str) -> dict[str, str]:
    """What tells one content from another: the server's tag, else time and length, else a digest of what it sends."""
    with _open(source, "HEAD") as head:
        code, told = head.status_code, dict(head.headers)
    if code not in (200, 405, 501):
        refuse_status(source, code)
    if code == 200 and "ETag" in told:
        return {"etag": told["ETag"]}
    if code == 200 and "Last-Modified" in told and "Content-Length" in told:
        return {"last_modified": told["Last-Modified"], "length": told["Content-Length"]}
    digest = hashlib.sha256()
    with _open(source, "GET") as response:
        for block in response.iter_content(_BLOCK):
            digest.update(block)
    return {"sha256": digest.hexdigest()}


def download(source: str, to: Path) -> None:
    """Write the file at ``source`` into the folder ``to``, under the last part of its address."""
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    if name in ("", ".."):
        raise SourceError(f"{source} names no file; end the address with one")
    with _open(source, "GET") as response, (to / name).open("wb") as target:
        for block in response.iter_content(_BLOCK):
            target.write(block)


def refuse_status(source: str, code: int) -> NoReturn:
    """The error that an HTTP status stands for."""
    if code >= 500 or code in (408, 429):
        raise SourceUnavailable(f"{source}: the server answered {code}; try again later")
    reason = {401: "credentials are missing or wrong", 403: "access is denied", 404: "there is no such thing"}.get(code)
    raise SourceError(f"{source}: the server answered {code}{f', {reason}' if reason else ''}; correct the address")
