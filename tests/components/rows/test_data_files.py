"""Which files are read: no file goes without a word, and none is read that holds no rows."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from components.config.params import DataParams
from components.errors import DataError
from components.rows.data_files import data_files, partition_of


def data(**settings: Any) -> DataParams:
    return DataParams.model_validate({"source": "rows", "format": "parquet"} | settings)


def fill(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def listed(folder: Path, **settings: Any) -> tuple[list[str], dict[str, str]]:
    files = data_files(folder, data(**settings))
    return [path.as_posix() for path in files.read], {path.as_posix(): why for path, why in files.passed_over}


def test_what_spark_and_hive_write_beside_their_rows_is_passed_over_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "part-0.parquet", "_SUCCESS", "._SUCCESS.crc", "_metadata", "y=1/part-0.parquet", "y=1/_x/a.parquet")
    fill(tmp_path, "part-1.parquet", content=b"")
    assert listed(tmp_path) == (
        ["part-0.parquet", "y=1/part-0.parquet"],
        {
            "._SUCCESS.crc": "hidden",
            "_SUCCESS": "marker",
            "_metadata": "marker",
            "part-1.parquet": "empty",
            "y=1/_x/a.parquet": "marker",
        },
    )


def test_a_column_whose_name_begins_with_an_underscore_is_a_column(tmp_path: Path) -> None:
    fill(tmp_path, "_year=2024/part-0.parquet")
    assert listed(tmp_path) == (["_year=2024/part-0.parquet"], {})


@pytest.mark.parametrize("name", ["_rows.csv", ".rows.csv", "Thumbs.db"])
def test_a_source_that_is_one_file_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert listed(fill(tmp_path, name), format="csv") == ([name], {})


SYSTEM = ["__MACOSX/pos/1.txt", "pos/Thumbs.db", "pos/desktop.ini", "pos/@eaDir/1.txt", "pos/Icon\r", "$RECYCLE.BIN/1"]


@pytest.mark.parametrize("format_", ["folder", "csv"])
def test_what_a_system_put_there_is_passed_over(tmp_path: Path, format_: str) -> None:
    fill(tmp_path, "pos/1.txt", "pos/2.txt", "pos/.DS_Store", *SYSTEM)
    read, passed_over = listed(tmp_path, format=format_)
    assert read == ["pos/1.txt", "pos/2.txt"]
    assert passed_over == dict.fromkeys(SYSTEM, "system") | {"pos/.DS_Store": "hidden"}


def test_in_a_folder_of_texts_underscores_and_empty_files_count_and_a_label_may_be_hidden(tmp_path: Path) -> None:
    taken_apart = unicodedata.normalize("NFD", ".é")
    fill(tmp_path, "_neg/_1.txt", ".net/1.txt", f"{taken_apart}/1.txt", ".git/1.txt")
    fill(tmp_path, "_neg/2.txt", content=b"")
    read, passed_over = listed(tmp_path, format="folder", labels=["_neg", ".net", ".é"])
    assert set(read) == {"_neg/_1.txt", "_neg/2.txt", ".net/1.txt", f"{taken_apart}/1.txt"}
    assert passed_over == {".git/1.txt": "hidden"}


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        (["unsup"], ["README.md", "test/pos/1.txt", "train/pos/1.txt"]),
        (["train/unsup"], ["README.md", "test/pos/1.txt", "train/pos/1.txt"]),
        (["train"], ["README.md", "test/pos/1.txt"]),
        (["train/"], ["README.md", "test/pos/1.txt"]),
        (["*.md", "unsu?"], ["test/pos/1.txt", "train/pos/1.txt"]),
        (["1.txt"], ["README.md"]),
        (["./train"], ["README.md", "test/pos/1.txt"]),
        (["**/unsup/**", "**/README.md"], ["test/pos/1.txt", "train/pos/1.txt"]),
        (["**/pos/1.txt"], ["README.md", "train/unsup/1.txt"]),
        (["**/train/**"], ["README.md", "test/pos/1.txt"]),
        (["pos/1.txt"], ["README.md", "test/pos/1.txt", "train/pos/1.txt", "train/unsup/1.txt"]),
        (["nothing"], ["README.md", "test/pos/1.txt", "train/pos/1.txt", "train/unsup/1.txt"]),
    ],
)
def test_ignore_leaves_out_by_name_path_or_pattern(tmp_path: Path, ignore: list[str], left: list[str]) -> None:
    fill(tmp_path, "README.md", "train/pos/1.txt", "train/unsup/1.txt", "test/pos/1.txt")
    read, passed_over = listed(tmp_path, ignore=ignore)
    assert read == left
    assert set(passed_over.values()) <= {"ignored"}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [(unicodedata.normalize("NFD", "à part"), "à part/1.txt"), ("[draft]", "[draft]/1.txt"), ("a*b", "a*b/1.txt")],
)
def test_ignore_takes_names_in_any_unicode_form_and_with_the_signs_of_patterns(
    tmp_path: Path, pattern: str, name: str
) -> None:
    assert listed(fill(tmp_path, name, "pos/1.txt"), ignore=[pattern])[0] == ["pos/1.txt"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["_delta_log/00000000000000000000.json", "part-0.parquet"], r"a Delta table: its folder also holds rows that"),
        (["sub/_delta_log/0.json", "sub/part-0.parquet"], r"sub/_delta_log/0\.json says that this is a Delta table"),
        ([".hoodie/hoodie.properties", "a.parquet"], "a Hudi table"),
        (["metadata/v1.metadata.json", "data/a.parquet"], "an? Iceberg table"),
        (["_temporary/0/part-0.parquet", "part-1.parquet"], "has not ended, or failed"),
        (["_SUCCESS", "_metadata"], r"no file is left to read: all 2 are passed over: _SUCCESS \(marker\), _metadata"),
        ([], "holds no file; check the source"),
    ],
)
def test_a_folder_whose_files_are_not_its_rows_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_files(fill(tmp_path, *names), data())


def test_files_without_a_byte_are_told_as_such(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv", content=b"")
    with pytest.raises(DataError, match=r"^a\.csv is empty \(0 bytes\)"):
        data_files(tmp_path, data(format="csv"))


def test_a_folders_name_gives_a_column_its_value() -> None:
    path = Path("year=2024/label=caf%C3%A9%20%2F%3D/part-0.parquet")
    assert partition_of(path) == {"year": "2024", "label": "café /="}
    assert partition_of(Path("label=__HIVE_DEFAULT_PARTITION__/a.parquet")) == {"label": None}
    assert partition_of(Path("e\u0301=1/a.parquet")) == {"\u00e9": "1"}  # as a Mac's file names have it
    assert partition_of(Path("label=/=x/plain/a=b.parquet")) == {"label": ""}


def test_the_report_counts_all_and_names_the_first_in_signs_that_print(tmp_path: Path) -> None:
    names = [f".hidden\n{number:02}" for number in range(30)]
    report = data_files(fill(tmp_path, "a.csv", *names), data(format="csv")).report()
    assert report["read"] == 1
    assert report["passed_over"]["files"] == 30
    assert report["passed_over"]["first"][0] == ".hidden\\n00 (hidden)"
    assert len(report["passed_over"]["first"]) == 20
