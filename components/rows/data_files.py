"""Which files below a folder hold rows, and what their folders' names say. Opens none of them.

A file that is passed over is named with the reason, so that no row goes without a word:

    ignored     by a pattern of data.ignore
    hidden      its name, or a folder's above it, begins with a dot
    marker      ... with an underscore: Spark, Hive and pyarrow write `_SUCCESS` and `_metadata` beside their rows
    system      an operating system put it there: `__MACOSX`, `Thumbs.db`, `desktop.ini`
    empty       it has no byte (in a folder of texts: an empty text, which is a bad row)

In a folder of texts an underscore says nothing, and a folder whose name is a label is read whatever its name. A source
that is one file is read whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from components.config.params import DataParams
from components.config.values import composed
from components.errors import DataError, sanitized

NAMED = 20  # how many files that were passed over the report names
_SYSTEM = {
    "__MACOSX", "Thumbs.db", "thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", "Icon\r", "@eaDir",
    "$RECYCLE.BIN", "System Volume Information", "lost+found",
}  # fmt: skip
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
# A folder or file that only a table format writes, its name, and how its rows are written out as plain Parquet.
_TABLES = (
    ("_delta_log", "Delta", 'spark.read.format("delta").load(TABLE).write.parquet(FOLDER)'),
    (".hoodie", "Hudi", 'spark.read.format("hudi").load(TABLE).write.parquet(FOLDER)'),
    ("*.metadata.json", "Iceberg", "spark.read.table(TABLE).write.parquet(FOLDER)"),
    ("*.lance", "Lance", "pyarrow.parquet.write_table(lance.dataset(TABLE).to_table(), FILE)"),
)


@dataclass(frozen=True)
class DataFiles:
    """Paths below the folder in the order of their names: those to read, and those passed over with the reason."""

    read: tuple[Path, ...]
    passed_over: tuple[tuple[Path, str], ...]

    def report(self) -> dict[str, Any]:
        """What the report of prepared data says of them."""
        first = [f"{shown_path(path)} ({reason})" for path, reason in self.passed_over[:NAMED]]
        return {"read": len(self.read), "passed_over": {"files": len(self.passed_over), "first": first}}


def data_files(folder: Path, data: DataParams) -> DataFiles:
    """The files below ``folder`` that hold rows.

    Raises:
        DataError: there are none, or the folder is a table of a format whose files are not its rows.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    if not names:
        raise DataError(f"{folder} holds no file; check the source of the task, then run `preface prepare`")
    _refuse_tables(names)
    alone = len(names) == 1 and len(names[0].parts) == 1
    labels = {composed(label) for label in data.labels or ()} if data.format == "folder" else set()
    reasons = {name: None if alone else _reason(name, data, labels) for name in names}
    if data.format != "folder":
        reasons |= {name: "empty" for name, why in reasons.items() if not why and not (folder / name).stat().st_size}
    read = tuple(name for name, reason in reasons.items() if reason is None)
    passed_over = tuple((name, reason) for name, reason in reasons.items() if reason is not None)
    if not read:
        raise DataError(_nothing_left(passed_over))
    return DataFiles(read, passed_over)


def partition_of(name: Path) -> Mapping[str, str | None]:
    """Columns whose value is a folder's name, as Spark and Hive write them: `label=good/part-0.parquet`.

    A value is text; characters that a path may not hold are written as % and two digits. The name of a missing value
    is None.
    """
    pairs = [part.split("=", 1) for part in name.parts[:-1] if "=" in part]
    return {composed(unquote(key)): None if value == _NO_VALUE else unquote(value) for key, value in pairs if key}


def shown_path(name: Path) -> str:
    """A path as part of a message or of where a row stands: printable, and text that every file takes."""
    return sanitized(name.as_posix())


def _reason(name: Path, data: DataParams, labels: set[str]) -> str | None:
    """Why a file is passed over; None where it is read."""
    if any(_matches(name, pattern) for pattern in data.ignore):
        return "ignored"
    parts = [part for part in name.parts if composed(part) not in labels]
    if any(part in _SYSTEM for part in parts):
        return "system"
    if any(part.startswith(".") for part in parts):
        return "hidden"
    # Not a folder such as _year=2024, which is a column.
    if data.format != "folder" and any(part.startswith("_") and "=" not in part for part in parts):
        return "marker"
    return None


def _matches(name: Path, pattern: str) -> bool:
    """Whether a pattern is met by the path, by a folder that the file lies in, or by the name of either."""
    wanted = composed(pattern).strip("/")
    deep = wanted.startswith("**/")  # as .gitignore has it: at any depth, this one too
    wanted = re.sub(r"^((\.|\*\*)/+)+", "", wanted)
    places = [name, *name.parents][:-1]  # the last is the folder itself
    found = {composed(text) for place in places for text in (place.as_posix(), place.name)}
    if deep:
        found |= {composed("/".join(name.parts[start:])) for start in range(len(name.parts))}
    return wanted in found or any(fnmatchcase(text, wanted) for text in found)


def _refuse_tables(names: list[Path]) -> None:
    """A table's folder also holds rows that were deleted or replaced since: its log alone says which are rows now."""
    for mark, kind, how in _TABLES:
        for name in names:
            found = next((part for part in name.parts if fnmatchcase(part, mark)), None)
            if found is None or (mark == "*.metadata.json" and name.parent.name != "metadata"):
                continue
            raise DataError(
                f"{shown_path(name)} says that this is a {kind} table: its folder also holds rows that were deleted or"
                f" replaced since, and they would be read as rows; write the table out, {how}, and name that in"
                " data.source"
            )
    unfinished = [name for name in names if "_temporary" in name.parts]
    if unfinished and not any(name.name == "_SUCCESS" for name in names):
        raise DataError(
            f"{shown_path(unfinished[0])} says that the job which writes this folder has not ended, or failed: it may"
            " lack rows; run the job again, or delete `_temporary` if you know that the rest is whole"
        )


def _nothing_left(passed_over: tuple[tuple[Path, str], ...]) -> str:
    if all(reason == "empty" for _, reason in passed_over):
        names = ", ".join(_first(passed_over))
        return f"{names} {'is' if len(passed_over) == 1 else 'are'} empty (0 bytes); check what data.source names"
    listed = ", ".join(f"{shown_path(name)} ({reason})" for name, reason in passed_over[:3])
    more = ", ..." if len(passed_over) > 3 else ""
    return (
        f"no file is left to read: all {len(passed_over)} are passed over: {listed}{more}; name the file itself in"
        " data.source, rename it, or change data.ignore"
    )


def _first(passed_over: tuple[tuple[Path, str], ...]) -> Iterator[str]:
    for name, _ in passed_over[:3]:
        yield shown_path(name)
    if len(passed_over) > 3:
        yield f"and {len(passed_over) - 3} more"
