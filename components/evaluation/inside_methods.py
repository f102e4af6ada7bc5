"""Methods that change the model from inside: LoRA, IA3, bottleneck adapters, full fine-tuning. For comparison alone.

None of them is a prefix, so none can share a batch with other tasks' adapters, and none is ever registered or served.
They go through the same loop as a prefix of no virtual tokens, behind the same Protocol. LoRA and IA3 are ``peft``'s;
bottleneck adapters are written here, since the library that has them asks for an older transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from components.base.base_model import Base
from components.errors import UnsupportedBase
from components.prefix.kv_prefix import KVPrefix
from components.training.speedups.last_layer import feed_forward, layers_of

InsideName = Literal["lora", "ia3", "bottleneck", "full"]
RANK, WIDTH = 8, 16


class Inside:
    """What is trained of a model that was changed in place. Parameters are float32, whatever the base's dtype."""

    frozen_layers = virtual_tokens = 0

    def __init__(self, base: Base, trained: Mapping[str, Parameter]) -> None:
        self.trained = dict(trained)
        self._none = KVPrefix.none(base)

    def prefix(self, _: Base) -> KVPrefix:
        return self._none

    def folded(self) -> Tensor:
        """[0, 0]: it has no virtual tokens."""
        return torch.zeros(0, 0)

    def parameters(self) -> Iterator[Parameter]:
        return iter(self.trained.values())

    def state_dict(self) -> dict[str, Any]:
        return {name: parameter.detach() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            self.trained[name].copy_(value)


def change(base: Base, name: InsideName, seed: int) -> Inside:
    """Change the base's model in place; it answers as before until it is trained. It cannot be changed back.

    Raises:
        UnsupportedBase: it has no module where the change would sit.
    """
    torch.manual_seed(seed)  # peft and torch draw from the global generator
    if name == "full":
        base.model.requires_grad_(True)
        # One tensor that is both the input table and the head is one parameter.
        return Inside(base, dict(base.model.named_parameters()))
    if name == "bottleneck":
        return Inside(base, _bottlenecks(base))
    return Inside(base, _by_peft(base, name))


def _by_peft(base: Base, name: Literal["lora", "ia3"]) -> dict[str, Parameter]:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) on what peft takes for the architecture, with its own defaults; IA3
    (Liu et al. 2022, arXiv:2205.05638) likewise."""
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    config: Any = LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0) if name == "lora" else IA3Config()
    try:
        inject_adapter_in_model(config, base.model)
    except ValueError as error:
        raise UnsupportedBase(f"peft cannot put {name} into {base.name}: {error}") from error
    trained = {key: parameter for key, parameter in base.model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    return trained


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))), H -> ``WIDTH`` -> H (Houlsby et al. 2019, arXiv:1902.00751); begins as x."""

    def __init__(self, hidden: int, device: torch.device) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, WIDTH, device=device)
        self.up = nn.Linear(WIDTH, hidden, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.up(nn.functional.gelu(self.down(x.float())))
        return x + made.to(x.dtype)


def _bottlenecks(base: Base) -> dict[str, Parameter]:
    """One behind each feed-forward network (Pfeiffer et al. 2021, arXiv:2005.00247): half of Houlsby's, as good."""
    found = layers_of(base)
    networks = [feed_forward(layer) for layer in found[1]] if found else []
    trained: dict[str, Parameter] = {}
    for number, network in enumerate(networks):
        if network is None:
            raise UnsupportedBase(f"{base.name} has no feed-forward network by name in layer {number}")
        added = Bottleneck(base.shape.hidden, base.device)
        network.register_forward_hook(lambda _, __, made, added=added: added(made))
        trained |= {f"{number}.{key}": parameter for key, parameter in added.named_parameters()}
    if not trained:
        raise UnsupportedBase(f"{base.name} does not keep its layers in one list")
    return trained
