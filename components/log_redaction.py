"""Every record of every log in this process, without passwords, tokens and signatures.

Done where records are made, so that it holds for our loggers, for libraries', and for whatever handler takes them to a
terminal, a file or a server's page. It knows no logger and no handler.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

from components.redaction import redact


def install() -> None:
    """From now on no record of this process tells a secret; done once, however often it is called."""
    plain = logging.getLogRecordFactory()
    if getattr(plain, "redacts", False):
        return

    def redacting(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _redacted(plain(*args, **kwargs))

    # What others marked their factory with stays true of this one.
    redacting.__dict__ |= {"carries": getattr(plain, "carries", False), "redacts": True}
    logging.setLogRecordFactory(redacting)


def _redacted(record: logging.LogRecord) -> logging.LogRecord:
    try:
        said = record.getMessage()
    except Exception:  # arguments that do not fit their message: the handler says so in its own way
        return record
    if (shown := redact(said)) != said:
        record.msg, record.args = shown, None
    if record.exc_info and record.exc_info[1] is not None:
        # Formatters take this text where it is there, and make none of their own.
        record.exc_text = redact("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"))
    return record
