"""What MLFLOW_TRACKING_URI may say: each kind is taken, or refused in one line that says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import SetupError
from registry.mlflow import tracking_uri

RIGHT = [
    "http://127.0.0.1:5000",
    "https://tracking.example/mlflow/",
    "http://[::1]:5000",
    "postgresql://preface@127.0.0.1/mlflow",
    "postgresql://preface%40corp:pa%25ss%40word@127.0.0.1:5432/mlflow?sslmode=require",
    "postgresql:///mlflow?host=/var/run/postgresql",
    "postgresql+psycopg2://u:p@[::1]:5432/mlflow",
    "mysql+pymysql://u:p@h:3306/mlflow",
    "sqlite:////srv/my store #1 100%25/mlflow.db",
    "sqlite:////srv/mlflow.db?timeout=30",
]
WRONG = {
    "postgres://preface:secret@127.0.0.1:1/mlflow": "write postgresql://preface:***@127.0.0.1:1/mlflow",
    "POSTGRES://preface:secret@h/mlflow": "write postgresql://preface:***@h/mlflow",
    "postgresql://preface:secret@ss:w/rd@127.0.0.1:1/mlflow": "@ as %40",
    "postgresql://preface:secret%zz@127.0.0.1/mlflow": "% as %25",
    "postgresql://preface:secret#x@127.0.0.1/mlflow": "# as %23",
    "postgresql://pre@face:secret@127.0.0.1/mlflow": "@ as %40",
    "postgresql://preface:secret@127.0.0.1:port/mlflow": "postgresql://USER:***@HOST:5432/DATABASE",
    "postgresql://preface:secret@127.0.0.1:99999/mlflow": "at most 65535",
    "postgresql://preface:secret@127.0.0.1": "/DATABASE",
    "postgresql:/preface:secret@127.0.0.1/mlflow": "postgresql://USER:***@HOST:5432/DATABASE",
    "postgres://preface:my secret@127.0.0.1:1/mlflow": "write postgresql://preface:***@127.0.0.1:1/mlflow",
    "postgresql://preface:<secret>|@127.0.0.1:1/mlflow": "must be escaped",
    "PostgreSQL://preface:secret@h/mlflow": "write postgresql://preface:***@h/mlflow",
    "postgresql+asyncpg://preface:secret@h/mlflow": "write postgresql://preface:***@h/mlflow",
    "postgresql//preface:secret@h/mlflow": "how to speak to it",
    '"postgresql://preface:secret@h/mlflow"': "how to speak to it",
    "SQLite:////srv/mlflow.db": "write sqlite:////srv/mlflow.db",
    "sqlite:////srv/mlflow.db?timeout=soon": "write sqlite:////srv/mlflow.db",
    "sqlite:////srv/ml?flow.db": "rename it",
    "./mlruns": "file store",
    "mlruns": "file store",
    "/srv/mlruns": "write sqlite:////srv/mlruns/mlflow.db",
    "file:///srv/mlruns": "write sqlite:////srv/mlruns/mlflow.db",
    "file:mlruns": "file store",
    "C:\\mlruns": "file store",
    "": "unset it",
    "mlflow.db": "write sqlite:////",
    "/srv/mlflow.db": "write sqlite:////srv/mlflow.db",
    "sqlite:///mlflow.db": "depends on the folder",
    "sqlite:///./data/mlflow.db": "depends on the folder",
    "sqlite+pysqlite:///mlflow.db": "depends on the folder",
    "sqlite://mlflow.db": "sqlite:////",
    "sqlite:mlflow.db": "sqlite:////",
    "sqlite://": "keeps nothing",
    "sqlite:///:memory:": "keeps nothing",
    "https://127.0.0.1:bad/": "write http://HOST:PORT",
    "http://127.0.0.1:99999": "write http://HOST:PORT",
    "http://": "write http://HOST:PORT",
    "http:///mlflow": "write http://HOST:PORT",
    "http://[::1": "write http://HOST:PORT",
    "http://host/#/experiments/1": "write http://host",
    "http://bob:secret@host:5000": "MLFLOW_TRACKING_PASSWORD",
    "http://bob:12/secret@host:5000": "MLFLOW_TRACKING_PASSWORD",
    "127.0.0.1:5000": "write http://127.0.0.1:5000",
    "localhost:5000": "write http://localhost:5000",
    "databricks": "Databricks",
    "databricks://secret-profile": "Databricks",
    "s3://bucket/mlflow": "http://, https://",
    "mongodb://u:secret@h/mlflow": "http://, https://",
    "'http://127.0.0.1:5000'": "http",
    "http://127.0.0.1:5000\n": "spaces around it",
    " http://127.0.0.1:5000": "spaces around it",
}


@pytest.mark.parametrize("uri", RIGHT)
def test_what_can_be_a_store_is_taken_as_it_is(uri: str) -> None:
    assert tracking_uri.check(uri) == uri


@pytest.mark.parametrize("uri", WRONG)
def test_what_cannot_be_one_is_refused_in_a_line_that_says_what_to_write(uri: str) -> None:
    with pytest.raises(SetupError) as refusal:
        tracking_uri.check(uri)

    said = str(refusal.value)
    assert WRONG[uri] in said
    assert len(said.splitlines()) == 1
    assert "secret" not in said.replace("secret-profile", "")


def test_a_relative_path_is_told_as_the_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    for relative in ("sqlite:///data/mlflow.db", "data/mlflow.db"):
        with pytest.raises(SetupError, match=f"write sqlite:///{tmp_path}/data/mlflow.db"):
            tracking_uri.check(relative)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"is a folder; write sqlite:///{tmp_path}/mlflow.db"):
        tracking_uri.check(f"sqlite:///{tmp_path}")


def test_a_password_longer_than_a_message_is_not_cut_into_view() -> None:
    password = "secret" * 300  # as a cloud's tokens are

    with pytest.raises(SetupError) as refusal:
        tracking_uri.check(f"postgres://iam:{password}@db.example/mlflow")

    assert "secret" not in str(refusal.value)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["", "postgresql://", "http://", "sqlite:///", "file:", "postgres://u:"]))
def test_any_text_is_taken_or_refused_in_one_line(text: str, start: str) -> None:
    said = tracking_uri.fault(start + text)

    assert len(said.splitlines()) <= 1
