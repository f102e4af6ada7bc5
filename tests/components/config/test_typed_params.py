"""params.yaml read as it is typed: labels and columns are text, numbers may have an exponent without a dot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils import validation
from ruamel.yaml import YAML

from components.config.data_params import DataParams, f1_metrics
from components.config.params import TaskParams, load
from components.config.params_faults import yaml_word
from components.errors import ParamsError

FILE = """\
bases:
  tiny: {{source: bases-of-theirs/tiny, hash: "{hash}"}}
tasks:
  film:
    base: tiny
    data: {{source: rows.csv, format: csv, labels: {labels}}}
    instruction: Say it.
    prefix: {{training: {{learning_rate: {rate}}}}}
    gate: [{{metric: accuracy, direction: higher, threshold: {threshold}}}]
"""


def read(to: Path, labels: str = "[a, b]", rate: str = "0.05", threshold: str = "0.5") -> TaskParams:
    file = to / "params.yaml"
    file.write_text(FILE.format(hash="0" * 64, labels=labels, rate=rate, threshold=threshold), encoding="utf-8")
    return load(file).task("film")


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ("{0: world, 1: sports}", {"0": "world", "1": "sports"}),
        ("[0, 1]", {"0": "0", "1": "1"}),
        ("[yes, no]", {"yes": "yes", "no": "no"}),
        ("{on: good, off: bad}", {"on": "good", "off": "bad"}),
        ("[true, False]", {"true": "true", "False": "False"}),
        ("[010, 0x10, 1_000, 1e3, .5]", {name: name for name in ("010", "0x10", "1_000", "1e3", ".5")}),
        ("{2020-01-01: new, 12:30:00: old}", {"2020-01-01": "new", "12:30:00": "old"}),
        ("{a: 1, b: no}", {"a": "1", "b": "no"}),
        ("['0', \"1\"]", {"0": "0", "1": "1"}),
    ],
)
def test_labels_are_the_text_that_stands_in_the_file(tmp_path: Path, typed: str, labels: dict[str, str]) -> None:
    assert read(tmp_path, labels=typed).data.labels == labels


@pytest.mark.parametrize("typed", ["[null, a]", "{a: , b: c}", "[~, b]", "{a: '', b: c}", "[[a], b]"])
def test_what_is_no_text_is_told_with_its_key(tmp_path: Path, typed: str) -> None:
    with pytest.raises(ParamsError, match=r"tasks\.film\.data\.labels: the label .*quotes"):
        read(tmp_path, labels=typed)


def test_a_label_that_stands_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="twice"):
        read(tmp_path, labels="[0, '0']")


@pytest.mark.parametrize("typed", ["5e-3", "5E-3", "1e-2", "5.0e-3", ".5e-2", "5.e-3", "+5e-3"])
def test_an_exponent_needs_no_dot(tmp_path: Path, typed: str) -> None:
    assert read(tmp_path, rate=typed).prefix.training.learning_rate == float(typed)


@given(st.from_regex(r"[-+]?[0-9]{1,3}(\.[0-9]{0,3})?[eE][-+]?[0-9]{1,2}", fullmatch=True))
def test_such_numbers_are_what_dvc_s_reader_takes_them_for(
    tmp_path_factory: pytest.TempPathFactory, typed: str
) -> None:
    found = read(tmp_path_factory.mktemp("p"), threshold=typed).gate[0].threshold
    theirs: Any = YAML(typ="safe").load(f"a: {typed}")["a"]
    assert found == theirs


@pytest.mark.parametrize("typed", ["007", "-010", "4:16", "1:30:00"])
def test_a_number_that_yaml_1_1_alone_reads_so_is_told(tmp_path: Path, typed: str) -> None:
    with pytest.raises(ParamsError, match=rf"{typed} is -?\d+ in YAML 1.1 and something else in 1.2; write a number"):
        read(tmp_path, threshold=typed)


@pytest.mark.parametrize("typed", ["0", "10", "0x1f", "1_000", "-1"])
def test_a_plain_number_is_one(tmp_path: Path, typed: str) -> None:
    assert read(tmp_path, threshold=typed).gate[0].threshold == int(typed, 0)


@pytest.mark.parametrize("typed", ["no", "12", "1.5", "2026-01-01"])
def test_a_text_that_yaml_takes_for_something_else_is_told_to_be_quoted(tmp_path: Path, typed: str) -> None:
    file = tmp_path / "params.yaml"
    text = FILE.format(hash="0" * 64, labels="[a, b]", rate="0.05", threshold="0.5")
    file.write_text(text.replace("Say it.", typed), encoding="utf-8")
    with pytest.raises(ParamsError, match=r"film\.instruction: Input should be a valid string .*; put it in quotes"):
        load(file)


def test_labels_that_are_no_list_are_told_with_one(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"labels: 'good' is no list; write \[good, bad\], or each label"):
        read(tmp_path, labels="good")


# --- metrics of labels ------------------------------------------------------------------------------------------------


def test_ordinary_labels_keep_the_name_that_is_recorded() -> None:
    assert f1_metrics(["positive", "a b", "C++", "é"]) == {
        "positive": "f1_positive",
        "a b": "f1_a b",
        "C++": "f1_C__",
        "é": "f1_é",
    }


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300), unique=True, max_size=8))
def test_metrics_are_names_for_mlflow_one_for_each_label(labels: list[str]) -> None:
    names = f1_metrics(labels)
    assert len(set(names.values())) == len(labels)
    for name in names.values():
        validation._validate_metric_name(name)
        assert len(name) < validation.MAX_ENTITY_KEY_LENGTH


@pytest.mark.parametrize(
    "labels",
    [["/r/python/", "/r/cooking/"], ["😭", "😂"], ["a//b", "a/b"], ["<50K", ">50K"], ["..", "./x"], ["x" * 300, "y"]],
)
def test_a_gate_names_a_label_s_metric_by_the_label(labels: list[str]) -> None:
    task = TaskParams.model_validate(
        {
            "base": "tiny",
            "data": DataParams.model_validate({"source": "rows.csv", "format": "csv", "labels": labels}),
            "instruction": "Say it.",
            "gate": [{"metric": f"f1_{label}", "direction": "higher", "threshold": 0.5} for label in labels],
        }
    )
    assert [rule.metric for rule in task.gate] == list(task.metrics[2:])
    assert yaml.safe_load(yaml.safe_dump(list(task.metrics))) == list(task.metrics)


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("aZé1 _-./:#,'~", max_size=6))
@example("a\x85b")
@example("no")
@example("Null")
@example("the notes.md")
def test_a_text_in_a_line_to_write_is_read_as_itself_by_both_readers(text: str) -> None:
    line = f"ignore: [{yaml_word(text)}]"
    assert yaml.safe_load(line) == {"ignore": [text]}
    assert YAML(typ="safe").load(line) == {"ignore": [text]}
