"""A refusal is told from an outage, in whatever an error of an object store comes wrapped in."""

from __future__ import annotations

import pytest

from components.sources import object_store

SAID = "An error occurred ({}) when calling the {} operation: {}"


@pytest.mark.parametrize(
    ("said", "remedy", "down"),
    [
        (SAID.format("InvalidAccessKeyId", "PutObject", "The AWS Access Key Id"), "AWS_ACCESS_KEY_ID", False),
        (SAID.format("403", "HeadObject", "Forbidden"), "AWS_ACCESS_KEY_ID", False),
        (SAID.format("ExpiredToken", "ListObjectsV2", "The provided token has expired."), "AWS_SESSION_TOKEN", False),
        ("Unable to locate credentials", "AWS_ACCESS_KEY_ID", False),
        (SAID.format("NoSuchBucket", "PutObject", "The specified bucket does not exist"), "the bucket's name", False),
        (SAID.format("503", "HeadObject", "Service Unavailable"), "", True),
        ("An error occurred (SlowDown) when calling the PutObject operation (reached max retries: 2): x", "", True),
        ('Could not connect to the endpoint URL: "http://127.0.0.1:9/"', "", True),
        ("Connection was closed before we received a valid response from endpoint URL", "", True),
        ("ERROR: unexpected error - [Errno 16] Service Unavailable: " + SAID.format("500", "GetObject", ""), "", True),
        (SAID.format("404", "HeadObject", "Not Found"), "", False),
        (SAID.format("NoSuchKey", "GetObject", "The specified key does not exist."), "", False),
        ("version 403 of a task called 503", "", False),
    ],
)
def test_what_is_said_is_a_refusal_or_an_outage_or_neither(said: str, remedy: str, down: bool) -> None:
    assert remedy in object_store.refusal(said)
    assert bool(object_store.refusal(said)) == bool(remedy)
    assert object_store.is_down(said) == down


def test_the_words_of_an_error_are_those_of_its_causes_too() -> None:
    cause = ValueError(SAID.format("ExpiredToken", "ListObjectsV2", "The provided\ntoken has expired."))
    error = RuntimeError("Failed to list artifacts in s3://bucket/path")
    error.__context__ = cause  # raised while that was handled
    assert object_store.refusal(object_store.words(error))


def test_errors_that_name_each_other_have_an_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert object_store.words(one).startswith("one <- other <- one")
