"""Examples on their way into prepared data: the Parquet file they are written to, their hash, and what is counted.

Takes them one by one, in the order in which they are written. Which rows they come from, and whether they are enough,
is not known here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from json.encoder import encode_basestring
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from components.config.params import SPLITS, Split
from components.data.examples import Example
from components.data.selection import Kept
from components.data.template import counts_of

CELLS = ("id", "text", "target", "split")
# As the datasets library writes it, which reads the columns' kinds there; it takes half a second to import.
FEATURES = {"info": {"features": {name: {"dtype": "string", "_type": "Value"} for name in CELLS}}}
SCHEMA = pa.schema([(name, pa.string()) for name in CELLS], {"huggingface": json.dumps(FEATURES)})
CHUNKS = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
BATCH = 1024  # answers whose tokens are counted in one call
ROWS, CHARACTERS = 100_000, 30_000_000  # of a row group at most


class ContentHash:
    """sha256 over the rows themselves, so that neither Parquet's version nor its metadata counts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, example: Example, split: Split) -> None:
        cells = ", ".join(map(encode_basestring, (example.id, example.text, example.target, split)))
        self._digest.update(f"[{cells}]\n".encode())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class Summary:
    """What the report says about the examples that are kept."""

    def __init__(self, named: Mapping[str, str] | None, tokenizer: Tokenizer) -> None:
        self.named = named
        self.rows: Counter[Split] = Counter()
        self.labels: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
        self.text_tokens: Counter[int] = Counter()
        self.target_tokens: Counter[int] = Counter()
        self.content = ContentHash()
        self._tokenizer = tokenizer

    def counting(self, examples: Iterable[Kept]) -> Iterator[Kept]:
        """The same examples, each counted on its way."""
        waiting = iter(examples)
        while some := list(islice(waiting, BATCH)):
            if self.named is None:
                self.target_tokens.update(counts_of(self._tokenizer, [one.example.target for one in some]))
            for one in some:
                self.rows[one.split] += 1
                self.text_tokens[one.tokens] += 1
                self.content.add(one.example, one.split)
                if self.named is not None:
                    self.labels[one.split][one.example.target] += 1
            yield from some


def quantiles(lengths: Mapping[int, int]) -> dict[str, int]:
    """Of so many of each length."""
    shares = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    last = sum(lengths.values()) - 1
    return {name: _at(round(share * last), lengths) for name, share in shares.items()}


def _at(place: int, lengths: Mapping[int, int]) -> int:
    for length, count in sorted(lengths.items()):
        place -= count
        if place < 0:
            return length
    raise IndexError(place)


def write_examples(file: Path, examples: Iterable[Kept]) -> None:
    """A Parquet file of the examples; the same ones give the same bytes."""
    with pq.ParquetWriter(file, SCHEMA, use_content_defined_chunking=CHUNKS, write_page_index=True) as writer:
        waiting: list[tuple[str, str, str, str]] = []
        weight = 0
        for example, split, _ in examples:
            waiting.append((example.id, example.text, example.target, split))
            weight += len(example.text) + len(example.target)
            if len(waiting) == ROWS or weight >= CHARACTERS:
                writer.write_table(_table(waiting))
                waiting, weight = [], 0
        if waiting:
            writer.write_table(_table(waiting))
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKS)})


def _table(rows: list[tuple[str, str, str, str]]) -> pa.Table:
    return pa.table([pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)], schema=SCHEMA)
