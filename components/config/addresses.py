"""What an address of bytes may look like, found before anybody follows one. Knows no server and no file.

Credentials never stand in an address: it is written into dvc.lock, manifests, logs and pages. Each kind of source has
its own place for them, which a refusal names.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

from components.redaction import carries_password

SCHEMES = ("pypi", "hf", "s3", "http", "https")
WEB = ("http", "https")
_CODED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_WHERE = {
    "http": "~/.netrc (machine {host} login USER password PASSWORD), or take a presigned address",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "hf": "HF_TOKEN",
    "pypi": "pip's own settings (PIP_INDEX_URL, ~/.netrc)",
}


def scheme_of(source: str) -> str:
    """What stands before ``://``; empty for a path."""
    scheme, mark, _ = source.partition("://")
    return scheme if mark else ""


def fault_of(source: str) -> str:
    """What is wrong with an address as it is written, and what to do; empty if nothing is. No secret stands in it."""
    if not source.strip():
        return "the address is empty; name a file, a folder or an address"
    odd = next((char for char in source if unicodedata.category(char) in ("Cc", "Cs")), "")
    if odd:
        return f"the address holds the character {odd!a}, which no address may hold; take it out"
    scheme = scheme_of(source)
    if not scheme:
        return ""
    if scheme not in SCHEMES:
        known = "a path, pypi://, hf://, s3:// and https://"
        path = "; write the path alone, without file://" if scheme == "file" else ""
        return f"{source} has the scheme {scheme}://; known are {known}{path}"
    if carries_password(source):
        return _fault_of_password(source, scheme)
    return _fault_on_the_web(source) if scheme in WEB else ""


def _fault_of_password(source: str, scheme: str) -> str:
    try:
        host = urlsplit(source).hostname or "HOST"
    except ValueError:
        host = "HOST"
    where = _WHERE["http" if scheme in WEB else scheme].format(host=host)
    return (
        f"the {scheme}:// address holds a user or a password, and addresses are written into locks, logs and pages;"
        f" take it out and put it into {where}"
    )


def _fault_on_the_web(source: str) -> str:
    try:
        parts = urlsplit(source)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        # The library's words would quote what stands there, which may be a password.
        what = "what stands behind its ':' is no port" if "Port" in str(error) else error
        return f"{source} is no address: {what}; correct it"
    if not host:
        return f"{source} names no host; write https://HOST/PATH"
    if any(char.isspace() for char in parts.netloc):
        return f"{source} has a space in its host; correct the address"
    if coded := _CODED_CONTROL.search(parts.path):
        return f"{source} holds {coded[0]}, a character that no file name may hold; correct the address"
    return ""
