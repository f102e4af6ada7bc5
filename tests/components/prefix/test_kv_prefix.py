"""A KVPrefix stands for text in front of text: exact for every supported kind of base, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.base.base_hash import hash_base
from components.base.base_model import Base, KVShape, load
from components.errors import ArtifactError
from components.prefix.decoder import Decoder, by_length, last, logits, pad
from components.prefix.kv_prefix import KVPrefix, PrefixRows

KINDS = ("llama", "qwen", "gpt2")


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder(request.param)
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


def plain_logits(base: Base, ids: list[int]) -> torch.Tensor:
    """What transformers itself says of a whole sequence: [T, V]."""
    with torch.no_grad():
        return base.model(input_ids=torch.tensor([ids])).logits[0]


def prefix_of(shape: KVShape, length: int, seed: int = 0) -> KVPrefix:
    generator = torch.Generator().manual_seed(seed)
    size = (shape.layers, shape.kv_heads, length, shape.head_size)
    return KVPrefix(torch.randn(size, generator=generator), torch.randn(size, generator=generator))


def test_a_prefix_of_tokens_equals_the_tokens_in_front(base: Base) -> None:
    front, text = [5, 9, 11, 3], [7, 8, 21]
    decoder = Decoder.behind(base, PrefixRows.broadcast(KVPrefix.from_tokens(base, front), 1))
    ids, counts = pad([text], base)
    with torch.no_grad():
        seen = logits(base, decoder.read(ids, counts))[0]
    torch.testing.assert_close(seen, plain_logits(base, front + text)[len(front) :], atol=1e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_its_batch(base: Base) -> None:
    """Rows of unequal length behind prefixes of unequal length answer as each does alone."""
    prefixes = [KVPrefix.from_tokens(base, front) for front in ([4, 5, 6, 7, 8], [9, 10])]
    texts, index = [[11], [12, 13, 14, 15], [16, 17], [18, 19, 20]], [0, 1, 1, 0]
    ids, counts = pad(texts, base)
    with torch.no_grad():
        together = logits(
            base, last(Decoder.behind(base, PrefixRows.gather(prefixes, index)).read(ids, counts), counts)
        )
        for row, (text, which) in enumerate(zip(texts, index, strict=True)):
            one, count = pad([text], base)
            alone = Decoder.behind(base, PrefixRows.broadcast(prefixes[which], 1))
            torch.testing.assert_close(
                together[row], logits(base, last(alone.read(one, count), count))[0], atol=1e-4, rtol=1e-4
            )


def test_reading_in_pieces_equals_reading_at_once(base: Base) -> None:
    texts = [[3, 4, 5, 6], [7, 8]]
    prefix = PrefixRows.broadcast(KVPrefix.from_tokens(base, [9, 10, 11]), 2)
    ids, counts = pad(texts, base)
    more, one = torch.tensor([[30], [31]]), torch.tensor([1, 1])
    whole, whole_counts = pad([[*text, extra] for text, extra in zip(texts, (30, 31), strict=True)], base)
    with torch.no_grad():
        decoder = Decoder.behind(base, prefix)
        decoder.read(ids, counts)
        other = decoder.fork()
        other.read(torch.tensor([[99], [98]]), one)  # what a fork reads, the first does not see
        pieces = decoder.read(more, one)[:, 0]
        at_once = last(Decoder.behind(base, prefix).read(whole, whole_counts), whole_counts)
    torch.testing.assert_close(pieces, at_once, atol=1e-4, rtol=1e-4)


def test_kept_rows_go_on_as_if_alone(base: Base) -> None:
    ids, counts = pad([[3, 4, 5], [6], [7, 8]], base)
    prefix = PrefixRows.broadcast(KVPrefix.from_tokens(base, [9, 10]), 3)
    step, one = torch.tensor([[20], [21], [22]]), torch.ones(3, dtype=torch.long)
    with torch.no_grad():
        all_rows, some = Decoder.behind(base, prefix), Decoder.behind(base, prefix)
        all_rows.read(ids, counts)
        some.read(ids, counts)
        some.keep(torch.tensor([0, 2]))
        expected = all_rows.read(step, one)[[0, 2]]
        torch.testing.assert_close(some.read(step[[0, 2]], one[:2]), expected, atol=1e-5, rtol=1e-5)


def test_the_first_virtual_tokens_do_not_feel_the_later_ones(base: Base) -> None:
    longer, shorter = KVPrefix.from_tokens(base, [4, 5, 6, 7]), KVPrefix.from_tokens(base, [4, 5])
    torch.testing.assert_close(longer.keys[:, :, :2], shorter.keys)
    torch.testing.assert_close(longer.values[:, :, :2], shorter.values)


def test_gradient_of_all_rows_reaches_the_one_prefix(base: Base) -> None:
    """A shared prefix gets the sum of what copies of it would get."""
    ids, counts = pad([[3, 4, 5], [6, 7]], base)

    def loss(rows: PrefixRows) -> torch.Tensor:
        return logits(base, last(Decoder.behind(base, rows).read(ids, counts), counts)).square().mean()

    shared = prefix_of(base.shape, 3)
    copies = [KVPrefix(shared.keys.clone().requires_grad_(), shared.values.clone().requires_grad_()) for _ in range(2)]
    shared.keys.requires_grad_()
    loss(PrefixRows.broadcast(shared, 2)).backward()
    loss(PrefixRows.gather(copies, [0, 1])).backward()
    assert shared.keys.grad is not None
    gathered = [copy.keys.grad for copy in copies]
    assert gathered[0] is not None
    assert gathered[1] is not None
    torch.testing.assert_close(shared.keys.grad, gathered[0] + gathered[1], atol=1e-6, rtol=1e-4)


@given(layers=st.integers(1, 4), heads=st.integers(1, 3), length=st.integers(1, 5), size=st.integers(1, 4))
def test_pefts_layout_and_back(layers: int, heads: int, length: int, size: int) -> None:
    shape = KVShape(layers=layers, kv_heads=heads, head_size=size, hidden=8, context=64, heads=4)
    prefix = prefix_of(shape, length)
    table = prefix.to_peft()
    assert table.shape == (length, layers * 2 * heads * size)
    assert torch.equal(table[:, : heads * size], prefix.keys[0].permute(1, 0, 2).flatten(1))  # layer0.K comes first
    back = KVPrefix.from_peft(table, shape)
    assert torch.equal(back.keys, prefix.keys)
    assert torch.equal(back.values, prefix.values)


def test_a_table_of_another_base_is_refused() -> None:
    shape = KVShape(layers=2, kv_heads=2, head_size=8, hidden=32, context=64, heads=4)
    with pytest.raises(ArtifactError, match=r"is \[3, 65\]; this base needs \[P, 64\]"):
        KVPrefix.from_peft(torch.zeros(3, 65), shape)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_of_like_length_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = by_length(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)
