"""Answers from a registered version, by the same class that MLflow's pyfunc model runs. Knows nothing of the base."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from registry import queries
from registry.mlflow.pyfunc_model import AdapterModel
from registry.mlflow.store import Store
from registry.protocol import Version
from registry.releases import checks


def ask(address: str, texts: Sequence[str]) -> tuple[Version, list[dict[str, object]]]:
    """The version that ``address`` names, and a row for each text: text, answer and, for labels, its share of 1."""
    store = Store()
    version = queries.find(store, address)
    model = AdapterModel()
    folder = store.download(version)
    checks.compare(folder, version)
    model.open(folder, digest=version.tag("manifest_digest"))
    answered = model.predict(None, pd.DataFrame({"text": list(texts)}))
    rows: list[dict[str, object]] = []
    for text, row in zip(texts, answered.to_dict("records"), strict=True):
        share = {"share": row["scores"][row["answer"]]} if "scores" in row else {}
        rows.append({"text": text, "answer": row["answer"], **share})
    return version, rows
