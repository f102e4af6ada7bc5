"""A folder of texts: what belongs to no label is told by folders, with the line that leaves it out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config.params import DataParams
from components.errors import DataError
from components.rows.reader import read_rows
from components.rows.row import Row

LABELS = {"neg": "bad", "pos": "good"}


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"text of " + os.fsencode(name))


def texts(place: str, count: int = 30) -> list[str]:
    return [f"{place}/{number}.txt" for number in range(count)]


def read(folder: Path, **settings: Any) -> list[Row]:
    given = {"source": "rows", "format": "folder", "labels": LABELS} | settings
    return list(read_rows(folder, DataParams.model_validate(given)))


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **settings)
    return str(caught.value)


def test_folders_that_are_no_label_are_told_with_their_files_and_the_line_that_leaves_them_out(tmp_path: Path) -> None:
    fill(tmp_path, *texts("train/pos"), *texts("train/neg"), *texts("test/pos"), *texts("train/unsup", 60))
    fill(tmp_path, "README", "imdb.vocab", "train/urls_pos.txt")
    said = refusal(tmp_path)
    assert said == (
        "63 of 153 files belong to no label: train/unsup: 60 files: no label of yours (neg, pos); README, imdb.vocab,"
        " train/urls_pos.txt: in no label's folder. Leave them out with `ignore: [train/unsup, README, imdb.vocab,"
        " train/urls_pos.txt]` under the task's data, or declare the label"
    )
    ignore = yaml.safe_load(said.split("`")[1])["ignore"]
    assert len(read(tmp_path, ignore=ignore)) == 90


def test_the_line_to_write_is_yaml_whatever_the_names(tmp_path: Path) -> None:
    names = ["à part", "yes", "a: b", '"quoted"', "[draft]", "- x", "tab\there", "cut\x85here"]
    fill(tmp_path, *texts("pos"), *(f"{name}/1.txt" for name in names))
    said = refusal(tmp_path, max_bad_rows=0.0)
    assert said.isprintable()
    ignore = yaml.safe_load(said.split("`")[1])["ignore"]
    assert len(read(tmp_path, ignore=ignore)) == 30
    assert sorted(ignore) == sorted(names)


def test_many_folders_are_told_by_the_largest(tmp_path: Path) -> None:
    fill(tmp_path, *texts("pos"), *(f"topic{n}/{file}.txt" for n in range(20) for file in range(n + 1)))
    said = refusal(tmp_path)
    assert "topic19: 20 files, topic18: 19 files" in said
    assert "topic12: 13 files and 12 more: no label of yours" in said
    assert len(said) < 700


def test_where_nothing_belongs_to_a_label_the_layout_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "1.txt", "2.txt")
    assert refusal(tmp_path) == (
        "2 of 2 files belong to no label: 1.txt, 2.txt: in no label's folder. A text's folder is its label,"
        " LABEL/FILE.txt, and the labels are those of data.labels (neg, pos)"
    )
    fill(tmp_path, *texts("Pos"))
    assert "Pos: 30 files: no label of yours (neg, pos); 'pos' differs in letter case" in refusal(tmp_path)


def test_a_few_strays_are_bad_rows_as_any_others(tmp_path: Path) -> None:
    fill(tmp_path, *texts("pos", 99), *texts("neg", 99), "README", "odd/1.txt")
    faults = {row.where: row.fault for row in read(tmp_path) if row.fault}
    assert faults == {"README": "stands in no subfolder, whose name would be its label"}
    assert [row.target for row in read(tmp_path) if row.where == "odd/1.txt"] == ["odd"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_folders_off_a_mac_are_their_labels(tmp_path: Path, form: Any) -> None:
    labels = ["Négatif", "Å", "한국"]
    fill(tmp_path, *(f"{unicodedata.normalize(form, label)}/1.txt" for label in labels))
    fill(tmp_path, "__MACOSX/Négatif/._1.txt", ".DS_Store")
    assert len(read(tmp_path, labels=labels)) == 3


def test_without_labels_each_folder_is_an_answer(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.txt", "b/c/1.txt")
    assert [row.target for row in read(tmp_path, labels=None)] == ["a", "c"]


def test_a_name_that_is_no_utf_8_is_named_in_signs_that_print(tmp_path: Path) -> None:
    fill(tmp_path, "pos/caf\udce9\n.txt", *texts("pos"))
    assert "pos/caf\\udce9\\n.txt" in [row.where for row in read(tmp_path)]
    fill(tmp_path, "caf\udce9/1.txt", "caf\udce9/2.txt")
    ignore = yaml.safe_load(refusal(tmp_path).split("`")[1])["ignore"]
    assert len(read(tmp_path, ignore=ignore)) == 31
