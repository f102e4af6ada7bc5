"""Base models and answers of strangers, used as they would: each README under inputs/ says what is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cases.case import Case, prepared, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Open = Callable[..., Case]


def decided(opened: Case, task: str) -> None:
    """A retraining that ends with a version and its gate's verdict."""
    done = opened.run("retrain", task)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.returncode == 0 or "GateRefused" in said or "refused by its gate" in said, said
    shown = opened.run("show", f"{task}@1")
    assert shown.returncode == 0, shown.stdout + shown.stderr


@pytest.mark.parametrize("task", ["emoji-labels", "subreddits"])
def test_12_labels_of_signs_are_labels(case: Open, task: str) -> None:
    decided(case("12"), task)


def test_13_texts_without_a_word_are_judged(case: Open) -> None:
    opened = case("13")
    decided(opened, "emoji-texts")
    compared = opened.run("compare", "emoji-texts", "--arm", "linear")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "Traceback" not in compared.stdout + compared.stderr


def test_21_a_quantised_base_is_refused_by_prepare(case: Open) -> None:
    refused(case("21").prepare("bnb-reviews"), "bitsandbytes", "full precision")


def test_22_a_base_without_its_fast_tokenizer_is_told_how_to_make_one(case: Open) -> None:
    done = case("22").prepare("slow-tokenizer")
    refused(done, "tokenizer.json", "save_pretrained")
    assert "preface prepare" not in done.stderr


def test_22_weights_that_are_a_pointer_are_told(case: Open) -> None:
    refused(case("22").prepare("pointer-weights"), "Git LFS")


def test_23_an_id_without_a_row_is_refused_before_training(case: Open) -> None:
    done = case("23").run("retrain", "order-texts")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "IndexError" not in said
    assert "embedding" in said


def test_24_safetensors_are_the_base_whatever_lies_beside_them(case: Open) -> None:
    prepared(case("24").prepare("gguf-beside"))


def test_25_an_answers_ids_are_those_that_follow_the_prompt(case: Open) -> None:
    opened = case("25")
    checked = opened.python(str(opened.folder / "check.py"))
    if checked.returncode:  # such a tokenizer is refused, with the reason
        refused(opened.run("prepare", "dummy-space"), "tokenizer")
    else:
        decided(opened, "dummy-space")


@pytest.mark.parametrize("status", ["401", "403"])
def test_26_a_gated_model_is_told_as_gated(
    case: Open, status: str, free_port: Callable[[], int], running: Callable[..., object], tmp_path: object
) -> None:
    port, opened = free_port(), case("26")
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_notARealTokenButASecret"}
    script, log = str(opened.folder / "hub.py"), opened.root.parent / "hub.log"
    with running(script, str(port), status, log=log, environment={}):  # type: ignore[attr-defined]
        done = opened.run("prepare", "gated-reviews", **hub, HF_HOME=str(opened.root.parent / "hub"))
    refused(done, "gated", "HF_TOKEN")
    assert "Correct the address" not in done.stderr
    assert "hf_notARealTokenButASecret" not in done.stdout + done.stderr


@pytest.mark.parametrize(("folder", "words"), [("resized", ["embedding"]), ("seqcls", ["classification"])])
def test_32_an_adapter_of_an_altered_base_is_refused(case: Open, folder: str, words: list[str]) -> None:
    opened = case("32")
    done = opened.run("import", str(opened.folder / folder), "--task", "imported", "--declare-base")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr.casefold(), done.stderr
    assert "save it again" not in done.stderr
    listed = opened.run("status", "imported", "--json")
    assert '"version": 1' not in listed.stdout
