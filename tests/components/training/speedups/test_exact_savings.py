"""What training leaves out changes nothing: losses and gradients are those of the naive pass, and PEFT's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import without
from components.base.base_hash import hash_base
from components.base.base_model import Base, load
from components.config.params import PrefixParams
from components.prefix.decoder import Decoder, pad
from components.prefix.kv_prefix import KVPrefix, PrefixRows
from components.prefix.methods.prefix import PrefixTuning
from components.prefix.methods.prompt import PromptTuning
from components.training import losses, trainer
from components.training.batches import TrainingRow
from components.training.speedups import attention
from components.training.speedups.last_layer import narrowed
from components.training.speedups.recompute import recomputed
from tests.conftest import KINDS

VIRTUAL = 5
# Rows and answers of many lengths, an answer of one token and one as long as its text.
ROWS = [
    TrainingRow(tuple(range(40, 43 + n)), tuple(range(20, 21 + length)))
    for n, length in enumerate((0, 2, 0, 5, 1, 3, 0, 7))
]


@pytest.fixture(scope="module", params=sorted(KINDS))
def base(request: pytest.FixtureRequest, tiny_base_folder: Callable[..., Path]) -> Base:
    folder = tiny_base_folder(request.param)
    return load(folder, hash_base(folder).value, device="cpu", dtype=torch.float32)


def table_of(base: Base, method: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = base.shape
    width = shape.hidden if method == "prompt" else shape.layers * 2 * shape.kv_heads * shape.head_size
    return torch.randn(VIRTUAL, width, generator=generator)


def method_of(base: Base, method: str, table: Tensor) -> PromptTuning | PrefixTuning:
    if method == "prompt":
        return PromptTuning(table.clone())
    return PrefixTuning(base, table, PrefixParams(), torch.Generator())


def ours(base: Base, method: str, table: Tensor) -> tuple[float, Tensor]:
    """Mean loss over label tokens, and its gradient."""
    made = method_of(base, method, table)
    with trainer.plain_products(base, [made], [ROWS]), trainer.lean(base):
        loss, labels = losses.row_losses(base, made.prefix(base), ROWS)
        (loss / labels).backward()  # type: ignore[no-untyped-call]
    [parameter] = made.parameters()
    assert parameter.grad is not None
    return loss.item() / labels, parameter.grad


def theirs(base: Base, method: str, table: Tensor) -> tuple[float, Tensor]:
    """The same by PEFT: whole padded rows, the prompt in each, the head everywhere."""
    kind: Any = peft.PromptTuningConfig if method == "prompt" else peft.PrefixTuningConfig
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that 5.23 deprecates, for every model and any adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = peft.get_peft_model(base.model, kind(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL))
        weight = model.prompt_encoder.default.embedding.weight
        with torch.no_grad():
            weight.copy_(table)
        ids, counts = pad([[*row.text, *row.target] for row in ROWS], base)
        labels = torch.full_like(ids, -100)
        for number, row in enumerate(ROWS):
            labels[number, len(row.text) : len(row.text) + len(row.target)] = torch.tensor(row.target)
        mask = (torch.arange(ids.shape[1]).unsqueeze(0) < counts.unsqueeze(1)).long()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
    return loss.item(), weight.grad


def assert_near(one: Tensor, other: Tensor) -> None:
    assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_the_gradient_is_peft_s_own(base: Base, method: str) -> None:
    table = table_of(base, method)
    (loss, gradient), (their_loss, their_gradient) = ours(base, method, table), theirs(base, method, table)

    assert loss == pytest.approx(their_loss, rel=1e-5)
    assert_near(gradient, their_gradient)


@pytest.mark.parametrize("saving", sorted(without.SWITCHES))
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_each_saving_changes_nothing_and_does_less(base: Base, method: str, saving: str) -> None:
    """The same switches by which the benchmark tells what each of them brings."""
    table = table_of(base, method)
    loss, gradient, work = *ours(base, method, table), FlopCounterMode(display=False)
    with work:
        ours(base, method, table)
    with without.SWITCHES[saving](len(ROWS)):
        whole, its_gradient = ours(base, method, table)
        with FlopCounterMode(display=False) as dearer:
            ours(base, method, table)

    assert loss == pytest.approx(whole, rel=1e-6)
    assert_near(gradient, its_gradient)
    if saving not in (without.FASTER, without.LEANER) and (method == "prompt" or saving != without.SHARED):
        assert work.get_total_flops() < dearer.get_total_flops()


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_activations_made_again_give_the_same_gradient_and_are_not_kept(base: Base, method: str) -> None:
    """PEFT's prefix tuning raises where gradient checkpointing is asked for."""
    table = table_of(base, method)
    kept: dict[bool, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[again] += tensor.numel()
        return tensor

    gradients = {}
    for again in (False, True):
        kept[again] = 0
        made = method_of(base, method, table)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            prefix = made.prefix(base)
            with recomputed(base) if again else nullcontext():
                loss, labels = losses.row_losses(base, prefix, ROWS)
        (loss / labels).backward()  # type: ignore[no-untyped-call]
        [parameter] = made.parameters()
        gradients[again] = parameter.grad

    assert torch.equal(gradients[True], gradients[False])  # type: ignore[arg-type]
    assert kept[True] < 0.8 * kept[False], "one of two layers is made again"
    assert all("forward" not in vars(module) for module in base.model.modules())


def test_attention_is_fused_again_after_a_step_and_where_its_scores_are_large(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = method_of(base, "prefix", table_of(base, "prefix")), []
    fused = base.model.config._attn_implementation
    for kept in (attention.KEPT_BYTES, 10):
        monkeypatch.setattr(attention, "KEPT_BYTES", kept)
        with attention.plain_products(base, [made], [ROWS]):
            seen.append(base.model.config._attn_implementation)
        assert base.model.config._attn_implementation == fused
    assert seen == ["eager", fused]
    assert fused != "eager"


def test_only_the_places_asked_for_are_made_and_the_base_is_left_as_it_was(base: Base) -> None:
    ids, counts = pad([[7, 8, 9, 10], [11, 12]], base)
    prefix = KVPrefix.from_tokens(base, [5, 6])
    places = torch.tensor([3, 5])

    def read() -> Tensor:
        with torch.no_grad():
            return Decoder.behind(base, PrefixRows.broadcast(prefix, 2)).read(ids, counts).flatten(0, 1)

    before = read()
    layers = next(each for each in base.model.base_model.children() if isinstance(each, torch.nn.ModuleList))
    seen: list[int] = []
    product = next(each for each in layers[-1].mlp.children())  # type: ignore[union-attr]
    hook = product.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, -2).shape[0]))
    with narrowed(base, places):
        some = read()
    hook.remove()
    with pytest.raises(ZeroDivisionError), narrowed(base, places):
        raise ZeroDivisionError

    assert seen == [2]
    torch.testing.assert_close(some[places], before[places], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(some[4], before[4])
    assert torch.equal(read(), before)
