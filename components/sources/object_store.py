"""What an object store's errors mean: refused, so that no other try helps, or not now. Knows S3's words, not its calls.

Whoever speaks to a store for us (MLflow, DVC) wraps its errors, or prints them; botocore's own sentence is what comes
through all wrappings, so the text is what is read.
"""

from __future__ import annotations

import re

_SAID = r"An error occurred \((?:{})\) when calling the "
_KEYS = re.compile(
    _SAID.format(
        "40[13]|AccessDenied|AllAccessDisabled|AuthorizationHeaderMalformed|ExpiredToken|InvalidAccessKeyId|InvalidToken"
        "|SignatureDoesNotMatch|TokenRefreshRequired"
    )
    + "|Unable to locate credentials|Partial credentials found|Error when retrieving (?:credentials|token)"
    "|The config profile .* could not be found"
)
_BUCKET = re.compile(_SAID.format("NoSuchBucket") + "|The specified bucket does not exist|Invalid bucket name")
_DOWN = re.compile(
    _SAID.format("429|5[0-9][0-9]|InternalError|RequestTimeout|ServiceUnavailable|SlowDown|Throttling\\w*")
    + "|Could not connect to the endpoint URL|Connection was closed before we received a valid response"
    "|(?:Read|Connect) timeout on endpoint URL|Max Retries Exceeded|Connection broken: |IncompleteRead"
)


def refusal(said: str) -> str:
    """What to check where a store has refused and would again; empty where it has not."""
    if _KEYS.search(said):
        return (
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and what they may do in the bucket"
        )
    return "check the bucket's name, and AWS_ENDPOINT_URL" if _BUCKET.search(said) else ""


def is_down(said: str) -> bool:
    """Whether a store did not answer, or asked to be left alone for now: worth another try."""
    return bool(_DOWN.search(said))


def words(error: BaseException) -> str:
    """All that an error says, with what it was raised from: the code may stand in the one, the address in the other."""
    found: list[str] = []
    while True:
        found.append(" ".join(str(error).split()))
        before = error.__cause__ or error.__context__
        if before is None or len(found) > 9:  # errors that name each other
            return " <- ".join(found)
        error = before
