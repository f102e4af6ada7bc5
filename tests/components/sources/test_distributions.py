"""An index that pip is set to: the digest chooses the file, and no code of it ever runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from components.errors import SourceError, SourceUnavailable
from components.sources.distributions import download

METADATA = b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n"
# A build backend inside the distribution, so that pip needs no other; it leaves a mark when it runs.
BACKEND = b"""
import os, pathlib

def prepare_metadata_for_build_wheel(folder, settings=None):
    pathlib.Path(os.environ["TINYDATA_RAN"]).touch()
    info = pathlib.Path(folder, "tinydata-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tinydata\\nVersion: 1.0\\n")
    return info.name
"""
PROJECT = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The digests of the wheel and the sdist of tinydata 1.0, on an index that pip is told to use."""
    shelf = tmp_path / "index" / "tinydata"
    shelf.mkdir(parents=True)
    with zipfile.ZipFile(shelf / "tinydata-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinydata/rows.csv", "from the wheel")
        wheel.writestr("tinydata-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tinydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinydata-1.0.dist-info/RECORD", "")
    with tarfile.open(shelf / "tinydata-1.0.tar.gz", "w:gz") as sdist:
        for name, content in {"PKG-INFO": METADATA, "pyproject.toml": PROJECT, "backend.py": BACKEND}.items():
            info = tarfile.TarInfo(f"tinydata-1.0/{name}")
            info.size = len(content)
            sdist.addfile(info, io.BytesIO(content))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in shelf.iterdir()}
    links = [f'<a href="{name}#sha256={digest}">{name}</a>' for name, digest in digests.items()]
    (shelf / "index.html").write_text("<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.setenv("TINYDATA_RAN", str(tmp_path / "ran"))
    return digests


@pytest.mark.parametrize("name", ["tinydata-1.0-py3-none-any.whl", "tinydata-1.0.tar.gz"])
def test_the_digest_chooses_between_wheel_and_sdist(index: dict[str, str], name: str, tmp_path: Path) -> None:
    file = download("tinydata==1.0", index[name], tmp_path)
    assert file.name == name
    assert hashlib.sha256(file.read_bytes()).hexdigest() == index[name]


def test_a_wrong_digest_is_refused_with_both(index: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=f"has the sha256 [0-9a-f]{{64}} and [0-9a-f]{{64}}, params.yaml pins {'0' * 64}"
    ):
        download("tinydata==1.0", "0" * 64, tmp_path)


def test_no_code_of_an_sdist_runs_whatever_its_digest(index: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "index" / "tinydata" / "tinydata-1.0-py3-none-any.whl").unlink()
    page = tmp_path / "index" / "tinydata" / "index.html"
    page.write_text('<!DOCTYPE html><html><body><a href="tinydata-1.0.tar.gz">tinydata-1.0.tar.gz</a></body></html>')
    with pytest.raises(SourceError, match=index["tinydata-1.0.tar.gz"]):
        download("tinydata==1.0", "0" * 64, tmp_path)
    file = download("tinydata==1.0", index["tinydata-1.0.tar.gz"], tmp_path)
    assert not (tmp_path / "ran").exists()
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}"]
    subprocess.run([*pip, str(file)], capture_output=True, check=False)
    assert (tmp_path / "ran").exists(), "the test's backend never runs, so it proved nothing"


def test_an_unknown_distribution_is_refused(index: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no index has tinydata==2\.0 \(looked at file://") as raised:
        download("tinydata==2.0", "0" * 64, tmp_path)
    assert raised.type is SourceError


def test_settings_that_pip_cannot_read_are_told_and_no_other_index_is_asked(
    index: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "pip.conf"
    broken.write_text("[global\nindex-url = https://ours/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(broken))
    with pytest.raises(SourceError, match=r"pip's own settings cannot be read: .*no section headers.*; correct pip"):
        download("tinydata==1.0", index["tinydata-1.0.tar.gz"], tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "many")
    with pytest.raises(SourceError, match=r"cannot be read: .*invalid integer value: 'many'"):
        download("tinydata==1.0", index["tinydata-1.0.tar.gz"], tmp_path)


def test_an_index_that_is_down_is_worth_another_try(
    index: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceUnavailable, match=r"could not reach an index for tinydata==1\.0"):
        download("tinydata==1.0", "0" * 64, tmp_path)


@pytest.mark.parametrize("kind", ["application/vnd.pypi.simple.v1+json", "text/html"])
def test_an_index_on_the_web_is_read_in_either_form(
    index: dict[str, str], kind: str, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tinydata-1.0.tar.gz"
    page = f'<a href="../../files/{name}#sha256={index[name]}">{name}</a>'
    if "json" in kind:
        page = json.dumps(
            {"files": [{"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": index[name]}}]}
        )
    site.put("/simple/tinydata/", page.encode(), headers={"Content-Type": kind})
    site.put(f"/files/{name}", (tmp_path / "index/tinydata" / name).read_bytes())
    monkeypatch.setenv("PIP_INDEX_URL", site.url.replace("http://", "http://bob:planted@") + "/simple")
    assert download("tinydata==1.0", index[name], tmp_path).name == name
    with pytest.raises(SourceError) as raised:
        download("tinydata==2.0", index[name], tmp_path)
    assert "planted" not in str(raised.value)


def test_an_index_that_wants_a_login_is_told(
    index: dict[str, str], site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/simple/tinydata/", status=401)
    monkeypatch.setenv("PIP_INDEX_URL", site.url.replace("http://", "http://bob:planted@") + "/simple")
    with pytest.raises(SourceError, match=r"simple/tinydata/ answered 401, a login is missing or wrong") as raised:
        download("tinydata==1.0", "0" * 64, tmp_path)
    assert "planted" not in str(raised.value)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "index").as_uri())
    assert download("tinydata==1.0", index["tinydata-1.0.tar.gz"], tmp_path).is_file()


@pytest.mark.parametrize(
    "said", [b"[]", b'{"files": 3}', b'{"files": [{}]}', b'{"files": [{"filename": 3, "url": 3}]}']
)
def test_a_page_of_odd_json_is_no_index(
    index: dict[str, str], said: bytes, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/simple/tinydata/", said, headers={"Content-Type": "application/json"})
    monkeypatch.setenv("PIP_INDEX_URL", site.url + "/simple")
    with pytest.raises(SourceUnavailable, match="could not reach an index"):
        download("tinydata==1.0", "0" * 64, tmp_path)


def test_an_extra_index_that_is_down_does_not_hide_what_another_has(
    index: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", os.environ["PIP_INDEX_URL"])
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert download("tinydata==1.0", index["tinydata-1.0.tar.gz"], tmp_path).is_file()


@pytest.mark.parametrize("href", ["../../../evil-1.0.tar.gz", "/etc/tinydata-1.0.tar.gz", "a/..%2Ftinydata-1.0.tar.gz"])
def test_a_page_writes_nothing_outside_the_folder(
    index: dict[str, str], href: str, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/simple/tinydata/", f'<a href="{href}">x</a>'.encode())
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
    (tmp_path / "in/to").mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SourceError):
        download("tinydata==1.0", "0" * 64, tmp_path / "in/to")
    assert {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "in/to")} == set()
