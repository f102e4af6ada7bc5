"""What DVC and our stages say when they fail, told as one error of ours: what went wrong, and what to type."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from components import errors
from components.errors import DataError, PrefaceError, SetupError, SourceError, SourceUnavailable, Unforeseen
from components.sources import object_store
from flows.process import crash_report
from flows.process.edge import REMEDIES

# A stage of ours that crashed. DVC's own faults are told by their last lines.
_TRACEBACK = "Traceback (most recent call last)"
_RAISED = re.compile(r"[\w.]+(?:Error|Exception|Interrupt|Group|Warning)\b(?:: |$)")
# Faults of the machine, in the words that DVC passes on: what to do about each.
_ROOM = "the disk is full, or `ulimit -f` lets no file grow; make room (df -h), then run the command again"
_MACHINE = {
    "is not a git repository": "DVC works in one alone: type `git init` there, then run the command again",
    "dvc.lock' validation failed": "`git checkout dvc.lock` brings it back; or delete it, and it is made anew",
    "'dvc.lock' is corrupted": "`git checkout dvc.lock` brings it back; or delete it, and it is made anew",
} | dict.fromkeys(("disk I/O error", "disk is full", "No space left on device", "File too large"), _ROOM)
STAGES = re.compile(r"'([a-z]+@[^']+)'")


def _crashed(root: Path, lines: Sequence[str], command: str) -> Unforeseen | None:
    """The error of a stage of ours that ended in a traceback; all that was said is in a report."""
    if command != "repro" or not any(line.startswith(_TRACEBACK) for line in lines):
        return None
    raised = next((line for line in reversed(lines) if _RAISED.match(line)), "no error named")
    stages = [stage for line in lines if line.startswith("ERROR: failed to") for stage in STAGES.findall(line)]
    said = f"the stage {stages[0] if stages else f'of dvc {command}'} crashed: {errors.sanitized(raised)}"
    with contextlib.suppress(OSError):
        report = crash_report.write([f"dvc {command}"], "\n".join(lines), root)
        return Unforeseen(f"{said}; report it with the file {report}")
    return Unforeseen(said)


def fault(root: Path, lines: Sequence[str], command: str) -> PrefaceError:
    """The error of a failed stage, of the class that it names itself, or else what DVC said of its own trouble.

    A stage ends with `CLASS: message`, and DVC reports behind it that the stage failed.
    """
    for line in reversed(lines):
        name, _, message = line.partition(": ")
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, PrefaceError):
            return kind(message)
    lines = [line for line in lines if not line.startswith("Having any troubles?")]  # DVC's own advertisement
    own = [line for line in lines if line.startswith("ERROR: ")]
    said, everything = "; ".join(own), " ".join(lines)
    remedy = object_store.refusal(everything)
    if remedy:
        return SourceError(f"dvc {command} failed, the remote refuses: {said}; {remedy}")
    if object_store.is_down(everything):
        return SourceUnavailable(
            f"dvc {command} failed, the remote does not answer: {said}; check AWS_ENDPOINT_URL and try again"
        )
    if crashed := _crashed(root, lines, command):
        return crashed
    last = [line for line in lines if line not in own][-1:]  # of a traceback, what was raised
    failed = f"dvc {command} failed: {'; '.join([*last, *own]) or 'no output'}"
    number = re.search(r"\[Errno (\d+)\]", everything)
    remedy = next((each for words, each in _MACHINE.items() if words in everything), "")
    remedy = remedy or (REMEDIES.get(int(number[1]), "") if number else "")
    return SetupError(f"{failed}; {remedy}") if remedy else DataError(failed)
