"""Rows of a folder of texts: each file is a text, and the folder that it lies in is its label.

Whole folders that are no label, and files that lie in none, are told as such and not one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from components.config.params import DataParams
from components.config.params_faults import yaml_word
from components.config.values import near_label, same_label
from components.errors import DataError, sanitized
from components.rows.data_files import shown_path
from components.rows.kinds.file_kind import text_fault
from components.rows.row import Row

_NAMED = 8  # folders, or files, that one message lists
_NO_FOLDER = "stands in no subfolder, whose name would be its label"


def refuse_strays(names: Sequence[Path], data: DataParams) -> None:
    """Nothing, if all but a few files lie in folders whose names are labels; few is what data.max_bad_rows allows.

    Raises:
        DataError: telling the folders that are no label with the number of their files, and the files in no folder.
    """
    if data.labels is None:
        loose = [name for name in names if name.parent == Path()]
        strays: Counter[Path] = Counter()
    else:
        homes = {name.parent for name in names}
        labelled = {home for home in homes if home.name and same_label(home.name, data.labels) is not None}
        above = {Path(), *(parent for home in labelled for parent in home.parents)} - labelled
        loose = [name for name in names if name.parent in above]
        strays = Counter(name.parent for name in names if name.parent not in labelled and name.parent not in above)
    count = len(loose) + strays.total()
    if count > data.max_bad_rows * len(names):
        raise DataError(_told(count, len(names), strays, loose, data))


def text_file_row(file: Path, name: Path, text: TextIO, data: DataParams) -> Row:
    """The row of one file, or its fault."""
    if name.parent == Path():
        return Row(shown_path(name), fault=_NO_FOLDER)
    if fault := text_fault(file, data):
        return Row(shown_path(name), fault=f"is {fault}")
    try:
        return Row(shown_path(name), text.read(), name.parent.name)
    except UnicodeError as error:
        return Row(
            shown_path(name),
            fault=f"is not {data.encoding} text ({sanitized(str(error))}); set data.encoding",
        )


def _told(count: int, of: int, strays: Counter[Path], loose: Sequence[Path], data: DataParams) -> str:
    labels = f" ({', '.join(sorted(data.labels)[:20])}{', ...' * (len(data.labels) > 20)})" if data.labels else ""
    said = []
    if strays:
        folders = [f"{shown_path(home)}: {_files(files)}" for home, files in strays.most_common()]
        near = next(filter(None, (near_label(home.name, data.labels or ()) for home in strays)), "")
        said.append(f"{_listed(folders)}: no label of yours{labels}{near}")
    if loose:
        said.append(f"{_listed([shown_path(name) for name in loose])}: in no label's folder")
    if count == of:
        way = f"a text's folder is its label, LABEL/FILE.txt, and the labels are those of data.labels{labels}"
    else:
        way = "leave them out with `ignore: [" + ", ".join(_patterns(strays, loose)) + "]` under the task's data"
        way += ", or declare the label" * bool(strays)
    return f"{count} of {of} files belong to no label: {'; '.join(said)}. {way[0].upper()}{way[1:]}"


def _files(count: int) -> str:
    return f"{count} file{'s' * (count > 1)}"


def _listed(said: Sequence[str]) -> str:
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return ", ".join(said[:_NAMED]) + more


def _patterns(strays: Counter[Path], loose: Sequence[Path]) -> Iterator[str]:
    """What to write into data.ignore: the folders, and the files that lie in none."""
    yield from (yaml_word(home.as_posix()) for home in sorted(strays)[:_NAMED])
    yield from (yaml_word(name.as_posix()) for name in loose[:_NAMED])
    if len(strays) > _NAMED or len(loose) > _NAMED:
        yield "..."
