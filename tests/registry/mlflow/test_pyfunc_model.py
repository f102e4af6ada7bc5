"""A registered version as MLflow's pyfunc model: it answers as evaluation does, or refuses to load."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from components.base.base_hash import hash_base
from components.base.base_model import load
from components.data.template import Template
from components.errors import ArtifactError, BaseError, BaseMismatch, DataError
from components.prefix.inference import answer, from_artifact
from registry.artifact import adapter_folder
from registry.artifact.manifest import BasePin, Shape
from registry.mlflow import pyfunc_model
from registry.protocol import Version
from registry.releases import lifecycle

pytestmark = pytest.mark.flow
TEXTS = ["A gripping film.", "Too long by half an hour.", ""]


@pytest.fixture
def bases(tmp_path: Path, tiny_base_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bases folder with the pinned base in it, and where PREFACE_BASES says."""
    folder = tmp_path / "bases"
    shutil.copytree(tiny_base_folder("llama"), folder / "tiny")
    monkeypatch.setenv("PREFACE_BASES", str(folder))
    return folder


@pytest.fixture
def released(mlflow_store: Any, task: str, bases: Path, candidate: Callable[..., Version]) -> Callable[..., Version]:
    """Put an adapter of the tiny base into Production."""

    def release(method: str = "prompt", **changes: Any) -> Version:
        found = hash_base(bases / "tiny")
        pin = BasePin(
            name="tiny", hash=found.value, weights=found.weights, config=found.config, tokenizer=found.tokenizer
        )
        shape = Shape(layers=2, kv_heads=2, head_size=8, hidden=32, heads=4)
        candidate(mlflow_store, method=method, base=pin, shape=shape, **changes)
        return lifecycle.promote(mlflow_store, task, reason="", base_hash=found.value).version

    return release


@pytest.fixture
def load_production(mlflow_store: Any, task: str) -> Callable[..., Any]:
    """``mlflow.pyfunc.load_model`` of what is in Production, any warning an error."""
    import mlflow

    mlflow.set_tracking_uri(mlflow_store.uri)

    def production(**options: Any) -> Any:
        return mlflow.pyfunc.load_model(f"models:/{task}/Production", **options)

    return production


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_it_answers_as_evaluation_does(
    mlflow_store: Any, bases: Path, released: Callable[..., Version], load_production: Any, method: str
) -> None:
    adapter = adapter_folder.read(mlflow_store.download(released(method)))
    said = adapter.manifest
    base = load(bases / "tiny", said.base.hash)
    prefix = from_artifact(base, said.method, torch.from_numpy(adapter.tensor))
    expected = answer(base, prefix, Template.of(said), TEXTS, said.max_new_tokens)

    frame = load_production().predict(pd.DataFrame({"text": TEXTS}, index=[7, 8, 9]))

    assert frame["answer"].tolist() == expected
    assert list(frame.index) == [7, 8, 9]
    for row, scores in zip(expected, frame["scores"], strict=True):
        assert set(scores) == {"positive", "negative"}
        assert sum(scores.values()) == pytest.approx(1)
        assert max(scores, key=scores.__getitem__) == row
    json.loads(frame.to_json())


def test_a_generation_task_answers_in_text(released: Callable[..., Version], load_production: Any) -> None:
    released("prefix", kind="generation", labels=None, max_new_tokens=4)

    frame = load_production().predict(pd.DataFrame({"text": TEXTS}))

    assert list(frame.columns) == ["answer"]
    assert all(isinstance(text, str) for text in frame["answer"])


def test_a_version_that_an_earlier_release_packed_answers_still(
    released: Callable[..., Version], load_production: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = "from registry.model import AdapterModel"
    now = "from registry.mlflow.pyfunc_model import AdapterModel"
    assert now in pyfunc_model.CODE
    monkeypatch.setattr(pyfunc_model, "CODE", pyfunc_model.CODE.replace(now, then))
    released()

    frame = load_production().predict(pd.DataFrame({"text": TEXTS}))

    assert set(frame["answer"]) <= {"positive", "negative"}


def test_input_that_is_no_text_is_refused(released: Callable[..., Version], load_production: Any) -> None:
    released()
    model = load_production().unwrap_python_model()

    assert len(model.predict(None, pd.DataFrame({"text": []}))) == 0
    with pytest.raises(DataError, match="row 1 of 'text' is nan"):
        model.predict(None, pd.DataFrame({"text": ["fine", None]}))
    with pytest.raises(DataError, match="row 0 of 'text' is 3"):
        model.predict(None, pd.DataFrame({"text": [3]}))
    with pytest.raises(DataError, match=r"columns \['review'\]"):
        model.predict(None, pd.DataFrame({"review": ["fine"]}))


class TestBase:
    def test_another_base_in_its_place_is_refused(
        self, bases: Path, tiny_base_folder: Callable[..., Path], released: Callable[..., Version], load_production: Any
    ) -> None:
        wanted = released().tag("base_hash")
        shutil.rmtree(bases / "tiny")
        shutil.copytree(tiny_base_folder("llama", initializer_range=0.1), bases / "tiny")

        with pytest.raises(BaseMismatch, match=wanted):
            load_production()

    def test_it_is_found_by_its_hash_under_another_name(
        self, bases: Path, released: Callable[..., Version], load_production: Any
    ) -> None:
        released()
        (bases / "tiny").rename(bases / "renamed")
        (bases / "broken").mkdir()
        (bases / "broken" / "config.json").write_text("{")
        shutil.copytree(bases / "broken", bases / ".half-written")

        assert len(load_production().predict(pd.DataFrame({"text": TEXTS}))) == 3

    def test_it_can_be_named_in_the_model_s_configuration(
        self, bases: Path, released: Callable[..., Version], load_production: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released()
        monkeypatch.delenv("PREFACE_BASES")
        monkeypatch.chdir(bases)

        with pytest.raises(BaseError, match="no base model at"):
            load_production()
        assert load_production(model_config={"base": str(bases / "tiny")})

    def test_the_project_s_own_bases_are_the_default(
        self, bases: Path, released: Callable[..., Version], load_production: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released()
        monkeypatch.delenv("PREFACE_BASES")
        monkeypatch.chdir(bases.parent)

        assert load_production()


def test_an_overwritten_weight_file_is_not_served(
    mlflow_store: Any, task: str, released: Callable[..., Version], load_production: Any
) -> None:
    from mlflow import MlflowClient

    released()
    uri = MlflowClient(mlflow_store.uri, mlflow_store.uri).get_model_version_download_uri(task, "1")
    weights = Path(uri.removeprefix("file://")) / "artifacts" / "adapter" / adapter_folder.WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-4:] = np.float32(3).tobytes()
    weights.write_bytes(raw)

    with pytest.raises(ArtifactError, match="sha256"):
        load_production()


def test_another_whole_adapter_in_its_place_is_not_served(
    mlflow_store: Any, task: str, released: Callable[..., Version], load_production: Any
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_store.uri, mlflow_store.uri)
    versions = [released(), released()]
    places = [
        Path(client.get_model_version_download_uri(task, str(v.number)).removeprefix("file://")) / "artifacts/adapter"
        for v in versions
    ]
    shutil.rmtree(places[1])
    shutil.copytree(places[0], places[1])

    first, second = (version.tag("manifest_digest") for version in versions)
    with pytest.raises(ArtifactError, match=f"holds the adapter {first}, expected {second}"):
        load_production()


def test_who_knows_the_registered_digest_can_pin_it(released: Callable[..., Version], load_production: Any) -> None:
    digest = released().tag("manifest_digest")

    assert load_production(model_config={"manifest_digest": digest})
    with pytest.raises(ArtifactError, match=f"holds the adapter {digest}, expected {'0' * 64}"):
        load_production(model_config={"manifest_digest": "0" * 64})


def test_packing_and_loading_say_nothing(released: Callable[..., Version], load_production: Any, capfd: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("always", FutureWarning)
        released()
        load_production()

    assert [str(warning.message) for warning in caught] == []
    assert "WARNING" not in capfd.readouterr().err
