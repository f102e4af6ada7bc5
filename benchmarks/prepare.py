"""How fast a large CSV is prepared and in how much memory, beside pandas' read_csv and the same tokenizer.

    python -m benchmarks.prepare --megabytes 1024 --rounds 3

One process runs the stage's own code on a made CSV; another reads the same file by pandas in chunks (C engine) and
encodes every text in batches, and does nothing else. They take turns. Memory is the peak of the process.
Writes benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fleet import tell
from benchmarks.train import RESULTS, ROOT

KEPT = RESULTS.with_name("prepare.json")
TOKENIZER = ROOT / "bases" / "smollm2-135m" / "tokenizer.json"
MAX_TOKENS = 256
WORDS = """the a film of and story with scenes that never quite finds its feet despite an honest cast whose timing lifts
even dull lines into something warm funny sharp or sad while music swells far too often for comfort yet""".split()  # noqa: SIM905


def make(file: Path, megabytes: int) -> None:
    """Rows of 5 to 120 words, one in fifty of them twice; the same each time."""
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        written = out.write("text,target\n")
        number = 0
        while written < megabytes * 2**20:
            number += 1
            words = " ".join(draw.choices(WORDS, k=int(draw.triangular(5, 120, 25))))
            row = f'"{words}, take {number}.",{("neg", "pos")[number % 2]}\n'
            written += out.write(row * (2 if number % 50 == 0 else 1))


def ours(room: Path) -> int:
    from components.config.params import TaskParams
    from components.data.prepare import prepare

    data = {"source": "rows.csv", "format": "csv", "labels": ["neg", "pos"], "max_tokens": MAX_TOKENS}
    gate = [{"metric": "accuracy", "direction": "higher", "threshold": 0.5}]
    params = TaskParams.model_validate({"base": "large", "instruction": "Say it.", "data": data, "gate": gate})
    with tempfile.TemporaryDirectory(dir=room) as to:
        return int(prepare("large", params, room / "raw", TOKENIZER, 8192, Path(to, "out"))["rows_read"])


def theirs(room: Path) -> int:
    import pandas as pd

    from components.base.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(TOKENIZER)
    rows = 0
    for chunk in pd.read_csv(room / "raw" / "rows.csv", chunksize=4096, engine="c"):
        rows += len(tokenizer.encode_batch(chunk["text"].tolist(), add_special_tokens=False))
    return rows


def timed(arm: str, room: Path) -> dict[str, Any]:
    """One arm in a process of its own: rows a second, and the peak of its memory."""
    asked = [sys.executable, "-m", "benchmarks.prepare", "--arm", arm, "--room", str(room)]
    return dict(json.loads(subprocess.run(asked, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--room", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        start = time.perf_counter()
        rows = {"ours": ours, "theirs": theirs}[given.arm](given.room)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"rows": rows, "rows a second": round(rows / seconds), "peak MB": round(peak)}))
        return
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        if shutil.disk_usage(room).free < 5 * given.megabytes * 2**20:
            parser.error(f"{room} needs {5 * given.megabytes} MB of room; set TMPDIR, or ask for fewer --megabytes")
        (room / "raw").mkdir()
        make(room / "raw" / "rows.csv", given.megabytes)
        rounds = [{arm: timed(arm, room) for arm in ("ours", "theirs")} for _ in range(given.rounds)]
    speed = {arm: statistics.median(one[arm]["rows a second"] for one in rounds) for arm in ("ours", "theirs")}
    said = {
        "megabytes": given.megabytes,
        "tokenizer": TOKENIZER.parent.name,
        "rounds": rounds,
        "rows a second, median": speed,
        "ours over theirs": round(speed["ours"] / speed["theirs"], 3),
        "peak MB of ours": max(one["ours"]["peak MB"] for one in rounds),
    }
    tell(said, KEPT, of=("tokenizers", "pyarrow", "pandas"))


if __name__ == "__main__":
    main()
