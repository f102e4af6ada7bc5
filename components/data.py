"""Prepared data of a task: a Parquet file of examples beside a report of what became of every row.

Decides whether the rows make a data set that can be trained and tested on. The same inputs give the same bytes. Where
the rows came from, and what is trained on them, is not known here.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from components import identity
from components.data_files import data_files
from components.errors import BaseError, DataError, PrefaceError
from components.examples import Example as Example
from components.examples import Tally, examples
from components.folders import whole_folder
from components.lost_rows import refuse_contradictions, where_rows_went
from components.own_folders import refuse_sources
from components.params import SPLITS, DataParams, Split, TaskParams, load
from components.rows import read_rows, table_dialects
from components.template import Template, ids_of, read_tokenizer

EXAMPLES_FILE = "examples.parquet"
REPORT_FILE = "data_report.json"
NAMED = 20  # how many dropped rows of each kind the report names


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
        DataError: the rows do not make a data set that can be trained and tested on; nothing is written then.
    """
    data = params.data
    if data.max_tokens > context:
        raise DataError(
            f"tasks.{task}.data.max_tokens is {data.max_tokens} and the base {params.base} reads {context} tokens;"
            f" set max_tokens to at most {context}, less what the template, the adapter and the answer need"
        )
    tokenizer = read_tokenizer(tokenizer_file)
    template = Template(params.template, data.labels, data.max_tokens)
    template.label_ids(tokenizer)
    template.refuse_joined(tokenizer)
    splits, tally = examples(read_rows(raw, data), data, tokenizer)
    _check_bad_rows(task, tally, data.max_bad_rows)
    dropped = {why: (len(rows), rows[:NAMED]) for why, rows in tally.dropped.items()}
    refuse_contradictions(task, tally.read, dropped, data, tally.truncated)
    _check_splits(task, splits, data.labels, where_rows_went(tally.read, dropped, data, tally.truncated))
    report = _report(task, splits, tally, tokenizer, data)
    report["files"] = data_files(raw, data).report()
    report["dialects"] = table_dialects(raw, data)
    _write(splits, report, to)
    return report


def _check_bad_rows(task: str, tally: Tally, allowed: float) -> None:
    bad = tally.dropped["bad"]
    if bad and len(bad) > allowed * tally.read:
        # Where most rows are bad, the settings or the file are wrong; a higher limit would leave little to train on.
        remedy = "raise" if len(bad) <= tally.read / 2 else "the settings that read them so; do not raise"
        first = "; ".join(bad[:3]) + ("; ..." if len(bad) > 3 else "")
        raise DataError(
            f"{task}: {len(bad)} of {tally.read} rows are bad, which is {len(bad) / tally.read:.2%} where max_bad_rows"
            f" allows {allowed:.2%}: {first}. Mend them, or {remedy} tasks.{task}.data.max_bad_rows"
        )


def _check_splits(
    task: str, splits: Mapping[Split, Sequence[Example]], labels: Mapping[str, str] | None, went: str
) -> None:
    sizes = ", ".join(f"{split} {len(found)}" for split, found in splits.items())
    empty = [split for split, found in splits.items() if not found]
    if empty:
        raise DataError(
            f"{task}: nothing is left for {', '.join(empty)} ({sizes}){went}; add rows,"
            f" or change tasks.{task}.data.split"
        )
    for split, found in splits.items():
        present = {example.target for example in found}
        if labels is not None and len(present) == 1:
            raise DataError(
                f"{task}: every row of the {split} split ({sizes}) is {present.pop()!r}, and the labels are"
                f" {sorted(labels)}; add rows of the other labels, or change tasks.{task}.data.split"
            )
    unseen = set(labels or ()) - {example.target for example in splits["train"]}
    if unseen:
        raise DataError(
            f"{task}: the train split ({sizes}) has no row of {sorted(unseen)}{went}; add some, or take the label out"
            f" of tasks.{task}.data.labels"
        )


def _report(
    task: str, splits: Mapping[Split, Sequence[Example]], tally: Tally, tokenizer: Tokenizer, data: DataParams
) -> dict[str, Any]:
    everything = [example for found in splits.values() for example in found]
    targets = {split: Counter(example.target for example in found) for split, found in splits.items()}
    report: dict[str, Any] = {
        "task": task,
        "rows_read": tally.read,
        "rows_kept": len(everything),
        "dropped": {why: {"rows": len(rows), "first": rows[:NAMED]} for why, rows in tally.dropped.items()},
        "splits": {split: {"rows": len(found)} for split, found in splits.items()},
        "text_tokens": _quantiles(len(ids_of(tokenizer, example.text)) for example in everything),
        "rows_truncated": tally.truncated,
        "content_hash": _content_hash(splits),
    }
    if data.labels is None:
        report["target_tokens"] = _quantiles(len(ids_of(tokenizer, example.target)) for example in everything)
    else:
        for split, counted in targets.items():
            report["splits"][split]["labels"] = {label: counted[label] for label in data.labels}
    return report


def _quantiles(lengths: Iterable[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    shares = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in shares.items()}


def _records(splits: Mapping[Split, Sequence[Example]]) -> Iterator[dict[str, str]]:
    for split in SPLITS:
        for example in splits[split]:
            yield {"id": example.id, "text": example.text, "target": example.target, "split": split}


def _content_hash(splits: Mapping[Split, Sequence[Example]]) -> str:
    """sha256 over the rows themselves, so that neither Parquet's version nor its metadata counts."""
    digest = hashlib.sha256()
    for record in _records(splits):
        digest.update(json.dumps(list(record.values()), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _write(splits: Mapping[Split, Sequence[Example]], report: Mapping[str, Any], to: Path) -> None:
    """Both files at once, or neither."""
    import datasets  # half a second, and reading prepared data does without it

    datasets.disable_progress_bars()
    columns = {name: datasets.Value("string") for name in ("id", "text", "target", "split")}
    table = datasets.Dataset.from_list(list(_records(splits)), features=datasets.Features(columns))
    with whole_folder(to) as new:
        table.to_parquet(new / EXAMPLES_FILE)
        said = json.dumps(report, indent=2, ensure_ascii=False)
        (new / REPORT_FILE).write_text(said + "\n", encoding="utf-8")


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
    found = _content_hash(splits)
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


def main(task: str) -> None:
    """The DVC stage prepare@TASK, run in the project's root."""
    try:
        declared, to = load(Path("params.yaml")), Path("data/prepared", task)
        params = declared.task(task)
        refuse_sources(declared, Path(), tasks=[task])
        said = {"data": identity.settings(params.data)}
        identity.require(identity.FOLDER / f"{task}.json", said, f"preface prepare {task}")
        base = Path("bases", params.base)
        context = context_of(base / "config.json")
        prepare(task, params, Path("data/raw", task), base / "tokenizer.json", context, to)
    except PrefaceError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
