"""Secrets planted wherever an environment holds them: none is in anything that a command says or leaves behind.

Every command runs as a user types it, in success and in failure, with real parts. Then every byte that was written is
looked at: both streams, and all files below the project, databases, caches and logs included.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.flows.conftest import FILM, ROOT, rows

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(1500)]

PLACES = (
    "SOURCE_QUERY",
    "SOURCE_TOKEN",
    "PREFECT_URL",
    "PREFECT_KEY",
    "PREFECT_AUTH",
    "TRACKING_URL",
    "TRACKING_QUERY",
    "TRACKING_PASSWORD",
    "AWS_SECRET",
    "AWS_SESSION",
    "HF",
    "DVC_REMOTE",
    "PROXY",
    "ENDPOINT",
    "PIP_INDEX",
    "NETRC",
)
# As long as real ones, and found as they are wherever they stand.
SECRET = {
    place: f"planted{number:02}{hashlib.sha256(place.encode()).hexdigest()[:24]}" for number, place in enumerate(PLACES)
}
# What the user wrote into a file of the user's own is there by the user's word.
OWN = ("params.yaml", ".dvc/config.local", "netrc")


def environment(root: Path, **more: str) -> dict[str, str]:
    """Credentials where people keep them; the port is one that nothing listens on."""
    planted = {
        "MLFLOW_TRACKING_USERNAME": "bob",
        "MLFLOW_TRACKING_PASSWORD": SECRET["TRACKING_PASSWORD"],
        "PREFECT_API_KEY": SECRET["PREFECT_KEY"],
        "PREFECT_API_AUTH_STRING": f"bob:{SECRET['PREFECT_AUTH']}",
        "AWS_ACCESS_KEY_ID": "planted-access-key",
        "AWS_SECRET_ACCESS_KEY": SECRET["AWS_SECRET"],
        "AWS_SESSION_TOKEN": SECRET["AWS_SESSION"],
        "AWS_ENDPOINT_URL": f"http://bob:{SECRET['ENDPOINT']}@127.0.0.1:9",
        "MLFLOW_S3_ENDPOINT_URL": f"http://bob:{SECRET['ENDPOINT']}@127.0.0.1:9",
        "HF_TOKEN": SECRET["HF"],
        "HTTPS_PROXY": f"http://bob:{SECRET['PROXY']}@127.0.0.1:9",
        "PIP_INDEX_URL": f"https://bob:{SECRET['PIP_INDEX']}@127.0.0.1:9/simple",
        "NETRC": str(root / "netrc"),
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "PREFECT_HOME")}
    slow = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240"}
    own = slow | {"PYTHONPATH": str(ROOT), "PREFACE_BASES": str(root / "bases"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    return kept | planted | own | more


def forms(secret: str) -> Iterator[bytes]:
    """The secret as it stands, and as a header of HTTP would hold it."""
    yield secret.encode()
    yield quote(secret).encode()
    yield base64.b64encode(f"bob:{secret}".encode())


def leaks(name: str, content: bytes) -> list[str]:
    return [f"{place} in {name}" for place, secret in SECRET.items() if any(form in content for form in forms(secret))]


def test_no_secret_is_said_or_written(
    prepared_folder: Path, site: Any, free_port: Callable[[], int], tmp_path: Path
) -> None:
    root, found, said = prepared_folder, [], []

    def change(**tasks: dict[str, Any]) -> None:
        declared = yaml.safe_load((root / "params.yaml").read_text())
        declared["tasks"] |= tasks
        (root / "params.yaml").write_text(yaml.safe_dump(declared))

    def preface(*arguments: str, status: tuple[int, ...] = (0, 1, 2), **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=root,
            env=environment(root, **more),
            capture_output=True,
            timeout=400,
        )
        typed = f"preface {' '.join(arguments)}"
        found.extend(leaks(f"what `{typed}` says ({done.returncode})", done.stdout + done.stderr))
        text = (done.stdout + done.stderr).decode()
        said.append(f"$ {typed} -> {done.returncode}\n{text}")
        assert done.returncode in status, said[-1]
        assert "Traceback" not in text, said[-1]
        return text

    csv = ("text,target\n" + rows(0, 120)).encode()
    signed = f"X-Amz-Credential=AK&X-Amz-Signature={SECRET['SOURCE_QUERY']}&token={SECRET['SOURCE_TOKEN']}"
    good, refused = site.put("/film.csv", csv), site.put("/refused.csv", b"", status=403)

    def source(address: str, **data: str) -> dict[str, Any]:
        return FILM | {"data": FILM["data"] | {"source": address} | data}

    port = f"127.0.0.1:{free_port()}"
    (root / "netrc").write_text(f"machine 127.0.0.1 login bob password {SECRET['NETRC']}\n")
    (root / "netrc").chmod(0o600)
    change(
        film=source(f"{good}?{signed}", sha256=hashlib.sha256(csv).hexdigest()),
        refused=source(f"{refused}?{signed}"),
        bucket=source("s3://reviews/film.csv"),
        hub=source(f"hf://somebody/films@{40 * 'a'}/film.csv"),
        package=source("pypi://films==1.0/film.csv", sha256="0" * 64),
    )

    preface("prepare", "film", status=(0,))
    preface("retrain", "film", status=(0,))
    preface("promote", "film", "--reason", f"see {good}?{signed}", status=(0,))
    for failing in ("refused", "bucket", "hub", "package"):
        preface("prepare", failing, status=(1,))
    preface("retrain", "refused", status=(1,))
    remote = ["remote", "add", "--local", "--default", "store", f"http://bob:{SECRET['DVC_REMOTE']}@{port}/dvc"]
    subprocess.run([sys.executable, "-m", "dvc", *remote], cwd=root, check=True, capture_output=True)
    change(film=source(f"{good}?{signed}", sha256=hashlib.sha256(csv).hexdigest()) | {"instruction": "Dull or funny?"})
    preface("retrain", "film", status=(1,))
    for looking in (["status", "--json"], ["history", "film"], ["show", "film@1"], ["doctor"], ["verify", "--all"]):
        preface(*looking)
    preface("predict", "film", "a funny film", status=(0,))
    api = f"http://bob:{SECRET['PREFECT_URL']}@{port}/api"
    for asking in (["doctor"], ["notify", "slack-webhook/x"], ["schedule", "--list"], ["deploy"]):
        preface(*asking, PREFECT_API_URL=api, status=(1,))
    preface("rollback", "film", "--reason", "x", PREFECT_API_URL=api, status=(1,))
    for store in (
        f"http://bob:{SECRET['TRACKING_URL']}@{port}/?password={SECRET['TRACKING_QUERY']}",
        f"postgresql://bob:{SECRET['TRACKING_URL']}@{port}/mlflow?password={SECRET['TRACKING_QUERY']}",
    ):
        for asking in (["status"], ["doctor"], ["promote", "film", "--reason", "x"]):
            preface(*asking, MLFLOW_TRACKING_URI=store, status=(1,))

    looked = 0
    for folder in (root, tmp_path / "dvc"):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and not str(path.relative_to(folder)).endswith(OWN):
                with suppress(PermissionError):
                    found += leaks(str(path.relative_to(tmp_path)), path.read_bytes())
                    looked += 1
    assert (root / ".preface" / "prefect" / "prefect.db").is_file()
    assert looked > 100
    assert not found, "\n".join([*sorted(set(found)), *said])
