"""Proxies of the environment, made fit for what runs here: this machine is never asked through one.

HTTP_PROXY and its kin are read by many libraries, each in its own way: where NO_PROXY leaves the loopback out, each of
them asks the proxy for the servers that run beside it. It knows no server, and says nothing where no proxy is set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from components.errors import SetupError
from components.redaction import public

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EXCEPT = "no_proxy"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
SCHEMES = ("http", "https", "socks5", "socks5h")


def settled(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to set: exceptions that hold the loopback, and proxies as the libraries here can read them.

    The user's list of exceptions stays as it is, ``*`` included. Both spellings of a name are set: some libraries read
    the one in capitals, some the other, and most let the small one win.

    Raises:
        SetupError: a proxy that no library here can use.
    """
    found = {name: value for name, value in environment.items() if name.lower() in PROXIES and value.strip()}
    if not found:
        return {}
    changes = {name: _proxy(name, value) for name, value in found.items()}
    for name in (EXCEPT, EXCEPT.upper()):
        own = environment.get(name) or environment.get(name.swapcase(), "")
        changes[name] = _exceptions(own)
    return {name: value for name, value in changes.items() if environment.get(name) != value}


def _proxy(name: str, value: str) -> str:
    """A proxy's address; ``socks://``, as desktops write it, says SOCKS 5."""
    import httpx  # the strictest reader of all

    address = value.strip()
    scheme, separator, rest = address.partition("://")
    if not separator:  # "proxy:3128" is understood everywhere
        rest = address
    elif scheme.lower() == "socks":
        address = f"socks5://{rest}"
    try:
        url = httpx.Proxy(address if separator else f"http://{address}").url
        fit = bool(url.host) and 0 < (url.port or 80) < 65536
    except (httpx.InvalidURL, ValueError):
        fit = False
    if not fit:
        raise SetupError(
            f"{name} is {public(value)!r}, which no library here can use as a proxy: write"
            f" {' or '.join(f'{each}://HOST:PORT' for each in SCHEMES)}, or `unset {name}`"
        )
    return address


def _exceptions(own: str) -> str:
    """The list with the loopback in it."""
    entries = [entry.strip() for entry in own.split(",")]
    if "*" in entries:
        return "*"  # urllib and requests know it only by itself
    return ",".join(dict.fromkeys([*filter(None, map(_readable, entries)), *LOOPBACK]))


def _readable(entry: str) -> str:
    """One exception; ``[::1]`` without its brackets. Empty for what makes httpx fail and means nothing to any library.

    A network of IPv6 (``fe80::/10``) is of that kind.
    """
    import httpx

    bare = entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry
    try:
        ipaddress.ip_address(bare)
        return bare
    except ValueError:
        pass
    try:
        httpx.URL(bare if "://" in bare else f"all://*{bare}")
    except httpx.InvalidURL:
        return ""
    return bare
