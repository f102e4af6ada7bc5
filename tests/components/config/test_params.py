"""params.yaml: every fault is told at once with its key path, and nothing but ParamsError leaves the reader."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.config import params
from components.errors import ParamsError

REPOSITORY = Path(__file__).parents[3]
HASH = "a" * 64
GOOD: dict[str, Any] = {
    "bases": {"tiny": {"source": "bases/tiny", "hash": HASH}},
    "tasks": {
        "mood": {
            "base": "tiny",
            "data": {"source": "mood.csv", "format": "csv", "labels": ["bad", "good"]},
            "instruction": "Say whether it is good or bad.",
            "gate": [{"metric": "accuracy", "direction": "higher", "threshold": 0.8}],
        }
    },
}
Change = Callable[[dict[str, Any]], None]
Load = Callable[[Change], params.Params]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the good file after a change to it."""

    def changed(change: Change) -> params.Params:
        content = copy.deepcopy(GOOD)
        change(content)
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return params.load(file)

    return changed


def put(path: str, value: object) -> Change:
    """The change that writes a value at a dotted key path."""

    def change(content: dict[str, Any]) -> None:
        *way, last = path.split(".")
        for key in way:
            content = content.setdefault(key, {})
        content[last] = value

    return change


def test_the_repositorys_own_file_loads() -> None:
    found = params.load(REPOSITORY / "params.yaml")
    assert {"movie-sentiment", "news-topic", "paper-outcome"} <= set(found.tasks)
    assert found.task("paper-outcome").generates
    assert not found.task("movie-sentiment").generates


def test_a_task_of_ten_lines_gets_the_measured_defaults(load: Load) -> None:
    task = load(lambda _: None).task("mood")
    assert (task.method, task.promotion, task.template) == ("prompt", "manual", "{text}\n")
    assert task.data.labels == {"bad": "bad", "good": "good"}
    assert task.settings("prompt") is task.prompt
    assert task.settings("prefix") is task.prefix
    assert task.prompt.training.learning_rate != task.prefix.training.learning_rate
    assert task.data.split.train + task.data.split.validation + task.data.split.test == pytest.approx(1.0)


@pytest.mark.parametrize("change", [lambda p: setattr(p, "bases", {}), lambda p: setattr(p.task("mood"), "base", "x")])
def test_records_are_frozen(load: Load, change: Callable[[params.Params], None]) -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        change(load(lambda _: None))


def test_all_faults_are_told_at_once_with_key_path_and_near_miss(load: Load) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for path, value in {
            "bases.tiny.hash": "abc",
            "tasks.mood.base": "tiney",
            "tasks.mood.prompt.training.stepz": 3,
            "tasks.mood.data.formt": "csv",
            "tasks.mood.retrain": {"warm_start": "moode"},
            "tasks.moods": {"retrain": {"warm_start": "moods"}},
            "tasks.Mood_2": {},
            "takss": {},
        }.items():
            put(path, value)(content)
        del content["tasks"]["mood"]["instruction"]

    with pytest.raises(ParamsError) as told:
        load(spoil)
    headline, *lines = str(told.value).splitlines()
    assert headline.endswith(f"params.yaml has {len(lines)} faults:")
    for expected in (
        "bases.tiny.hash: 'abc' is not a sha256: 64 lower-case hexadecimal digits",
        "tasks.mood.base: no base 'tiney' under bases, did you mean 'tiny'?",
        "tasks.mood.prompt.training.stepz: unknown key, did you mean 'steps'?",
        "tasks.mood.data.formt: unknown key, did you mean 'format'?",
        "tasks.mood.instruction: missing",
        "tasks.mood.retrain.warm_start: it is true, false or another task's name, and there is no other task 'moode',"
        " did you mean 'moods'?",
        "tasks.moods.retrain.warm_start: it is true, false or another task's name, and there is no other task 'moods',"
        " did you mean 'mood'?",
        "tasks.Mood_2: a name is 1 to 64 lower-case letters, digits and inner hyphens",
        "tasks.Mood_2.data: missing",
        "takss: unknown key, did you mean 'tasks'?",
    ):
        assert f"  {expected}" in lines


@pytest.mark.parametrize(("written", "meant"), [("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), (";", ";"), (None, None)])
def test_a_separator_is_one_character_however_a_tab_is_written(load: Load, written: object, meant: str | None) -> None:
    assert load(put("tasks.mood.data.delimiter", written)).task("mood").data.delimiter == meant


def test_a_misspelt_key_inside_a_list_is_told_with_its_place(load: Load) -> None:
    rules = [{"metric": "accuracy", "direction": "higher", "treshold": 0.8}]
    with pytest.raises(ParamsError, match=r"tasks\.mood\.gate\.0\.treshold: unknown key, did you mean 'threshold'\?"):
        load(put("tasks.mood.gate", rules))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("bases.tiny.hash", HASH.upper(), "not a sha256"),
        ("bases.tiny.source", "pypi://some==1.0/model.gguf", "a pypi:// source needs sha256"),
        ("tasks.mood.data.source", "pypi://some==1.0/rows.csv", "a pypi:// source needs sha256"),
        ("tasks.mood.data.sha256", "0x12", "not a sha256"),
        ("tasks.mood.data.labels", ["one"], "labels has 1 entry"),
        ("tasks.mood.data.labels", ["bad", "good", "bad"], "a label stands twice"),
        ("tasks.mood.data.labels", [None, "bad"], "the label None is not text; put it in quotes"),
        ("tasks.mood.data.labels", [["bad"], ["good"]], "the label ['bad'] is not text"),
        ("tasks.mood.data.labels", {"bad": "word", "good": "word"}, "two labels share one word"),
        ("tasks.mood.data.ranges", {"bad": [None, 0]}, "ranges names ['bad'] and labels ['bad', 'good']"),
        ("tasks.mood.data.ranges", {"bad": [1, 0], "good": [1, None]}, "the range of 'bad' is empty: 1 is above 0"),
        ("tasks.mood.data.ranges", {"bad": [0, 1, 2], "good": [3, 4]}, "ranges.bad: Tuple should have at most 2"),
        (
            "tasks.mood.data.ranges",
            {"bad": [float("nan"), 0], "good": [1, 2]},
            "ranges.bad.0: Input should be a finite",
        ),
        ("tasks.mood.data.ranges", {"bad": [10**400, None], "good": [1, 2]}, "a number of 401 characters"),
        ("tasks.mood.data.columns", "text", "columns: Input should be a valid list"),
        ("tasks.mood.data.delimiter", "", "'' is not one character that can part cells; write"),
        ("tasks.mood.data.delimiter", "::", "'::' is not one character that can part cells"),
        ("tasks.mood.data.delimiter", '"', "is not one character that can part cells"),
        ("tasks.mood.data.quoting", "double", "quoting: Input should be 'doubled', 'backslash' or 'none'"),
        ("tasks.mood.data.encoding", "uft-8", "Python has no text encoding 'uft-8'"),
        ("tasks.mood.data.encoding", "hex", "Python has no text encoding 'hex'"),
        ("tasks.mood.data.split", {"train": 0.8}, "train + validation + test is 1.1; it must be 1"),
        ("tasks.mood.data.split", {"train": 0.8, "validation": 0.2, "test": 0}, "needs a share above 0"),
        ("tasks.mood.data.max_bad_rows", 1.5, "max_bad_rows: Input should be less than or equal to 1 (it is 1.5)"),
        ("tasks.mood.data.limit.train", 0, "limit.train: Input should be greater than or equal to 1"),
        ("tasks.mood.template", "Answer:", "template must hold {text} once"),
        ("tasks.mood.template", "{text} {text}", "template must hold {text} once"),
        ("tasks.mood.template", "{text} by {author}", "it holds ['text', 'author']"),
        ("tasks.mood.template", "{text:{width}}", "template must hold {text} once"),
        ("tasks.mood.template", "{text!r}", "template must hold {text} once"),
        ("tasks.mood.template", "{text", "template: expected '}'"),
        ("tasks.mood.instruction", "", "instruction: String should have at least 1 character"),
        ("tasks.mood.method", "lora", "method: Input should be 'prompt' or 'prefix' (it is 'lora')"),
        ("tasks.mood.prompt.virtual_tokens", "20", "virtual_tokens: Input should be a valid integer (it is '20')"),
        ("tasks.mood.prompt.virtual_tokens", True, "virtual_tokens: Input should be a valid integer (it is True)"),
        ("tasks.mood.prompt.training.learning_rate", float("inf"), "learning_rate: Input should be a finite number"),
        ("tasks.mood.prompt.training.seed", 2**32, "seed: Input should be less than 4294967296"),
        ("tasks.mood.prefix.training.learning_rate", 1e38, "learning_rate: Input should be less than or equal to 100"),
        ("tasks.mood.baselines.hard_prompts", ["Say it.", ""], "hard_prompts.1: String should have at least 1 char"),
        ("tasks.mood.gate", [], "gate: List should have at least 1 item"),
        ("tasks.mood.gate", [{"metric": "accuracy", "direction": "higher"}], "exactly one of threshold and beats"),
        ("tasks.mood.gate", [{"metric": "accuracy", "direction": "up", "threshold": 1}], "gate.0.direction: "),
        (
            "tasks.mood.data.labels",
            ["é", "e\u0301"],
            "two labels look the same and differ in their bytes: '\\xe9' and 'e",
        ),
        ("tasks.mood.data.ignore", [""], "ignore.0: String should have at least 1 char"),
        ("tasks", ["mood"], "tasks: Input should be a valid dictionary"),
        ("tasks.mood", None, "tasks.mood: Input should be a valid dictionary or instance of TaskParams (it is None)"),
    ],
)
def test_bad_values_are_refused(load: Load, path: str, value: object, told: str) -> None:
    with pytest.raises(ParamsError) as error:
        load(put(path, value))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"metric": "acuracy", "threshold": 0.8}, "the metric 'acuracy', did you mean 'accuracy'?"),
        ({"metric": "chrf", "threshold": 20}, "measured by accuracy, macro_f1, f1_bad, f1_good"),
        ({"metric": "accuracy", "beats": "champoin"}, "gate.0.beats: beats is 'champoin'; it is champion or a list"),
        ({"metric": "accuracy", "beats": []}, "gate.0.beats: beats is []"),
        ({"metric": "accuracy", "beats": ["lienar"]}, "no baseline 'lienar', did you mean 'linear'?"),
        ({"metric": "accuracy", "beats": ["hard_prompt"]}, "hard_prompt beaten, which this task does not measure"),
        ({"metric": "accuracy", "threshold": 0.8, "beats": "champion"}, "exactly one of threshold and beats"),
        ({"metric": "accuracy", "threshold": float("nan")}, "gate.0.threshold: Input should be a finite number"),
        ({"metric": "accuracy", "beats": "champion", "margin": float("-inf")}, "margin: Input should be a finite"),
    ],
)
def test_a_gate_that_no_candidate_could_pass_is_refused_before_anything_is_trained(
    load: Load, rule: dict[str, Any], told: str
) -> None:
    with pytest.raises(ParamsError) as error:
        load(put("tasks.mood.gate", [{"direction": "higher", **rule}]))
    assert told in str(error.value)


def test_a_generation_task_has_no_linear_model_to_beat(load: Load) -> None:
    def generation(content: dict[str, Any]) -> None:
        put("tasks.mood.data.labels", None)(content)
        put("tasks.mood.gate", [{"metric": "chrf", "direction": "higher", "beats": ["linear"]}])(content)

    with pytest.raises(ParamsError, match="linear beaten, which this task does not measure"):
        load(generation)


@pytest.mark.parametrize("length", [1, 64])
def test_names_of_every_allowed_length_load(load: Load, length: int) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["tasks"]["m" * length] = content["tasks"].pop("mood")

    assert load(rename).task("m" * length).base == "tiny"


@pytest.mark.parametrize("name", ["", "m" * 65, "-mood", "mood-", "Mood", "a/b", "a.releases", "a_b", 7.5])
def test_names_that_a_store_or_folder_would_not_take_are_refused(load: Load, name: object) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["tasks"][name] = content["tasks"].pop("mood")

    with pytest.raises(ParamsError, match="a name is 1 to 64 lower-case letters"):
        load(rename)


def test_an_unknown_task_is_told_with_its_near_miss(load: Load) -> None:
    found = load(lambda _: None)
    with pytest.raises(ParamsError, match=r"no task 'mod', did you mean 'mood'\?; it has \['mood'\]"):
        found.task("mod")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds nothing; it must hold a mapping"),
        (b"- bases\n- tasks\n", "holds list; it must hold a mapping"),
        (b"bases: [", "is not YAML: "),
        (b"bases: \xff\xfe", "is not YAML: byte 7 is not UTF-8; save the file as UTF-8"),
        (b"bases: {a: 2001-99-99}", "is not YAML: month must be in 1..12"),
        (b"bases: !!bool perhaps", "is not YAML: "),
        (b"bases: !!python/object/apply:os.getcwd []", "is not YAML: "),
        (b"[" * 5000, "is not YAML: "),
        (b"tasks: {}\nbases: {}\ntasks: {}\n", "the key 'tasks' stands twice"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    with pytest.raises(ParamsError) as error:
        params.load(file)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml does not exist; run preface in a folder that has"):
        params.load(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="cannot be read"):
        params.load(tmp_path)


def test_an_anchor_may_be_merged_and_overridden(tmp_path: Path) -> None:
    """A key that overrides a merged one does not stand twice."""
    file = tmp_path / "params.yaml"
    file.write_text(
        f"bases: {{tiny: {{source: x, hash: {HASH}}}}}\n"
        "tasks:\n"
        "  one: &one\n"
        "    base: tiny\n"
        "    data: {source: x.csv, format: csv}\n"
        "    instruction: Sum it up.\n"
        "    gate: [{metric: chrf, direction: higher, threshold: 20}]\n"
        "  two: {<<: *one, instruction: Sum it up in a word.}\n"
    )
    found = params.load(file)
    assert found.task("two").instruction == "Sum it up in a word."
    assert found.task("two").data == found.task("one").data


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
KEYS = st.sampled_from(["bases", "tasks", "mood", "data", "labels", "ranges", "gate", "beats", "template"]) | st.text(
    max_size=4
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=3),
    max_leaves=12,
)
PLACES = st.sampled_from(
    [
        "bases", "bases.tiny", "bases.tiny.hash", "tasks", "tasks.mood", "tasks.mood.data", "tasks.mood.data.labels",
        "tasks.mood.data.ranges", "tasks.mood.data.split", "tasks.mood.data.encoding", "tasks.mood.data.source",
        "tasks.mood.template", "tasks.mood.gate", "tasks.mood.prompt", "tasks.mood.baselines", "tasks.mood.base",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=PLACES, tree=TREES)
def test_whatever_stands_in_the_file_only_params_error_leaves(load: Load, place: str, tree: object) -> None:
    with suppress(ParamsError):
        assert isinstance(load(put(place, tree)), params.Params)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(alphabet="abt:{}[]-&*!<>|'\"\n 01.", max_size=60).map(str.encode))
def test_whatever_bytes_the_file_has_only_params_error_leaves(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    with pytest.raises(ParamsError):
        params.load(file)
