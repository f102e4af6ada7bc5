"""What is written is deterministic and whole, what is refused leaves nothing behind, what is read was not altered."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from components.config.params import SPLITS, TaskParams
from components.data.prepare import context_of, prepare, read_examples, read_report
from components.errors import BaseError, DataError

ROWS = [(f"text number {n}", ("neg", "pos")[n % 2]) for n in range(60)]


def params(**data: Any) -> TaskParams:
    settings = {"source": "rows.csv", "format": "csv", "labels": ["neg", "pos"], "max_tokens": 8} | data
    gate = [{"metric": "accuracy" if settings["labels"] else "chrf", "direction": "higher", "threshold": 0.5}]
    return TaskParams.model_validate({"base": "tiny", "instruction": "Say it.", "data": settings, "gate": gate})


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A token is a word, or a run of punctuation."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "neg": 1, "pos": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.fixture
def run(tmp_path: Path, tokenizer_file: Path) -> Any:
    """Prepare a CSV of (text, target) rows into tmp_path/prepared."""

    def run(rows: list[tuple[str, str]], context: int = 64, **data: Any) -> dict[str, Any]:
        raw = tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        lines = ["text,target", *(f"{text},{target}" for text, target in rows)]
        (raw / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return prepare("film", params(**data), raw, tokenizer_file, context, tmp_path / "prepared")

    return run


def test_examples_and_report_tell_the_same_story(tmp_path: Path, run: Any) -> None:
    report = run([*ROWS, ("text number 0", "neg"), ("one two three four five six seven eight nine", "pos")])
    found = read_examples(tmp_path / "prepared")

    assert report == read_report(tmp_path / "prepared")
    assert report["rows_read"] == 62
    assert report["rows_kept"] == 61 == sum(len(found.of(split)) for split in SPLITS)
    assert report["rows_truncated"] == 1
    assert report["dropped"]["duplicate"] == {"rows": 1, "first": ["rows.csv:62"]}
    assert report["files"] == {"read": 1, "passed_over": {"files": 0, "first": []}}
    assert report["text_tokens"] == {"min": 3, "median": 3, "p90": 3, "p99": 3, "max": 8}
    for split in SPLITS:
        assert report["splits"][split]["rows"] == len(found.of(split))
        assert report["splits"][split]["labels"]["pos"] == sum(e.target == "pos" for e in found.of(split))
    assert report["content_hash"] == found.content_hash


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, run: Any) -> None:
    prepared = tmp_path / "prepared"
    run(ROWS)
    first = {file.name: file.read_bytes() for file in prepared.iterdir()}
    shutil.rmtree(prepared)
    run(ROWS)
    assert {file.name: file.read_bytes() for file in prepared.iterdir()} == first


def test_the_content_hash_is_pinned(run: Any) -> None:
    # Fingerprints of registered adapters hold it: another way of hashing would train every one of them again.
    assert run(ROWS)["content_hash"] == "53e350432106252d9630aab094a383aa4255eae4f1d246d3b7d1bdaf37c57aaf"


def test_every_cell_counts_in_the_content_hash(run: Any) -> None:
    seen = {run(rows)["content_hash"] for rows in (ROWS, ROWS[:-1], [*ROWS[:-1], ("Text number 59", "pos")])}
    seen.add(run([*ROWS[:-1], ("text number 59", "neg")])["content_hash"])
    seen.add(run(ROWS, split={"train": 0.6, "validation": 0.2, "test": 0.2})["content_hash"])
    assert len(seen) == 5


def test_the_parquet_file_is_a_data_set_of_the_datasets_library(tmp_path: Path, run: Any) -> None:
    run(ROWS)
    table = datasets.Dataset.from_parquet(str(tmp_path / "prepared/examples.parquet"), cache_dir=str(tmp_path / "hf"))
    assert table.column_names == ["id", "text", "target", "split"]
    assert len(table) == 60


def test_a_generation_task_reports_the_length_of_its_answers(tmp_path: Path, run: Any) -> None:
    report = run([(f"text {n}", f"answer number {n}") for n in range(60)], labels=None)
    assert report["target_tokens"]["median"] == 3
    assert "labels" not in report["splits"]["train"]
    assert read_examples(tmp_path / "prepared").of("test")[0].target.startswith("answer number")


def test_a_few_bad_rows_are_counted_and_named(run: Any) -> None:
    report = run([*ROWS, ("", "pos"), ("fine", "good")], max_bad_rows=0.05)
    assert report["dropped"]["bad"] == {
        "rows": 2,
        "first": ["rows.csv:62: 'text' is empty", "rows.csv:63: label 'good' is none of ['neg', 'pos']"],
    }


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            [*ROWS, ("", "pos"), *[("fine", "good")] * 3],
            {"max_bad_rows": 0.05},
            r"film: 4 of 64 rows are bad, which is 6.25% where max_bad_rows allows 5.00%: rows\.csv:62: 'text' is"
            r" empty; rows\.csv:63: label 'good'.*; rows\.csv:64: .*; \.\.\.\. Mend them, or raise tasks\.film\.data",
        ),
        (ROWS, {"text": "review"}, r"rows\.csv has no column 'review'; it has \['text', 'target'\]"),
        ([(text, "pos") for text, _ in ROWS], {}, r"every row of the train split \(.*\) is 'pos'.*\['neg', 'pos'\]"),
        (ROWS, {"labels": ["neg", "pos", "mixed"]}, r"train split \(.*\) has no row of \['mixed'\]"),
        (ROWS[:1], {}, r"nothing is left for validation, test \(train 1, validation 0, test 0\); add rows"),
        ([], {}, "nothing is left for train, validation, test"),
        (
            [(text, label) for text, _ in ROWS for label in ("neg", "pos")],
            {},
            r"film: 120 of 120 rows repeat a text under another label \(rows\.csv:2, rows\.csv:3, rows.*\.\.\.\)",
        ),
        (
            [("always the same", "pos")] * 60,
            {},
            r"nothing is left .*: of 60 rows read, 59 repeat another row \(rows\.csv:3, .*\); add rows",
        ),
        (
            [(text, "other") for text, _ in ROWS],
            {},
            r"60 of 60 rows are bad.*; do not raise tasks\.film\.data\.max_bad",
        ),
        (ROWS, {"max_tokens": 65}, r"max_tokens is 65 and the base tiny reads 64 tokens; set max_tokens to at most 64"),
        (ROWS, {"labels": {"neg": "pos", "pos": "pos ?"}}, "1 pair of labels have words of which one begins"),
    ],
)
def test_rows_that_make_no_data_set_are_refused_and_nothing_is_written(
    tmp_path: Path, run: Any, rows: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(rows, **settings)
    assert not (tmp_path / "prepared").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ROWS)
    before = read_examples(tmp_path / "prepared")

    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)  # the report, behind the examples
    with pytest.raises(DataError, match=r"film: no space is left .* make room, then run `preface prepare film`"):
        prepare("film", params(max_tokens=4), tmp_path / "raw", tmp_path / "tokenizer.json", 64, tmp_path / "prepared")
    assert read_examples(tmp_path / "prepared") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_disk_that_fills_while_rows_are_spilled_leaves_nothing(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr("components.io.spill.Spill._write", full)
    with pytest.raises(DataError, match="film: no space is left"):
        run(ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "tokenizer.json"]


def test_a_row_changed_behind_the_report_is_noticed(tmp_path: Path, run: Any) -> None:
    prepared = tmp_path / "prepared"
    run([*ROWS[:-1], ("text number 59", "neg")])
    other = (prepared / "examples.parquet").read_bytes()
    run(ROWS)
    (prepared / "examples.parquet").write_bytes(other)
    with pytest.raises(DataError, match=r"holds rows of hash [0-9a-f]{64} where its report says [0-9a-f]{64}; delete"):
        read_examples(prepared)


@pytest.mark.parametrize("file", ["examples.parquet", "data_report.json"])
@pytest.mark.parametrize("fault", ["missing", "cut", "flipped"])
def test_a_missing_cut_or_flipped_file_is_refused(tmp_path: Path, run: Any, file: str, fault: str) -> None:
    run(ROWS)
    path = tmp_path / "prepared" / file
    content = path.read_bytes()
    match fault:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            middle = content.index(b'"content_hash": "') + 20 if file.endswith("json") else len(content) // 3
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(DataError, match=r"run `preface prepare prepared`"):
        read_examples(tmp_path / "prepared")


@pytest.mark.parametrize("key", ["max_position_embeddings", "n_positions"])
def test_the_context_is_read_off_the_configuration(tmp_path: Path, key: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: 512}), encoding="utf-8")
    assert context_of(tmp_path / "config.json") == 512


def test_a_configuration_without_a_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="cannot be read"):
        context_of(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BaseError, match="names neither max_position_embeddings nor n_positions"):
        context_of(tmp_path / "config.json")


GROWTH = """
import resource, sys
from pathlib import Path
from components.data.prepare import prepare
from tests.components.data.test_prepare import params
room, count = Path(sys.argv[1]), int(sys.argv[2])
(room / "raw").mkdir(parents=True)
with (room / "raw" / "rows.csv").open("w") as file:
    file.write("text,target\\n")
    file.writelines(f"{n} {'word ' * 60},{('neg', 'pos')[n % 2]}\\n" for n in range(count))
prepare("film", params(max_tokens=64), room / "raw", Path(sys.argv[3]), 64, room / "prepared")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, tokenizer_file: Path) -> None:
    peaks = []
    for count in (150_000, 600_000):  # 45 and 180 MB: as a list, 135 MB of texts alone would come on top
        asked = [sys.executable, "-c", GROWTH, str(tmp_path / str(count)), str(count), str(tokenizer_file)]
        peaks.append(int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout) / 1024)
    assert peaks[1] - peaks[0] < 100
