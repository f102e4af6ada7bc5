"""No record of any logger tells a secret: neither its message nor its traceback, whatever formats it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from components import log_redaction

SECRET = "hunter2-of-a-test"
ADDRESS = f"https://bob:{SECRET}@data.example/rows.csv?X-Amz-Signature={SECRET}"
Log = tuple[logging.Logger, io.StringIO]


@pytest.fixture
def log() -> Iterator[Log]:
    """A library's logger that knows nothing of us, and what its handler writes."""
    before, written = logging.getLogRecordFactory(), io.StringIO()
    handler, logger = logging.StreamHandler(written), logging.getLogger("somebody.elses")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    log_redaction.install()
    yield logger, written
    logger.removeHandler(handler)
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (f"GET {ADDRESS}", ()),
        ("GET %s", (ADDRESS,)),
        ("GET %(url)s", ({"url": ADDRESS},)),
        ("failed: %r", (ValueError(ADDRESS),)),
        ("Authorization: Bearer %s", (SECRET,)),
    ],
)
def test_a_message_loses_its_secret(log: Log, message: str, arguments: tuple[object, ...]) -> None:
    log[0].warning(message, *arguments)

    assert log[1].getvalue().startswith("WARNING ")
    assert SECRET not in log[1].getvalue()
    assert "***" in log[1].getvalue()


def test_a_traceback_loses_its_secret_and_keeps_its_lines(log: Log) -> None:
    try:
        try:
            raise KeyError(ADDRESS)
        except KeyError as error:
            raise RuntimeError(f"no rows at {ADDRESS}") from error
    except RuntimeError:
        log[0].exception("crashed")

    said = log[1].getvalue()
    assert SECRET not in said
    assert said.count("Traceback") == 2
    assert "RuntimeError: no rows at https://***@data.example/rows.csv?X-Amz-Signature=***" in said


def test_what_holds_no_secret_is_left_as_it_was_made() -> None:
    before = logging.getLogRecordFactory()
    log_redaction.install()
    try:
        record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "%s of %d", ("three", 4), None)
    finally:
        logging.setLogRecordFactory(before)

    assert (record.msg, record.args) == ("%s of %d", ("three", 4))


def test_it_is_installed_once(log: Log) -> None:
    factory = logging.getLogRecordFactory()
    log_redaction.install()

    assert logging.getLogRecordFactory() is factory
