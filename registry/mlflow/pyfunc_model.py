"""A registered version as MLflow's pyfunc model: ``mlflow.pyfunc.load_model("models:/TASK/Production")``.

The model folder holds the adapter folder, closed, as ``artifacts/adapter``, and a wheel of our code, which its
requirements name beside the versions that were installed (wheel.py). What loads it is the installed distribution,
nothing is a pickle. The base is looked for by its hash, and hashed, before a weight of it is used.

Knows no registry: MLflow loads a folder, and does not say which version it is. The model's configuration names the
manifest's digest, so an adapter that was put in another's place is refused. Whoever writes over the whole model folder,
MLmodel included, is found by what asks the registry: `preface verify`, `predict`, `promote`, `rollback`. A caller who
knows the registered digest pins it: ``load_model(uri, model_config={"manifest_digest": DIGEST})``.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from components.errors import ArtifactError, DataError
from registry.artifact import adapter_folder, wheel
from registry.artifact.manifest import BasePin, Manifest

with warnings.catch_warnings():
    # MLflow warns of type hints in classes of its own.
    warnings.filterwarnings("ignore", "(?s).*Any type hint is inferred as AnyType", UserWarning)
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.pyfunc.model import PythonModel
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Map

if TYPE_CHECKING:
    from components.base.base_model import Base
    from components.data.template import Template
    from components.prefix.kv_prefix import KVPrefix

WHEELS = "wheels"  # in the model folder: our own code

CODE = """\
# The code is the installed distribution's, see registry/mlflow/pyfunc_model.py there.
from mlflow.models import set_model
from registry.mlflow.pyfunc_model import AdapterModel

set_model(AdapterModel())
"""


class AdapterModel(PythonModel):
    """Column ``text`` in; column ``answer`` out, and for classification ``scores``: {label: share of 1}."""

    _base: Base
    _prefix: KVPrefix
    _template: Template
    _manifest: Manifest

    def load_context(self, context: Any) -> None:
        """MLflow's way to say ``open``."""
        told = context.model_config or {}
        self.open(Path(context.artifacts["adapter"]), told.get("base"), told.get("manifest_digest"))

    def open(self, folder: Path, base: str | None = None, digest: str | None = None) -> None:
        """Read the adapter, find its base, and refuse if either is not what was registered.

        Args:
            folder: An adapter folder.
            base: A materialised base; if not given, the bases folder is searched for the pinned hash.
            digest: The manifest's, as it was registered; None where nobody knows.
        """
        import torch

        from components.base.base_model import load
        from components.data.template import Template
        from components.prefix.inference import from_artifact

        adapter = adapter_folder.read(folder)
        said = self._manifest = adapter.manifest
        if digest is not None and said.digest != digest:
            raise ArtifactError(
                f"{folder} holds the adapter {said.digest}, expected {digest}: another was put in its place; restore"
                f" it, or train again with `preface retrain {said.task} --force`"
            )
        self._base = load(Path(base) if base else find_base(said.base), said.base.hash, said.base.name)
        self._prefix = from_artifact(self._base, said.method, torch.from_numpy(adapter.tensor))
        self._template = Template.of(said)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer every row."""
        from components.prefix.inference import classify, generate

        if "text" not in model_input.columns:
            raise DataError(f"the input has the columns {list(model_input.columns)}; it needs one named 'text'")
        texts = model_input["text"].tolist()
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"row {row} of 'text' is {text!r}; each must be a string")
        base, prefix, template = self._base, self._prefix, self._template
        if template.labels is None:
            answers = generate(base, prefix, template, texts, self._manifest.max_new_tokens)
            return pd.DataFrame({"answer": answers}, index=model_input.index)
        scores = [_shares(row) for row in classify(base, prefix, template, texts)]
        answers = [max(row, key=row.__getitem__) for row in scores]
        return pd.DataFrame({"answer": answers, "scores": scores}, index=model_input.index)


def pack(adapter: Path, to: Path) -> None:
    """Make ``to`` an MLflow model folder around a copy of the adapter folder."""
    manifest = adapter_folder.read(adapter).manifest
    outputs: list[ColSpec | TensorSpec] = [ColSpec(DataType.string, "answer")]
    if manifest.labels is not None:
        outputs.append(ColSpec(Map(DataType.double), "scores"))
    with tempfile.TemporaryDirectory() as room, warnings.catch_warnings():
        code = Path(room) / "model.py"
        code.write_text(CODE, encoding="utf-8")
        shutil.copytree(adapter, Path(room) / "adapter")
        ours = wheel.write(Path(room) / WHEELS)
        # An example would be run through the model while it is packed; the signature says what it would show.
        warnings.filterwarnings("ignore", "(?s).*An input example was not provided", UserWarning)
        mlflow.pyfunc.save_model(
            to,
            python_model=str(code),
            # As an address: MLflow would read "%25" and "#" of a path as characters of one.
            artifacts={"adapter": (Path(room).resolve() / "adapter").as_uri()},
            signature=ModelSignature(inputs=Schema([ColSpec(DataType.string, "text")]), outputs=Schema(outputs)),
            # Of the model folder, from which MLflow installs them. No index has our package; one has a stranger's.
            pip_requirements=[f"./{WHEELS}/{ours.name}", *wheel.requirements()],
            model_config={"base": None, "manifest_digest": manifest.digest},
            metadata={"wheel": ours.name, "wheel_sha256": hashlib.sha256(ours.read_bytes()).hexdigest()},
        )
        shutil.copytree(ours.parent, to / WHEELS)


def find_base(pin: BasePin) -> Path:
    """Whichever base of the bases folder has the pinned hash.

    Where none has it, the folder of the pinned name is returned: loading it says what is wrong, with both hashes.
    """
    from components.base.base_model import bases_folder, find

    bases = bases_folder(Path.cwd())
    return find(bases, pin.hash, pin.name) or bases / pin.name


def _shares(scores: dict[str, float]) -> dict[str, float]:
    """Log-probabilities of the label words as shares of 1."""
    top = max(scores.values())
    weights = {label: math.exp(score - top) for label, score in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
