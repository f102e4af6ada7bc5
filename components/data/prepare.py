"""Prepared data of a task: a Parquet file of examples beside a report of what became of every row.

Decides whether the rows make a data set that can be trained and tested on. The same inputs give the same bytes, and the
memory that it takes does not grow with the rows. Where they came from, and what is trained on them, is not known here.
"""

from __future__ import annotations

import errno
import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.base.tokenizer import read_tokenizer
from components.config.params import SPLITS, Split, TaskParams, load
from components.data.examples import Example as Example
from components.data.examples import Made, made
from components.data.lost_rows import refuse_contradictions, where_rows_went
from components.data.prepared import ContentHash, Summary, quantiles, write_examples
from components.data.selection import kept
from components.data.tally import Tally
from components.data.template import Template
from components.errors import BaseError, DataError
from components.io.folders import whole_folder
from components.io.spill import parts_for
from components.rows.data_files import data_files
from components.rows.reader import read_rows, table_dialects
from components.sources import identity
from components.sources.own_folders import refuse_sources

EXAMPLES_FILE = "examples.parquet"
REPORT_FILE = "data_report.json"
SPILL = "spill"  # beside the new files in the room that whole_folder makes and removes


@dataclass(frozen=True)
class Examples:
    """The prepared data of a task, each split in the order of the ids."""

    splits: Mapping[Split, Sequence[Example]]
    content_hash: str

    def of(self, split: Split) -> list[Example]:
        return list(self.splits[split])


def prepare(task: str, params: TaskParams, raw: Path, tokenizer_file: Path, context: int, to: Path) -> dict[str, Any]:
    """Write the folder ``to``, ``examples.parquet`` and ``data_report.json``, and return the report.

    Raises:
        DataError: the rows do not make a data set that can be trained and tested on, or the disk is full; nothing is
            written then.
    """
    data = params.data
    if data.max_tokens > context:
        raise DataError(
            f"tasks.{task}.data.max_tokens is {data.max_tokens} and the base {params.base} reads {context} tokens;"
            f" set max_tokens to at most {context}, less what the template, the adapter and the answer need"
        )
    tokenizer = read_tokenizer(tokenizer_file)
    template = Template.of(params)
    template.label_ids(tokenizer)
    template.refuse_joined(tokenizer)
    tally = Tally()
    summary = Summary(data.labels, tokenizer)
    try:
        with whole_folder(to) as new, _cycles_seldom_looked_for():
            rows = _enough_good(task, made(read_rows(raw, data), data, tokenizer, tally), tally, data.max_bad_rows)
            parts = parts_for(sum(file.stat().st_size for file in raw.rglob("*") if file.is_file()))
            room = new.with_name(SPILL)
            room.mkdir()
            write_examples(new / EXAMPLES_FILE, summary.counting(kept(rows, data, tally, room, parts)))
            refuse_contradictions(task, tally, data)
            _check_splits(task, summary, data.labels, where_rows_went(tally, data))
            report = _report(task, summary, tally)
            report["files"] = data_files(raw, data).report()
            report["dialects"] = table_dialects(raw, data)
            said = json.dumps(report, indent=2, ensure_ascii=False)
            (new / REPORT_FILE).write_text(said + "\n", encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{task}: no space is left where {to} is written, which for a time takes about three times the room of"
            f" {raw}; nothing was changed: make room, then run `preface prepare {task}`"
        ) from error
    return report


@contextmanager
def _cycles_seldom_looked_for() -> Iterator[None]:
    """Rows hold no cycles: to look for some among all that are held, whenever 700 more are, is a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _enough_good(task: str, rows: Iterator[Made], tally: Tally, allowed: float) -> Iterator[Made]:
    """The rows; DataError behind the last of them where too many were bad."""
    yield from rows
    _check_bad_rows(task, tally, allowed)


def _check_bad_rows(task: str, tally: Tally, allowed: float) -> None:
    bad = tally.dropped["bad"]
    if bad.rows and bad.rows > allowed * tally.read:
        # Where most rows are bad, the settings or the file are wrong; a higher limit would leave little to train on.
        remedy = "raise" if bad.rows <= tally.read / 2 else "the settings that read them so; do not raise"
        first = "; ".join(bad.first[:3]) + ("; ..." if bad.rows > 3 else "")
        raise DataError(
            f"{task}: {bad.rows} of {tally.read} rows are bad, which is {bad.rows / tally.read:.2%} where max_bad_rows"
            f" allows {allowed:.2%}: {first}. Mend them, or {remedy} tasks.{task}.data.max_bad_rows"
        )


def _check_splits(task: str, summary: Summary, labels: Mapping[str, str] | None, went: str) -> None:
    sizes = ", ".join(f"{split} {summary.rows[split]}" for split in SPLITS)
    empty = [split for split in SPLITS if not summary.rows[split]]
    if empty:
        raise DataError(
            f"{task}: nothing is left for {', '.join(empty)} ({sizes}){went}; add rows,"
            f" or change tasks.{task}.data.split"
        )
    for split, found in summary.labels.items():
        present = set(found)
        if labels is not None and len(present) == 1:
            raise DataError(
                f"{task}: every row of the {split} split ({sizes}) is {present.pop()!r}, and the labels are"
                f" {sorted(labels)}; add rows of the other labels, or change tasks.{task}.data.split"
            )
    unseen = set(labels or ()) - set(summary.labels["train"])
    if unseen:
        raise DataError(
            f"{task}: the train split ({sizes}) has no row of {sorted(unseen)}{went}; add some, or take the label out"
            f" of tasks.{task}.data.labels"
        )


def _report(task: str, summary: Summary, tally: Tally) -> dict[str, Any]:
    report: dict[str, Any] = {
        "task": task,
        "rows_read": tally.read,
        "rows_kept": summary.rows.total(),
        "dropped": {why: {"rows": dropped.rows, "first": dropped.first} for why, dropped in tally.dropped.items()},
        "splits": {split: {"rows": summary.rows[split]} for split in SPLITS},
        "text_tokens": quantiles(summary.text_tokens),
        "rows_truncated": tally.truncated,
        "content_hash": summary.content.hexdigest(),
    }
    if summary.named is None:
        report["target_tokens"] = quantiles(summary.target_tokens)
    else:
        for split, counted in summary.labels.items():
            report["splits"][split]["labels"] = {label: counted[label] for label in summary.named}
    return report


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a task's prepared data."""
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / REPORT_FILE} cannot be read ({error}); run `preface prepare {folder.name}`"
        ) from error
    return dict(report)


def read_examples(folder: Path) -> Examples:
    """Prepared data, hashed again: DVC checks out a corrupted cache object without a word.

    Raises:
        DataError: a file is missing or unreadable, or the rows are not the ones that the report was written for.
    """
    expected = read_report(folder).get("content_hash")
    splits: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    try:
        for row in pq.read_table(folder / EXAMPLES_FILE).to_pylist():
            splits[row.pop("split")].append(Example(**row))
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / EXAMPLES_FILE} cannot be read ({error}); delete it and run `preface prepare {folder.name}`"
        ) from error
    content = ContentHash()
    for split in SPLITS:
        for example in splits[split]:
            content.add(example, split)
    found = content.hexdigest()
    if found != expected:
        raise DataError(
            f"{folder} holds rows of hash {found} where its report says {expected}; delete the folder and"
            f" .dvc/cache, then run `preface prepare {folder.name}`"
        )
    return Examples(splits, found)


def context_of(config_file: Path) -> int:
    """How many tokens a base reads at once, by its config.json."""
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"{config_file} cannot be read ({error}); run `preface prepare`") from error
    for key in ("max_position_embeddings", "n_positions"):
        if isinstance(config.get(key), int):
            return int(config[key])
    raise BaseError(f"{config_file} names neither max_position_embeddings nor n_positions; use another base")


def run_stage(task: str) -> None:
    """The DVC stage prepare@TASK, run in the project's root."""
    declared, to = load(Path("params.yaml")), Path("data/prepared", task)
    params = declared.task(task)
    refuse_sources(declared, Path(), tasks=[task])
    said = {"data": identity.settings(params.data)}
    identity.require(identity.FOLDER / f"{task}.json", said, f"preface prepare {task}")
    base = Path("bases", params.base)
    context = context_of(base / "config.json")
    prepare(task, params, Path("data/raw", task), base / "tokenizer.json", context, to)
