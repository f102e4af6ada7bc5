"""Our own code as a wheel, so that whoever has a registered model has what loads it: no index has a package of ours.

It holds what prediction needs, components and registry, and is the same, byte for byte, for the same code. Its
metadata name no requirement: which versions go with it is said beside it, by ``requirements``. Knows no registry.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from components import distribution

PACKAGES = ("components", "registry")
# What those import when a version is loaded and asked; tests/registry/artifact/test_wheel.py asks them.
NEEDED = (
    "croniter", "gguf", "mlflow", "numpy", "packaging", "pandas", "pydantic", "pyyaml", "safetensors", "tokenizers",
    "torch", "transformers",
)  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name


def requirements() -> list[str]:
    """What prediction needs beside the wheel, in the versions that are installed; a build's suffix is not one."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in NEEDED]


def write(folder: Path) -> Path:
    """The wheel, in a folder that is made if it is not there."""
    version, stem = distribution.version(), distribution.NAME.replace("-", "_")
    file = folder / f"{stem}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_packed(f"{stem}-{version}.dist-info", version))
    return file


def _packed(info: str, version: str) -> bytes:
    contents = dict(_sources())
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {distribution.NAME}\nVersion: {version}\n".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: preface\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = io.StringIO()
    lines = csv.writer(record, lineterminator="\n")
    for name, raw in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
        lines.writerow((name, f"sha256={digest}", len(raw)))
    lines.writerow((f"{info}/RECORD", "", ""))
    contents[f"{info}/RECORD"] = record.getvalue().encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, raw in contents.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            wheel.writestr(entry, raw)
    return packed.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    """The packages' files, as they are imported here: an editable install and an installed one give the same."""
    home = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        for file in sorted((home / package).rglob("*.py")):
            yield file.relative_to(home).as_posix(), file.read_bytes()
