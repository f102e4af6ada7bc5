"""The edge of the command line, where every error becomes one line on stderr and an exit status.

    0   done
    1   refused or failed: the line says why and what to do; Ctrl-C; nobody reads the output any more
    2   wrong usage
    70  Preface itself is at fault: the line names a file with everything that a report of it needs

It knows no command. Whatever is a process of ours and is started by people goes through it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from components import log_redaction
from components.errors import PrefaceError, SetupError, Unforeseen, sanitized
from components.redaction import public
from flows.process import collector, crash_report, local_project, terminal

REFUSED, WRONG_USAGE, CRASHED = 1, 2, 70
# Faults of the machine and not of the program: what to do about each.
REMEDIES = {
    errno.EACCES: "this user may not do that there; see who owns it (ls -ld)",
    errno.EPERM: "this user may not do that there; see who owns it (ls -ld)",
    errno.EROFS: "it is on a read-only file system; mount it so that it can be written",
    errno.ENOSPC: "the disk is full; make room (df -h), then run the command again",
    errno.EDQUOT: "the quota is used up; make room, then run the command again",
    errno.EFBIG: "this file system takes no file of that size; see ulimit -f",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENOTDIR: "something else lies where a folder belongs; move it away",
    errno.EEXIST: "something else lies where a folder belongs; move it away",
    errno.EISDIR: "a folder lies where a file belongs; move it away",
    errno.ENAMETOOLONG: "the file system takes no name of that length; use a shorter one",
    errno.ELOOP: "the link leads back to itself; remove it",
}


@contextmanager
def guarded(command: Sequence[str]) -> Iterator[None]:
    """Everything that a process of ours does stands inside; whatever is raised there ends it with a status from above.

    Args:
        command: as it was typed, for the report.
    """
    collector.tune_gc()
    terminal.tolerate_encodings()
    log_redaction.install()
    try:
        _refuse_bytes(command)
        _refuse_no_folder()
        yield
    except Unforeseen as error:
        # Without a cause it tells of another process, and names the report of that.
        _end(f"error: {crash_report.told_with_report(command, error) if error.__cause__ else error}", CRASHED)
    except PrefaceError as error:
        _end(f"error: {error}", REFUSED)
    except BrokenPipeError:
        # Nobody reads any more (`preface history T | head -1`): Python must not say so at its end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- it ends with the process
        sys.exit(REFUSED)
    except OSError as error:
        if remedy := REMEDIES.get(error.errno or 0):
            where = f"{sanitized(str(error.filename))}: " if error.filename is not None else ""
            _end(f"error: {where}{error.strerror}: {remedy}", REFUSED)
        _end(f"error: {crash_report.told_with_report(command, error)}", CRASHED)
    except Exception as error:
        if fault := _odd_setting(error):
            _end(f"error: {fault}", REFUSED)
        _end(f"error: {crash_report.told_with_report(command, error)}", CRASHED)


def _refuse_bytes(command: Sequence[str]) -> None:
    """Arguments come as bytes; of those that are no UTF-8 Python makes halves of pairs, which no store can keep."""
    for number, argument in enumerate(command[1:], 1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            char = ord(argument[error.start])
            found = f"byte 0x{char - 0xDC00:02x}" if 0xDC80 <= char <= 0xDCFF else f"half of a pair, U+{char:04X},"
            _end(
                f"Error: argument {number} is not UTF-8: {found} at character {error.start + 1} of"
                f" {sanitized(argument)!r}; convert it (iconv -f latin1 -t utf-8) and type it again",
                WRONG_USAGE,
            )


def _refuse_no_folder() -> None:
    """Every path is read from the current folder, which somebody may have deleted under the shell."""
    try:
        os.getcwd()
    except FileNotFoundError:
        _end("error: the folder that this shell is in was deleted; cd into your project and type it again", REFUSED)


def _odd_setting(error: Exception) -> SetupError | None:
    """The fault of a variable of MLflow's or Prefect's own, which each reads when it first needs it.

    What they raise names the variable, or quotes its value.
    """
    if not isinstance(error, ValueError):
        return None
    said = str(error)
    for name, value in os.environ.items():
        own = name.startswith(("MLFLOW_", "PREFECT_")) and value and value != local_project.SWITCHES.get(name)
        if own and (re.search(rf"\b{name}\b", said) or repr(value).casefold() in said.casefold()):
            return SetupError(
                f"{name} is {sanitized(public(value))!r}, which its library does not take; write what its documentation"
                f" names, or `unset {name}`"
            )
    return None


def _end(line: str, status: int) -> None:
    terminal.say(line, err=True)
    sys.exit(status)
