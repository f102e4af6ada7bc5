"""Files of rows that strangers had, prepared as they would: each README under inputs/ says what is right."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable

import pytest

from tests.cases.case import Case, prepared, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Open = Callable[..., Case]


def test_01_a_huge_cell_is_one_row(case: Open) -> None:
    opened = case("01")
    prepared(opened.prepare("huge-cell"))

    report, texts = opened.report("huge-cell"), [row["text"] for row in opened.examples("huge-cell")]
    assert report["rows_read"] == 121
    assert report["rows_kept"] + sum(each["rows"] for each in report["dropped"].values()) == 121
    assert not [text for text in texts if text.startswith("pos 0") or text == 'and wants a refund"']


def test_02_rows_that_a_stray_quote_swallows_are_all_told(case: Open) -> None:
    opened = case("02")
    done = opened.prepare("stray-quote")
    if done.returncode == 0:
        report = opened.report("stray-quote")
        assert report["rows_read"] == 600
        assert report["dropped"]["bad"]["rows"] >= 301
    else:
        refused(done, "301 of 600", "quote")

    done = opened.prepare("mysql-quotes")
    if done.returncode == 0:
        report = opened.report("mysql-quotes")
        assert report["rows_read"] == 600
        assert report["rows_kept"] + sum(each["rows"] for each in report["dropped"].values()) == 600
        assert report["dropped"]["bad"]["rows"] == 0
    else:
        refused(done, "of 600", "backslash")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("not-csv-utf16", ["utf-16", "encoding"]),
        ("not-csv-xlsx", ["spreadsheet", "save it as CSV"]),
        ("not-csv-pointer", ["Git LFS", "git lfs pull"]),
        ("not-csv-page", ["HTML", "raw"]),
    ],
)
def test_03_what_a_file_really_is_is_told(case: Open, task: str, words: list[str]) -> None:
    refused(case("03").prepare(task), *words)


def test_03_a_compressed_file_is_told_or_read(case: Open) -> None:
    opened = case("03")
    done = opened.prepare("not-csv-gzip")
    if done.returncode:
        refused(done, "gzip")
    else:
        assert opened.report("not-csv-gzip")["rows_read"] == 120


@pytest.mark.parametrize("task", ["semicolon", "semicolon-sep"])
def test_04_semicolons_are_seen(case: Open, task: str) -> None:
    opened = case("04")
    prepared(opened.prepare(task))
    assert opened.report(task)["rows_kept"] == 120


@pytest.mark.parametrize("task", ["spark-reviews", "spark-by-label"])
def test_05_what_spark_wrote_is_read(case: Open, task: str) -> None:
    opened = case("05")
    prepared(opened.prepare(task))
    assert opened.report(task)["rows_kept"] == 160
    assert {row["target"] for row in opened.examples(task)} == {"bad", "good"}


def test_06_a_missing_answer_is_no_answer(case: Open) -> None:
    opened = case("06")
    prepared(opened.prepare("nan-summaries"))

    bad = opened.report("nan-summaries")["dropped"]["bad"]
    assert bad["rows"] == 4
    assert [line.split(": ")[0] for line in bad["first"]] == [f"tickets.jsonl:{n}" for n in (12, 48, 84, 111)]
    assert opened.report("nan-summaries")["rows_kept"] == 116
    assert "nan" not in {row["target"].casefold() for row in opened.examples("nan-summaries")}

    opened.edit("max_bad_rows: 0.05", "max_bad_rows: 0.01")
    refused(opened.prepare("nan-summaries"), "4 of 120 rows are bad")


def test_07_integers_are_labels(case: Open) -> None:
    opened = case("07")
    prepared(opened.prepare("class-ints"))
    assert {row["target"] for row in opened.examples("class-ints")} == {"0", "1", "2", "3"}


def test_08_na_and_none_are_words(case: Open) -> None:
    opened = case("08")
    prepared(opened.prepare("real-words"))
    report = opened.report("real-words")
    assert (report["rows_read"], report["rows_kept"], report["dropped"]["bad"]["rows"]) == (160, 160, 0)


def test_09_a_name_is_the_same_in_every_normal_form(case: Open) -> None:
    opened = case("09")
    prepared(opened.prepare("nfd-folders"))
    assert opened.report("nfd-folders")["rows_kept"] == 120


def test_10_quotes_of_a_tsv_are_read_as_meant(case: Open) -> None:
    opened = case("10")
    prepared(opened.prepare("tsv-quotes"))
    with (opened.folder / "notes.tsv").open(encoding="utf-8", newline="") as file:
        meant = {row["text"].strip() for row in csv.DictReader(file, delimiter="\t")}
    assert {row["text"] for row in opened.examples("tsv-quotes")} == meant
    assert opened.report("tsv-quotes")["rows_kept"] == 120


def test_11_several_labels_a_text_are_the_reason(case: Open) -> None:
    done = case("11").prepare("multilabel")
    refused(done, "300 of 300 rows", "another label", "emotions.csv:2")
    assert "add rows" not in done.stderr


def test_14_all_clashing_words_are_told_at_once(case: Open) -> None:
    opened = case("14")
    done = opened.prepare("intents")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for label in ("insurance_change", "credit_limit_change", "pto_request_status", "order_status"):
        assert label in done.stderr
    assert "labels:" in done.stderr

    words = "insurance, insurance_change, credit_limit, credit_limit_change, pto_request, pto_request_status, order"
    opened.edit(
        f"[{words}, order_status]",
        "{insurance: cover, insurance_change: change of cover, credit_limit: limit, credit_limit_change: new limit,"
        " pto_request: holiday, pto_request_status: status of a holiday, order: order,"
        " order_status: where the goods are}",
    )
    prepared(opened.prepare("intents"))


@pytest.mark.parametrize("task", ["json-array", "json-one-line"])
def test_15_an_array_is_read_or_told(case: Open, task: str) -> None:
    opened = case("15")
    done = opened.prepare(task)
    if done.returncode:
        refused(done, "JSON array")
    else:
        assert opened.report(task)["rows_read"] == 60


def test_16_folders_that_are_no_label_are_told_as_folders(case: Open) -> None:
    done = case("16").prepare("imdb-like")
    refused(done, "unsup", "60 files", "README")
    assert "max_bad_rows" not in done.stderr


def test_17_a_source_among_our_own_outputs_is_refused_and_stays(case: Open) -> None:
    opened = case("17")
    file = opened.root / "data/raw/own-raw/reviews.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes((opened.folder / "reviews.csv").read_bytes())
    before = hashlib.sha256(file.read_bytes()).hexdigest()

    refused(opened.prepare("own-raw"), "data/raw/own-raw")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before

    with file.open("a", encoding="utf-8") as rows:
        rows.write("One more lamp that works,good\n")
    refused(opened.prepare("own-raw"), "data/raw/own-raw")
    assert file.read_text(encoding="utf-8").endswith("One more lamp that works,good\n")


def test_18_where_head_is_refused_get_decides(
    case: Open, free_port: Callable[[], int], server: Callable[..., object]
) -> None:
    port = free_port()
    opened = case("18", port=port)
    script = str(opened.folder / "serve.py")
    with server(script, str(port), url=f"http://127.0.0.1:{port}/", environment={}):  # type: ignore[attr-defined]
        prepared(opened.prepare("presigned"))
        assert opened.report("presigned")["rows_read"] == 160
        again = opened.prepare("presigned")
    prepared(again)
    assert "Running stage" not in again.stdout + again.stderr


def test_19_an_exponent_without_a_dot_is_a_number(case: Open) -> None:
    opened = case("19")
    done = opened.run("doctor")
    assert "Input should be a valid number" not in done.stdout + done.stderr
    prepared(opened.prepare("exponent"))


def test_20_what_notepad_does_to_params_yaml_changes_nothing(case: Open) -> None:
    opened = case("20")
    assert opened.run("retrain", "notepad").returncode == 0
    file = opened.root / "params.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))

    prepared(opened.prepare("notepad"))
    again = opened.run("retrain", "notepad")
    assert again.returncode == 0
    assert "Unchanged" in again.stdout + again.stderr
