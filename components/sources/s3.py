"""Objects of an S3 store, under the AWS_* variables. Knows no other form of address.

Raises SourceUnavailable for what another try may mend, SourceError for the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from components.errors import SourceError, SourceUnavailable
from components.sources import web

_TIMEOUT = 30.0  # seconds between two packets
_TRIES = 3  # of one request


def _address(source: str) -> tuple[str, str]:
    match = re.fullmatch(r"s3://([^/]+)/(.+)", source)
    if match is None:
        raise SourceError(f"{source} is not of the form s3://BUCKET/KEY or s3://BUCKET/PREFIX/")
    return match[1], match[2]


@contextmanager
def _client(source: str) -> Iterator[Any]:
    """A client under the AWS_* variables, whose errors become ours."""
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, NoCredentialsError

    # boto3 reads these itself, but what a client is told wins over them.
    said = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
    retries = None if said else {"total_max_attempts": _TRIES, "mode": "standard"}
    config = Config(connect_timeout=5, read_timeout=_TIMEOUT, retries=retries)
    try:
        client = boto3.client("s3", config=config)
    except (ValueError, BotoCoreError) as error:  # an odd AWS_ENDPOINT_URL, an unknown profile
        raise SourceError(f"{source} cannot be asked for: {error}; correct the AWS_* variables") from None
    try:
        yield client
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (401, 403):
            raise SourceError(
                f"{source}: {error}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may read there"
            ) from None
        web.refuse_status(source, status)
    except NoCredentialsError:
        raise SourceError(f"{source} needs credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except (ConnectionError, HTTPClientError, Boto3Error) as error:
        raise SourceUnavailable(f"{source} cannot be had: {error}; check AWS_ENDPOINT_URL and try again") from None
    except BotoCoreError as error:
        raise SourceError(
            f"{source} cannot be asked for: {error}; correct the address or the AWS_* variables"
        ) from None


def objects(client: Any, source: str) -> list[tuple[str, str]]:
    """Key and ETag of each object below a prefix."""
    bucket, prefix = _address(source)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [(item["Key"], item["ETag"]) for page in pages for item in page.get("Contents", [])]
    return sorted((key, tag) for key, tag in found if not key.endswith("/"))


def identity(source: str) -> dict[str, str]:
    """What tells one content from another: the object's tag and version, or a digest of all tags below a prefix."""
    with _client(source) as client:
        if source.endswith("/"):
            return {"etag": hashlib.sha256(json.dumps(objects(client, source)).encode()).hexdigest()}
        bucket, key = _address(source)
        head = client.head_object(Bucket=bucket, Key=key)
    version = {"version": head["VersionId"]} if head.get("VersionId", "null") != "null" else {}
    return {"etag": head["ETag"].strip('"')} | version


def download(source: str, to: Path, is_wanted: Callable[[str], bool]) -> None:
    """Write the object at ``source``, or all below it whose name is wanted, into the folder ``to``."""
    bucket, address = _address(source)
    with _client(source) as client:
        keys = [key for key, _ in objects(client, source)] if source.endswith("/") else [address]
        for key in keys:
            below = PurePosixPath(key.removeprefix(address) or PurePosixPath(key).name)
            if below.is_absolute() or ".." in below.parts or "\0" in key:
                raise SourceError(f"{source} holds {key!r}, which leads out of its folder; rename the object")
            if is_wanted(below.name):
                (to / below).parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, key, str(to / below))
