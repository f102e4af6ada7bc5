"""What may be a secret in an address or a message never comes out; what tells where something is does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import SourceError
from components.redaction import carries_password, public, redact

SECRET = "S3cr-t.0fMine"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://bob:{SECRET}@host/rows.csv", "https://***@host/rows.csv"),
        (f"https://{SECRET}@host/rows.csv", "https://***@host/rows.csv"),
        (f"https://host/rows.csv?X-Amz-Signature={SECRET}&n=1", "https://host/rows.csv?X-Amz-Signature=***&n=***"),
        (f"https://host/rows.csv#{SECRET}", "https://host/rows.csv#***"),
        (f"postgresql://preface:{SECRET}@host:1/mlflow", "postgresql://preface:***@host:1/mlflow"),
        (f"postgresql+psycopg2://a:p@ss/{SECRET}:w@host/db", "postgresql+psycopg2://a:***@host/db"),
        (f"postgresql://host/db?user=a&password={SECRET}", "postgresql://host/db?user=***&password=***"),
        (f"mysql://a:{SECRET}/x@host/db", "mysql://a:***@host/db"),
        (f"https://bob:pa/{SECRET}@host/rows.csv", "https://***@host/rows.csv"),
        (f"tried 'http://u:{SECRET}@h/a' and http://u:{SECRET}@h/b, in vain", None),
        (f"socks5://u:{SECRET}@proxy:1080", "socks5://***@proxy:1080"),
        (f"connection to host failed: password={SECRET} user=a", "connection to host failed: password=*** user=a"),
        (f"aws_secret_access_key: {SECRET}", "aws_secret_access_key: ***"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"postgresql://a:my {SECRET}@host/db", "postgresql://a:***@host/db"),
        (f"postgresql://a:it's|<{SECRET}>@host/db", "postgresql://a:***@host/db"),
        (f'tried http://u:a"{SECRET}@h/a at http://h:80/b', "tried http://***@h/a at http://h:80/b"),
        (f'{{"password": "my {SECRET}", "n": 1}}', '{"password": ***, "n": 1}'),
        (f"PGPASSWORD={SECRET} sslpassword='my {SECRET}'", "PGPASSWORD=*** sslpassword=***"),
        (f"https://bob:{SECRET}/rows.csv", "https://bob:***/rows.csv"),
        (f"postgresql://a:{SECRET}", "postgresql://a:***"),
        (f"failed with url: /c/b.csv?sv=2&sig={SECRET}&se=1", "failed with url: /c/b.csv?sv=2&sig=***&se=1"),
    ],
)
def test_a_secret_is_masked(text: str, shown: str | None) -> None:
    assert SECRET not in redact(text)
    if shown is not None:
        assert redact(text) == shown
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/OWNER/NAME@0123456789abcdef0123456789abcdef01234567/rows.csv",
        "pypi://NAME==1.0/rows.csv",
        "s3://bucket/key/rows.csv",
        "https://host:8080/@user/rows.csv",
        "sqlite:////tmp/pre face #1 (50% off)/mlflow.db",
        "models:/task/Production",
        "data/reviews.csv",
        "tasks.a.data.max_tokens: 256, prefix.virtual_tokens: 20",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "http://127.0.0.1:5000 does not answer; ask whoever is ops@corp.example",
        "http://host:99999/ and http://[::1]:8080/api and s3://bucket/a:b",
        "http://HOST:PORT or hf://OWNER/NAME@COMMIT",
        "the tokenizer: gpt2",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"bob:{SECRET}@host:3128", "***@host:3128"),
        (f"https//bob:{SECRET}@host", "***@host"),
        (f'"postgresql://bob:{SECRET}@host/db"', '***@host/db"'),
        ("https://host:8080/@user/rows.csv", "https://host:8080/@user/rows.csv"),
        ("host:3128", "host:3128"),
    ],
)
def test_an_address_that_stands_alone_needs_no_scheme_to_be_masked(address: str, shown: str) -> None:
    assert public(address) == shown


def test_the_secrets_of_the_environment_are_masked_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf_{SECRET}")

    assert redact(f"the hub said: hf_{SECRET} is not known") == "the hub said: *** is not known"


def test_an_error_of_ours_has_lost_its_secrets_before_it_is_raised() -> None:
    error = SourceError(f"https://bob:{SECRET}@host/rows.csv?token={SECRET} answers 403")

    assert SECRET not in f"{error}{error!r}{error.args}"


@pytest.mark.parametrize(
    ("address", "carries"),
    [
        (f"https://bob:{SECRET}@host/a", True),
        (f"https://{SECRET}@host/a", True),
        ("https://host/@bob/a", False),
        ("https://host/a?mail=bob@host", False),
        ("hf://OWNER/NAME@0123456789abcdef0123456789abcdef01234567", False),
        ("data/a@b.csv", False),
    ],
)
def test_a_password_in_an_address_is_seen(address: str, carries: bool) -> None:
    assert carries_password(address) is carries


_LETTERS = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"<>`|#?&")


@given(st.text(_LETTERS, min_size=1), st.sampled_from(["postgresql", "mysql+pymysql"]))
def test_whatever_signs_a_password_has_it_is_masked(password: str, scheme: str) -> None:
    assert redact(f"{scheme}://user:{password}@host:5432/db") == f"{scheme}://user:***@host:5432/db"


@pytest.mark.parametrize(
    "token",
    [
        "hf_" + "aB3" * 8,
        "AKIA" + "ABCD1234" * 2,
        "ghp_" + "a1B2" * 8,
        "glpat-" + "x9Y8" * 5,
        "pypi-" + "AgEI" * 10,
        "eyJ" + "hbGciOi" * 3 + ".eyJ" + "zdWIiOi" * 3 + ".sig",
    ],
)
def test_a_token_is_known_by_its_form(token: str) -> None:
    assert redact(f"refused {token}: no") == "refused ***: no"


@pytest.mark.parametrize("address", ["hf://bob:planted@owner/name@abc", "pypi://bob:planted@name==1.0/a.csv"])
def test_a_password_in_front_of_a_hub_or_an_index_is_one(address: str) -> None:
    assert carries_password(address)
    assert "planted" not in redact(address)


def test_what_was_masked_carries_no_password_any_more() -> None:
    shown = redact("https://bob:planted@host/rows.csv")
    assert shown == redact(shown) == "https://***@host/rows.csv"
    assert not carries_password(shown)


@pytest.mark.parametrize("key", ["data.max_token", "prompt.secret", "api_key"])
def test_a_misspelt_key_of_params_yaml_is_no_secret(key: str) -> None:
    line = f"  tasks.film.{key}: unknown key, did you mean 'max_tokens'?"
    assert redact(line) == line
    assert redact(f"{key}: unknown") == f"{key}: ***"
