"""Files of a Hugging Face repository at a commit, and what the hub's refusals mean. Knows no other form of address.

A token is the library's own matter (HF_TOKEN, or `hf auth login`) and is never read here.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from components.errors import SourceError, SourceUnavailable, line_of
from components.sources import web

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


def parse(source: str) -> tuple[str, str, str, str]:
    """Kind, repository, commit and path. A branch moves, so it is no address.

    Raises:
        SourceError: it has another form.
    """
    match = re.fullmatch(r"hf://(datasets/)?([^/@]+/[^/@]+)@([0-9a-f]{40})(?:/(.+))?", source)
    if match is None:
        raise SourceError(f"{source} is not of the form hf://OWNER/NAME@COMMIT[/PATH] with a commit of 40 digits")
    if {".", "..", ""} & set((match[4] or "x").removesuffix("/").split("/")):
        raise SourceError(f"{source} names a path with '.', '..' or nothing between its slashes; write it from the top")
    return ("dataset" if match[1] else "model"), match[2], match[3], match[4] or ""


def snapshot(source: str, only: Sequence[str]) -> Path:
    """The file or folder at ``source`` in the hub's own cache, fetched if it is not there.

    Raises:
        SourceUnavailable: the hub was not reached.
        SourceError: it refuses, and the message says what it wants.
    """
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    kind, name, commit, path = parse(source)
    exact = glob.escape(path)
    wanted = [exact, f"{exact}/*"] if path else list(only)
    try:
        got = Path(snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=wanted))
    except (HFValidationError, httpx.InvalidURL, ImportError) as error:  # ImportError: a SOCKS proxy without socksio
        raise SourceError(
            f"{source} cannot be asked for: {line_of(error)}; correct the address, HF_ENDPOINT or the proxy's variables"
        ) from None
    except (OSError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        _refuse(source, kind, name, error)
        raise SourceUnavailable(
            f"{source} is not cached here and the hub was not reached; check the network, and put HF_HUB_OFFLINE=0 in "
            "front of the command"
        ) from None
    if path and not (got / path).exists():
        raise SourceError(f"{source}: the repository holds no {path} at this commit; correct the path")
    return got / path


def _refuse(source: str, kind: str, name: str, error: BaseException) -> None:
    """Raise what the hub answered, which may be the cause of the library's complaint that it has no copy either."""
    from huggingface_hub import constants, errors, get_token

    answer = _answer(error)
    if answer is None:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise SourceError(f"{source} cannot be kept in the hub's cache: {error.strerror}; see HF_HOME") from None
        return
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    code = answer.response.status_code
    has_token = get_token() is not None
    if isinstance(answer, errors.DisabledRepoError):
        _tell(source, f"the hub has disabled this {kind}, see {page}; name another one")
    if isinstance(answer, errors.GatedRepoError):
        account = "the token that is set is of an account that has not, or may not read gated repositories"
        _tell(
            source,
            f"this {kind} is gated; accept the conditions on its page {page} and set HF_TOKEN to a token of the account"
            f" that did ({account if has_token else 'no token is set'})",
        )
    if isinstance(answer, errors.RevisionNotFoundError):
        _tell(source, f"the {kind} has no such commit; take one of {page}/commits/main")
    if isinstance(answer, errors.RepositoryNotFoundError) or code == 404:
        _tell(
            source,
            f"the hub has no such {kind}, or shows it to its owners alone; correct the name, or set HF_TOKEN to a token"
            f" that may read it ({'the one that is set may not' if has_token else 'no token is set'})",
        )
    if code == 401:
        _tell(source, "the hub does not know the token; set HF_TOKEN to one that is valid, or unset it")
    if code == 403:
        _tell(
            source, f"the hub refuses this token the {kind}; give it the right to read {page}, or set another HF_TOKEN"
        )
    web.refuse_status(source, code)


def _tell(source: str, what: str) -> NoReturn:
    raise SourceError(f"{source}: {what}") from None


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    from huggingface_hub import errors

    seen = 0
    while error is not None and seen < 9:  # errors that name each other
        if isinstance(error, errors.HfHubHTTPError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
