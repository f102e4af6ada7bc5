"""Files made to hurt whoever reads them: they are refused soon, in little memory, and nothing in them is executed.

Each is read by a child process that watches itself: growth of its memory, time, and what it does beside reading.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from registry.artifact.adapter_folder import CARD, CONFIG, MANIFEST, WEIGHTS

from . import mutations

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured with Linux' /proc")

MIB = 1 << 20
GROWTH = 256  # MiB that reading may cost; the largest params.yaml that is read takes about half
SECONDS = 60.0  # the slowest takes 5 on an idle core
CHILD = """
import json, sys, time, resource
from pathlib import Path
from components.config import params
from components.errors import PrefaceError
from registry.artifact import adapter_folder

WATCHED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pickle.find_class",
           "socket.connect", "ctypes.dlopen", "compile", "exec", "import")
done = None
def watch(event, arguments):
    if done is not None and (event in WATCHED or event == "open" and arguments[1] not in (None, "r", "rb")):
        done.append(f"{event} {arguments[:2]}")
sys.addaudithook(watch)

def memory(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(which))

def read(path):
    try:
        (adapter_folder.read if path.is_dir() else params.load)(path)
    except PrefaceError as error:
        return f"{type(error).__name__}: {str(error)[:2000]}"
    return "taken"

exec(sys.argv[1])  # a fault that is planted
paths, room = [Path(name) for name in sys.argv[3:]], int(sys.argv[2])
for path in paths[:2]:
    read(path)  # whatever is imported at the first need
if room:
    limit = (memory("VmSize:") + room) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in paths[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    done, held, began = [], memory("VmRSS:"), time.monotonic()
    end = read(path)
    told, done = done, None
    print(json.dumps({"end": end, "seconds": time.monotonic() - began, "grown": memory("VmHWM:") - held, "done": told}))
"""


def laughs(opening: str, closing: str, first: str) -> bytes:
    """Twelve levels of nine aliases each: 280 billion entries, written out."""
    names = "abcdefghijklm"
    lines = [f"{b}: &{b} {opening}{', '.join(['*' + a] * 9)}{closing}" for a, b in itertools.pairwise(names)]
    return "\n".join([f"a: &a {first}", *lines, "bases: *m", "tasks: {x: {data: {labels: *m}}}"]).encode()


def small(canary: Path) -> dict[str, bytes]:
    """Hostile params.yaml files of a few kilobytes."""
    run = f"touch {canary}"
    tagged = [
        f'!!python/object/apply:os.system ["{run}"]',
        f'!!python/object/new:os.system ["{run}"]',
        f'!!python/object/apply:subprocess.check_output [[touch, "{canary}"]]',
        f"!!python/object/apply:builtins.eval [\"open('{canary}', 'w')\"]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        f'!<tag:yaml.org,2002:python/object/apply:os.system> ["{run}"]',
    ]
    return {
        **{f"a tag {number}": f"bases: {tag}\ntasks: {{}}\n".encode() for number, tag in enumerate(tagged)},
        "a key with a tag": f'? !!python/object/apply:os.system ["{run}"]\n: 1\n'.encode(),
        "laughs in lists": laughs("[", "]", "[x, x]"),
        "laughs in mappings": laughs("{<<: [", "]}", "{x: 1, y: 2}"),
        "a long text a million times": b"a: &a "
        + b"x" * 9000
        + b"\nb: &b ["
        + b"*a, " * 1000
        + b"]\nbases: [*b, *b, *b]",
        "nested lists": b"bases: " + b"[" * 100_000,
        "nested keys": b"? " * 100_000,
        "a number of base 60": b"bases: 1" + b":59" * 30_000,
        "a number of base 16": b"bases: 0x" + b"f" * 100_000,
    }


def large(_: Path) -> dict[str, bytes]:
    """Hostile params.yaml files of megabytes, each of which wants a slow path taken very often."""
    fills = "".join(chr(0x4E00 + number) for number in range(20_000))
    bases = ",".join(f"b{number}: 1" for number in range(30_000))
    tasks = ",".join(f"t{number}: {{base: c{number}}}" for number in range(20_000))
    return {
        "entries": b"a: [" + b"1," * 2_000_000 + b"]",
        "anchors": b"a: [" + b",".join(b"&a%d x" % number for number in range(220_000)) + b"]",
        "unknown keys": b"\n".join(b"k%d: v" % number for number in range(150_000)),
        "keys of one hash": b"{%s}" % b",".join(b"%d: 1" % (n * (2**61 - 1)) for n in range(1, 100_000)),
        "near misses": f"bases: {{{bases}}}\ntasks: {{{tasks}}}".encode(),
        "long near misses": f"bases:\n ? {fills * 20}\n : 1\ntasks: {{t: {{base: {fills * 20}x}}}}".encode(),
        "words": b"a: " + b"x " * 2_000_000,
        "lines": b"a: " + b"\n x" * 1_000_000,
        "escapes": b'a: "' + b"\\n" * 2_000_000 + b'"',
        "endless": b"#" * (200 * MIB),
    }  # fmt: skip


@pytest.fixture
def observed(tmp_path: Path, adapter: Path) -> Callable[..., list[dict[str, Any]]]:
    """What a child says of each path that it read; ``room`` is how many MiB it may take, 0 for any."""

    def run(paths: list[Path], room: int = 0, plant: str = "") -> list[dict[str, Any]]:
        (tmp_path / "broken.yaml").write_text("bases: {x: {hash: 1}}")
        arguments = [plant, str(room), str(adapter), str(tmp_path / "broken.yaml"), *map(str, paths)]
        command = [sys.executable, "-c", CHILD, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=280, env=os.environ | {"HOME": str(tmp_path)}
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def adapter(tmp_path: Path, write_adapter: Callable[..., Path]) -> Path:
    return write_adapter(tmp_path / "adapter")


def check(seen: Mapping[str, dict[str, Any]], error: str) -> None:
    """Each was refused by that error, did nothing else, and cost little."""
    assert {name: one["end"][:80] for name, one in seen.items() if not one["end"].startswith(error)} == {}
    assert {name: one["done"] for name, one in seen.items() if one["done"]} == {}
    assert {name: one["grown"] for name, one in seen.items() if one["grown"] > GROWTH} == {}
    assert {name: one["seconds"] for name, one in seen.items() if one["seconds"] > SECONDS} == {}


@pytest.mark.parametrize("files", [small, pytest.param(large, marks=pytest.mark.slow)])
def test_params(tmp_path: Path, observed: Callable[..., Any], files: Callable[[Path], Mapping[str, bytes]]) -> None:
    canary, paths = tmp_path / "canary", {}
    for number, (name, content) in enumerate(files(canary).items()):
        paths[name] = tmp_path / f"{number}.yaml"
        paths[name].write_bytes(content)

    seen = dict(zip(paths, observed(list(paths.values())), strict=True))

    costs = "; ".join(f"{name}: {one['seconds']:.2f} s, {one['grown']} MiB" for name, one in seen.items())
    logging.getLogger(__name__).info(costs)
    check(seen, "ParamsError: ")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("plant", "name", "seen_as"),
    [
        pytest.param(
            "params_faults._Loader.compose_node = yaml.SafeLoader.compose_node",
            "laughs in mappings",
            r"assert \{'x': \d{3}\} == \{\}",
            marks=pytest.mark.slow,  # it takes a while to fill half a gigabyte
        ),
        (
            "params_faults._Loader.add_multi_constructor('tag:yaml.org,2002:python/object/apply:os.system',"
            " lambda loader, rest, node: __import__('os').system(loader.construct_sequence(node)[0]))",
            "a tag 0",
            "os.system",
        ),
    ],
    ids=["no bound", "a tag that executes"],
)
def test_what_is_measured_would_show(
    tmp_path: Path, observed: Callable[..., Any], plant: str, name: str, seen_as: str
) -> None:
    path = tmp_path / "planted.yaml"
    path.write_bytes(small(tmp_path / "canary")[name])

    [seen] = observed(
        [path], room=2 * GROWTH, plant=f"import yaml; from components.config import params_faults; {plant}"
    )

    with pytest.raises(AssertionError, match=seen_as):
        check({"x": seen}, "ParamsError: ")


class Touch:
    """What a pickle executes where somebody loads it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def test_adapters(tmp_path: Path, adapter: Path, observed: Callable[..., Any]) -> None:
    canary = tmp_path / "canary"
    good = {path.name: path.read_bytes() for path in adapter.iterdir()}
    manifest, pickled = json.loads(good[MANIFEST]), pickle.dumps(Touch(canary))
    entry = '{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}'
    header = ("{" + ", ".join(f'"{number}": {entry}' for number in range(200_000)) + "}").encode()
    labels = {str(number): number for number in range(40_000)}
    mutants = {
        "pickled weights": mutations.seal({**good, WEIGHTS: pickled}),
        "a pickled configuration in the manifest's place": {**good, MANIFEST: pickled},
        "a header of 200,000 tensors": mutations.seal({**good, WEIGHTS: struct.pack("<Q", len(header)) + header}),
        "a header that is announced as endless": mutations.seal({**good, WEIGHTS: b"\xff" * 400}),
        "a nested manifest": {**good, MANIFEST: b'{"a":' * 150_000},
        "a manifest with 40,000 faults": {**good, MANIFEST: mutations.sealed({**manifest, "labels": labels})},
        "a long digest": {**good, MANIFEST: mutations.sealed({**manifest, "fingerprint": "\n" * 400_000})},
    }
    paths = {}
    for number, (name, contents) in enumerate(mutants.items()):
        paths[name] = tmp_path / str(number)
        paths[name].mkdir()
        for file, raw in contents.items():
            (paths[name] / file).write_bytes(raw)
    for file in (CONFIG, CARD, MANIFEST):
        paths[f"a gigabyte of {file}"] = grown(adapter, tmp_path / f"long {file}", file)

    seen = dict(zip(paths, observed(list(paths.values())), strict=True))

    check(seen, "ArtifactError: ")
    assert not canary.exists()


def test_weights_for_which_there_is_no_memory(tmp_path: Path, adapter: Path, observed: Callable[..., Any]) -> None:
    """The manifest may announce up to a gigabyte of weights: that much is read, if the machine has it."""
    [seen] = observed([grown(adapter, tmp_path / "long", WEIGHTS)], room=GROWTH)

    check({"weights": seen}, "ArtifactError: ")
    assert "cannot be read as an adapter: out of memory" in seen["end"]


def grown(adapter: Path, to: Path, name: str) -> Path:
    """The adapter with a file of a gigabyte, which its manifest announces. It is sparse: it costs no room here."""
    shutil.copytree(adapter, to)
    os.truncate(to / name, 1 << 30)
    if name != MANIFEST:
        manifest = json.loads((to / MANIFEST).read_bytes())
        manifest["files"][name] = {"size": 1 << 30, "sha256": "0" * 64}
        (to / MANIFEST).write_bytes(mutations.sealed(manifest))
    return to
