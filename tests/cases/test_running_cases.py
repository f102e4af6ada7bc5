"""Places, addresses and machines of strangers: each README under inputs/ says what is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases.case import Case

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
Open = Callable[..., Case]


def well(done: subprocess.CompletedProcess[str]) -> str:
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    return said


def test_27_a_deleted_experiment_keeps_nothing_from_rollback(case: Open) -> None:
    opened = case("27")
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{opened.root}/.preface/mlflow.db"}
    for options in ([], ["--force"]):
        well(opened.run("retrain", "tidied", *options, **store))
    number = opened.python(
        "-c", "import mlflow; print(mlflow.MlflowClient().get_experiment_by_name('tidied').experiment_id)", **store
    ).stdout.strip()
    well(opened.python("-m", "mlflow", "experiments", "delete", "--experiment-id", number, **store))

    refused = opened.run("retrain", "tidied", "--force", **store)
    assert refused.returncode == 1
    assert f"mlflow experiments restore --experiment-id {number}" in refused.stderr
    assert "Traceback" not in refused.stderr
    well(opened.run("retrain", "tidied", **store))
    well(opened.run("status", "tidied", **store))
    well(opened.run("predict", "tidied", "The lamp no. 1 works perfectly", **store))
    well(opened.run("rollback", "tidied", "--reason", "the experiment is gone, not the versions", **store))
    assert "Traceback" not in opened.run("verify", "--all", **store).stderr

    well(opened.python("-m", "mlflow", "experiments", "restore", "--experiment-id", number, **store))
    well(opened.run("retrain", "tidied", "--force", **store))


def test_28_everything_works_in_a_folder_of_odd_signs(case: Open, tmp_path: Path) -> None:
    opened = case("28", root="pre face #1 (50% off)")
    odd = tmp_path / "my tmp #2 50%25"
    odd.mkdir()
    place = {"TMPDIR": str(odd)}
    well(opened.run("doctor", **place))
    for command in (
        ["retrain", "odd-path"],
        ["promote", "odd-path", "--reason", "first"],
        ["retrain", "odd-path", "--force"],
        ["promote", "odd-path", "--reason", "second"],
        ["rollback", "odd-path", "--reason", "why"],
        ["predict", "odd-path", "lamp"],
        ["show", "odd-path@production"],
        ["verify", "--all"],
    ):
        well(opened.run(*command, **place))
    script = (
        "import mlflow, pandas as pd\n"
        "print(mlflow.pyfunc.load_model('models:/odd-path/Production').predict(pd.DataFrame({'text': ['lamp']})))"
    )
    where = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{opened.root}/.preface/mlflow.db",
        "PREFACE_BASES": f"{opened.root}/bases",
    }
    well(opened.python("-c", script, **place, **where))


ADDRESSES = {
    "postgres://preface:secret@127.0.0.1:1/mlflow": "postgresql://",
    "postgresql://preface%40corp:pa%25ss%40word@127.0.0.1:1/mlflow": "refused",
    "postgresql://preface:p@ss:w/rd@127.0.0.1:1/mlflow": "",
    "./mlruns": "sqlite:///",
    "file:///tmp/mlruns-here": "sqlite:///",
    "mlflow.db": "sqlite:///",
    "https://127.0.0.1:1/": "does not answer",
    "databricks": "databricks",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_29_an_address_that_cannot_be_is_told_in_one_line(case: Open, address: str) -> None:
    opened = case("29")
    for command in (["doctor"], ["status", "tracked"]):
        done = opened.run(*command, seconds=120, MLFLOW_TRACKING_URI=address)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "Traceback" not in said
        assert "interpolation" not in said
        for secret in ("secret", "pa%25ss", "pa%ss", "p@ss", "w/rd"):
            assert secret not in said
        assert ADDRESSES[address] in said
    assert len(done.stderr.strip().splitlines()) == 1


def test_29_a_relative_store_is_one_store_or_none(case: Open) -> None:
    opened = case("29")
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    trained = opened.run("retrain", "tracked", **store)
    (opened.root / "notebooks").mkdir()
    looked = opened.run("status", "tracked", at="notebooks", **store)

    found = list(opened.root.rglob("mlflow.db"))
    if trained.returncode:
        assert "sqlite:///" in trained.stderr
        assert not found
    else:
        assert len(found) == 1
        assert looked.returncode == 0 or not list((opened.root / "notebooks").iterdir())


def test_30_what_is_on_this_machine_is_asked_past_the_proxy(case: Open, tmp_path: Path) -> None:
    opened = case("30")
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    proxy = dict.fromkeys(names, "http://127.0.0.1:9")
    well(opened.run("doctor", **proxy))
    well(opened.run("retrain", "proxied", **proxy))
    command = [sys.executable, "-m", "cli.main", "schedule"]
    log = tmp_path / "schedule.log"
    with log.open("wb") as output:
        environment = opened.environment | proxy
        process = subprocess.Popen(
            command, cwd=opened.root, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 180
            listed = opened.run("schedule", "--list", **proxy)
            while listed.returncode and time.monotonic() < deadline:
                time.sleep(3)
                listed = opened.run("schedule", "--list", **proxy)
            well(listed)
            well(opened.run("doctor", **proxy))
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_31_one_run_a_calendar_day_whatever_the_clocks_do(case: Open) -> None:
    opened = case("30")
    checked = opened.python(str(opened.folder.parent / "31-cron-dst" / "check.py"))
    assert checked.returncode == 0, checked.stdout
