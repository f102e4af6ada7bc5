"""A file at an HTTP address, and what a server's answers mean. It knows of no other form of address.

Credentials come from where ``requests`` looks for them (~/.netrc); a secret in an address reaches no message, and no
error of the library, which holds the address, is kept as a cause. Raises SourceUnavailable for what another try may
mend, SourceError for the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from components.errors import SourceError, SourceUnavailable, line_of, sanitized

_TIMEOUT = 30.0  # seconds for a connection, and between two packets
_BLOCK = 1 << 20
_LONGEST_NAME = 255  # bytes
# What signs an address and does not choose what it answers: of AWS, Google, Alibaba, CloudFront, Azure, and plain ones.
_SIGNATURE = re.compile(
    r"x-(?:amz|goog|oss|id|cos|obs)\b.*|(?:aws|oss)?accesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
    r"|response-content-\w+|(?:access_?)?token",
    re.IGNORECASE,
)
_AZURE = frozenset({"sig", "sv", "ss", "srt", "sp", "se", "st", "spr", "sr", "sip", "sdd"})
_AZURE |= {"skoid", "sktid", "skt", "ske", "sks", "skv"}
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?>(?:<!--(?>.*?-->)\s*)*)<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_PAGES = (".html", ".htm", ".xhtml")


@contextmanager
def _open(source: str, method: str) -> Iterator[Any]:
    """The open response of one request, whose errors become ours."""
    import requests

    # Compressed on the way, one content would have several tags.
    headers = {"Accept-Encoding": "identity"}
    try:
        with _request(method, source, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if method == "GET" and response.status_code != 200:
                refuse_status(source, response.status_code)
            yield response
    except requests.exceptions.SSLError as error:
        raise SourceError(
            f"{source} cannot be had, its certificate is not trusted ({line_of(error)}); set REQUESTS_CA_BUNDLE to the"
            " file of certificates that signed it"
        ) from None
    except requests.exceptions.ProxyError:
        raise SourceUnavailable(
            f"{source} cannot be had (ProxyError); check HTTPS_PROXY and HTTP_PROXY, or put its host into NO_PROXY"
        ) from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        reason = type(error).__name__
        raise SourceUnavailable(f"{source} cannot be had ({reason}); check the network and try again") from None
    except requests.RequestException as error:
        proxy = "SOCKS" in str(error)
        remedy = "unset ALL_PROXY and HTTPS_PROXY, or name an http:// proxy there" if proxy else "correct the address"
        raise SourceError(f"{source} cannot be had: {line_of(error)}; {remedy}") from None


def _request(method: str, source: str, **options: Any) -> Any:
    import requests
    from urllib3.exceptions import HTTPError

    try:
        return requests.request(method, source, **options)
    except (HTTPError, ValueError) as error:  # what requests lets through of odd hosts and redirects
        if isinstance(error, requests.RequestException):
            raise
        raise SourceError(f"{source} cannot be asked for: {line_of(error)}; correct the address") from None


def identity(source: str) -> dict[str, str]:
    """What tells one content from another: the server's tag, else time and length, else a digest of what it sends.

    HEAD asks without the content. Where a server refuses it, as one does for an address that was signed for GET, the
    answer to GET decides, of which no more than the head is read.
    """
    try:
        with _open(source, "HEAD") as head:
            found = _tags(source, head.headers) if head.status_code == 200 else {}
    except SourceUnavailable:  # some hang up
        found = {}
    if found:
        return found
    digest = hashlib.sha256()
    with _open(source, "GET") as response:
        if found := _tags(source, response.headers):
            return found
        for block in response.iter_content(_BLOCK):
            digest.update(block)
    return {"sha256": digest.hexdigest()}


def _tags(source: str, headers: Mapping[str, str]) -> dict[str, str]:
    """A server's word on its content, which holds per path: where a query chooses the content, it is not taken."""
    if _chooses(urlsplit(source).query):
        return {}
    if "ETag" in headers:
        return {"etag": headers["ETag"]}
    if "Last-Modified" in headers and "Content-Length" in headers:
        return {"last_modified": headers["Last-Modified"], "length": headers["Content-Length"]}
    return {}


def _chooses(query: str) -> bool:
    """Whether a query holds more than a signature."""
    names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    if {"sig", "sv"} <= names:
        names -= _AZURE
    return any(not _SIGNATURE.fullmatch(name) for name in names)


def download(source: str, to: Path) -> None:
    """Write the file at ``source`` into the folder ``to``, under the last part of its address.

    Raises:
        SourceError: also where a web page comes, as from a site that wants a login.
    """
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    if name in ("", ".."):
        raise SourceError(f"{source} names no file; end the address with one")
    if "\0" in name or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise SourceError(f"{source} ends in {sanitized(name)!r}, which is no name of a file; correct the address")
    with _open(source, "GET") as response:
        blocks = response.iter_content(_BLOCK)
        first = next(blocks, b"")
        if _PAGE.match(first[:_BLOCK]) and not name.lower().endswith(_PAGES):
            _refuse_page(source, response.url if response.history else "")
        with (to / name).open("wb") as target:
            target.write(first)
            for block in blocks:
                target.write(block)


def _refuse_page(source: str, came_from: str) -> NoReturn:
    redirect = f" after a redirect to {came_from}" if came_from else ""
    raise SourceError(
        f"{source} gave a web page{redirect} where a file of rows was expected. If the site wants a login, put it into"
        f" ~/.netrc (machine {urlsplit(source).hostname} login USER password PASSWORD) or take a presigned address; if"
        " this is the page about a file, take the address of the file itself (its raw or download link)"
    )


def refuse_status(source: str, code: int) -> NoReturn:
    """The error that an HTTP status stands for."""
    if code >= 500 or code in (408, 425, 429):
        raise SourceUnavailable(f"{source}: the server answered {code}; try again later") from None
    host = urlsplit(source).hostname or "HOST"
    login = f"put them into ~/.netrc (machine {host} login USER password PASSWORD)"
    signed = "its signature may have expired, so have it signed anew; or " if urlsplit(source).query else ""
    expired = "; its signature may be wrong or have expired, so have it signed anew" if urlsplit(source).query else ""
    what = {
        400: expired or "; correct the address",
        401: f", credentials are missing or wrong; {login}",
        403: f", access is denied; {signed}check what you may read there",
        404: ", there is no such thing; correct the address",
        407: ", the proxy wants credentials; put them into HTTPS_PROXY",
        410: ", it is gone for good; name another source",
    }.get(code, "; correct the address")
    raise SourceError(f"{source}: the server answered {code}{what}") from None
