"""Addresses and messages as they may be shown: without passwords, tokens and signatures.

``redact`` is the one way out: every error of ours passes through it when it is made, and whatever else shows an address
(logs, tags, pages, reports) calls it. It knows no kind of store or source, only what an address looks like.
"""

from __future__ import annotations

import os
import re

MASK = "***"
# An address runs to the next character that cannot stand in one. A password may hold "@", "/" and ":" all the same.
_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://([^\s'\"<>`|]+)")
# A user and a password typed as they are, blanks and quotes included; a port and no more is not one.
_ODD_PASSWORD = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]*://[^\s:/@'\"\[]*:)(?!\d{1,5}(?![\w%]))(?:(?!://)[^@\n]){1,200}@"
)
# Where a port belongs and none stands, a password may: somebody forgot the host. PORT is a word of our messages.
_NO_PORT = re.compile(r"^((?:[^/?#]*@)?[^/?#:\[]*:)(?!(?i:port)\b|\*\*\*)[^\d/?#:][^/?#:]*(?=[/?#]|$)")
# Theirs is an "@" that means something else, unless a colon stands before it.
_AT_IS_NO_PASSWORD = frozenset({"hf", "pypi", "file", "models", "runs"})
# Tokens whose form tells them, wherever they stand: of Hugging Face, AWS, GitHub, GitLab, PyPI, and JSON web tokens.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|pypi-[\w-]{32,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)"
)
_DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle")
_PATHS = ("sqlite", "file")
# "password=secret", "token: secret" and {"token": "secret"} outside of addresses, as drivers and libraries write them.
# Not what is said of a misspelt key of params.yaml: "max_token: unknown key".
_FIELD = re.compile(
    r"(?i)\b([\w-]{0,40}(?:password|passwd|pwd|passphrase|secret|token|signature|api[_-]?key|access[_-]?key|credential)"
    r"(?:[_-][a-z0-9]+)*)(['\"]?\s*[=:]\s*)(?!\*\*\*|unknown key\b)('[^'\n]*'|\"[^\"\n]*\"|[^\s,;&'\"]+)"
)
# What else signs an address, in the part behind its host: libraries write that alone.
_SIGNED = re.compile(r"(?i)([?&](?:sig|key|code|auth|(?:aws|oss)accesskeyid|googleaccessid|policy)=)[^\s&'\"<>)]+")
_BEARER = re.compile(r"(?i)\b(authorization\s*:\s*)?(bearer|basic)\s+([A-Za-z0-9._~+/=-]{8,})")
_SECRET_VARIABLE = re.compile(r"(?i)(^|_)(password|passwd|secret|token|api_key|auth_string|access_key|access_key_id)$")
_SHORTEST = 8  # characters: a shorter value of a variable would mask ordinary words


def redact(text: str) -> str:
    """The text, where each address has lost what may be a secret: user and password, every value of its query.

    The names of a query's keys stay, so that one still sees which address it was. The values of environment variables
    that hold secrets (``AWS_SECRET_ACCESS_KEY``, ``HF_TOKEN``, ...) are masked wherever they stand.
    """
    for value in _secret_values():
        text = text.replace(value, MASK)
    text = _TOKEN.sub(MASK, text)
    text = _ODD_PASSWORD.sub(lambda match: f"{match[1]}{MASK}@", text)
    text = _ADDRESS.sub(lambda match: f"{match[1]}://{_public(match[1].lower(), match[2])}", text)
    text = _FIELD.sub(lambda match: f"{match[1]}{match[2]}{MASK}", text)
    text = _SIGNED.sub(lambda match: f"{match[1]}{MASK}", text)
    return _BEARER.sub(lambda match: f"{match[1] or ''}{match[2]} {MASK}", text)


def public(address: str) -> str:
    """An address that stands alone, without what may be a secret: nothing before an "@" is shown where no scheme is."""
    if "@" in address and not _ADDRESS.match(address):
        return f"{MASK}@{redact(address.rpartition('@')[2])}"
    return redact(address)


def carries_password(address: str) -> bool:
    """Whether an address holds a user or a password in front of its host; one that ``redact`` has masked does not."""
    if _ODD_PASSWORD.match(address):
        return True
    match = _ADDRESS.match(address)
    end = _user_ends(match[1].lower(), match[2]) if match else 0
    return match is not None and match[2][:end] not in ("", f"{MASK}@")


def _secret_values() -> list[str]:
    """The longest first: one may be part of another."""
    found = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)


def _public(scheme: str, rest: str) -> str:
    end = _user_ends(scheme, rest)
    shown = rest[end:]
    if end:
        # The user of a database is worth knowing; in front of a host the user itself may be a token.
        user, colon, _ = rest[:end].partition(":")
        shown = f"{user}:{MASK}@{shown}" if colon and scheme.startswith(_DATABASES) else f"{MASK}@{shown}"
    if scheme not in _AT_IS_NO_PASSWORD and not scheme.startswith(_PATHS):
        shown = _NO_PORT.sub(rf"\g<1>{MASK}", shown)
    path, mark, query = shown.partition("?")
    if mark:
        query, hash_, _ = query.partition("#")
        shown = f"{path}?{'&'.join(map(_masked, query.split('&')))}" + f"#{MASK}" * bool(hash_)
    elif not scheme.startswith(_PATHS) and "#" in shown:
        shown = f"{shown.partition('#')[0]}#{MASK}"
    return shown


def _masked(pair: str) -> str:
    key, mark, value = pair.partition("=")
    return f"{key}={MASK}" if mark and value else pair if mark else MASK


def _user_ends(scheme: str, rest: str) -> int:
    """How many characters of what follows ``scheme://`` are user and password, their "@" included."""
    if scheme in _AT_IS_NO_PASSWORD or scheme.startswith(_PATHS):
        host = rest.partition("/")[0]
        return host.rfind("@") + 1 if ":" in host.rpartition("@")[0] and scheme in ("hf", "pypi") else 0
    before_query = rest.partition("?")[0] if "@" in rest.partition("?")[0] else rest
    last = before_query.rfind("@")
    if last < 0:
        return 0
    host = rest.partition("/")[0]
    port = host.partition(":")[2]
    # An "@" behind the first slash belongs to the path, unless what stands before that slash is no host.
    is_user = "@" in host or scheme.startswith(_DATABASES) or (bool(port) and not port.isdigit())
    return last + 1 if is_user else 0
