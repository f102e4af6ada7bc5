"""A source may not lie where Preface and DVC write and delete, however it is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.base.base_hash import hash_base
from components.base.base_model import materialise
from components.config.params import BaseParams, Params
from components.errors import SourceError
from components.sources.byte_source import fetch
from components.sources.own_folders import OWN, overlap, refuse_sources

ROOT = Path(__file__).parents[3]
GATE = [{"metric": "accuracy", "direction": "higher", "threshold": 0.5}]
PLACES = [
    "data/raw/film/rows.csv",
    "data/raw/other/rows.csv",
    "data/raw/rows.csv",
    "data/prepared/film/rows.csv",
    "data/sources/film.json",
    "bases/mine/rows.csv",
    ".dvc/cache/rows.csv",
    ".preface/rows.csv",
]


def declared(film: str, news: str = "s3://bucket/news.csv", base: str = "hf://owner/name@" + "0" * 40) -> Params:
    def task(source: str) -> dict[str, object]:
        data = {"source": source, "format": "csv", "labels": ["a", "b"]}
        return {"base": "mine", "data": data, "instruction": "Say it.", "gate": GATE}

    bases = {"mine": {"source": base, "hash": "0" * 64}}
    return Params.model_validate({"bases": bases, "tasks": {"film": task(film), "news": task(news)}})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project where somebody's files lie in each of our folders, beside a folder of their own."""
    for place in (*PLACES, "own/rows.csv", "own/deep/rows.csv"):
        path = tmp_path / "project" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text,label\n")
    return tmp_path / "project"


def test_every_output_of_a_stage_lies_in_a_folder_of_ours() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    told = [out for stage in stages.values() for out in stage["do"]["outs"]]
    outs = [out if isinstance(out, str) else next(iter(out)) for out in told]
    assert outs
    for out in outs:
        assert any(Path(out).is_relative_to(own) for own in OWN), f"{out}: name its folder in OWN"


@pytest.mark.parametrize("place", PLACES)
def test_a_source_in_a_folder_of_ours_is_refused_and_the_way_out_is_told(root: Path, place: str) -> None:
    with pytest.raises(
        SourceError, match=rf"^tasks\.film\.data\.source lies in .*: {place}\. .*; move it into a folder"
    ):
        refuse_sources(declared(place), root, ["film"])


def absolute(root: Path) -> str:
    return str(root / "data/raw/film/rows.csv")


def roundabout(root: Path) -> str:
    return "own/../data/./raw//film/rows.csv"


def link_to_file(root: Path) -> str:
    (root / "mine.csv").symlink_to("data/raw/film/rows.csv")
    return "mine.csv"


def link_to_folder(root: Path) -> str:
    (root / "mine").symlink_to(root / "data")
    return "mine/raw/film"


def link_that_lies_there(root: Path) -> str:
    (root / "data/raw/film/link.csv").symlink_to(root / "own/rows.csv")
    return "data/raw/film/link.csv"


def own_folder_elsewhere(root: Path) -> str:
    """The project's data/raw is a link to a larger disk, and the source is named by its place there."""
    (root / "data/raw").rename(root.parent / "disk")
    (root / "data/raw").symlink_to(root.parent / "disk")
    return str(root.parent / "disk/film/rows.csv")


def whole_folder_of_another_task(root: Path) -> str:
    return "data/raw/other"


def home(root: Path) -> str:
    os.environ["HOME"] = str(root)
    return "~/data/raw/film/rows.csv"


@pytest.mark.parametrize(
    "way",
    [
        absolute,
        roundabout,
        link_to_file,
        link_to_folder,
        link_that_lies_there,
        own_folder_elsewhere,
        whole_folder_of_another_task,
        home,
    ],
)
def test_it_is_the_place_that_counts_and_not_how_it_is_written(
    root: Path, way: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", os.environ.get("HOME", "/"))  # put back afterwards
    with pytest.raises(SourceError, match=r"lies in data/raw"):
        refuse_sources(declared(way(root)), root, ["film"])


@pytest.mark.parametrize("around", [".", "data", "", "..", "/", "data/../data"])
def test_a_folder_around_ours_is_refused(root: Path, around: str) -> None:
    source = around or str(root)
    with pytest.raises(SourceError, match=r"is a folder around .*; move your own files into a folder of your own"):
        refuse_sources(declared(source), root, ["film"])


def test_a_folder_around_ours_is_refused_before_ours_are_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(SourceError, match="is a folder around data/raw"):
        refuse_sources(declared("data"), tmp_path, ["film"])


@pytest.mark.parametrize("target", ["data/raw/film/rows.csv", "bases/mine", "data/prepared"])
def test_a_link_inside_of_a_source_that_leads_into_ours_is_refused(root: Path, target: str) -> None:
    (root / "own/deep/link").symlink_to(root / target)
    with pytest.raises(SourceError, match=r"holds the link deep/link, which leads into .*put the file itself"):
        refuse_sources(declared("own"), root, ["film"])


@pytest.mark.parametrize("source", ["own", "own/rows.csv", "nowhere.csv", "data/rawish.csv", "s3://data/raw/film.csv"])
def test_a_place_of_ones_own_is_none_of_ours(root: Path, source: str) -> None:
    (root / "data/rawish.csv").touch()
    refuse_sources(declared(source), root, ["film"], ["mine"])


def test_what_another_task_reads_is_not_deleted_for_this_one(root: Path) -> None:
    in_ours = declared("own/rows.csv", news="data/raw/film/rows.csv")
    with pytest.raises(SourceError, match=r"tasks\.news\.data\.source lies in data/raw/film"):
        refuse_sources(in_ours, root, ["film"])
    in_others = declared("own/rows.csv", news="data/raw/other/rows.csv")
    refuse_sources(in_others, root, ["film"])  # nothing there is made for film


@pytest.mark.parametrize("source", ["bases/mine", "bases", "data/raw/film"])
def test_the_weights_of_a_base_are_kept(root: Path, source: str) -> None:
    with pytest.raises(SourceError, match=r"^bases\.mine\.source"):
        refuse_sources(declared("own/rows.csv", base=source), root, ["film"], ["mine"])


def test_a_base_where_preface_bases_has_it_made_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "models/mine").mkdir(parents=True)
    monkeypatch.setenv("PREFACE_BASES", str(root.parent / "models"))
    with pytest.raises(SourceError, match=r"^bases\.mine\.source lies in .*models/mine"):
        refuse_sources(declared("own/rows.csv", base=str(root.parent / "models/mine")), root, ["film"], ["mine"])


def test_nothing_is_fetched_into_or_around_its_own_source(tmp_path: Path) -> None:
    (tmp_path / "rows/deep").mkdir(parents=True)
    (tmp_path / "rows/deep/a.csv").write_bytes(b"only copy")
    for source, to in (("rows", "rows"), ("rows/deep/a.csv", "rows"), ("rows", "rows/deep/new"), (".", "rows")):
        with pytest.raises(SourceError, match="lie in one another"):
            fetch(source, tmp_path / to, root=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {"a.csv": b"only copy"}


def test_a_base_is_not_made_in_place_of_its_own_source(tiny_base_folder: Callable[..., Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base_folder("llama"), mine)
    (mine / "notes.txt").write_text("only copy")
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    for pinned in (hash_base(mine).value, "0" * 64):
        with pytest.raises(SourceError, match=r"bases\.mine\.source .*lie in one another"):
            materialise("mine", BaseParams(source=str(mine), hash=pinned), mine)
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before


def test_two_folders_side_by_side_do_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    assert not overlap(tmp_path / "a", tmp_path / "ab")
    assert overlap(tmp_path / "a", tmp_path / "a/not/there/yet")
