"""What training needs to know of a method, and the methods by name: one small file each, all ending in a KVPrefix.

A further trained method is one more file and one more line in ``build``. The baselines that train nothing stand in
``text.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter

from components.base.base_model import Base
from components.config.params import MethodName, TaskParams
from components.errors import ParamsError
from components.prefix.kv_prefix import KVPrefix


class Method(Protocol):
    """What training needs to know of a method. Parameters are float32 whatever the base's dtype.

    ``frozen_layers``: of so many layers, from the first, training leaves the keys and values as they begin.
    ``virtual_tokens``: the length of its prefix.
    """

    @property
    def frozen_layers(self) -> int: ...

    @property
    def virtual_tokens(self) -> int: ...

    def prefix(self, base: Base) -> KVPrefix:
        """The prefix that the present parameters stand for, differentiable, in the base's dtype."""

    def folded(self) -> Tensor:
        """``prompt_embeddings`` of the artifact, in PEFT's layout, float32: [P, H] or [P, L*2*Hkv*D]."""

    def parameters(self) -> Iterator[Parameter]:
        """All that is trained."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued training needs of the method."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take such a state back."""


def build(
    base: Base,
    task: TaskParams,
    method: MethodName,
    solved: Iterable[tuple[str, str]] = (),
    table: Tensor | None = None,
) -> Method:
    """The method with its first parameters, which follow from the task's settings and seed and from the rows.

    Args:
        solved: training rows, text and target, for a start from examples.
        table: ``prompt_embeddings`` of the adapter to go on from, as ``folded`` gives them.

    Raises:
        ParamsError: more virtual tokens than the base reads, told before a tensor of that length is made.
    """
    from components.prefix.methods.prefix import PrefixTuning
    from components.prefix.methods.prompt import PromptTuning

    length = task.settings(method).virtual_tokens
    if length >= base.shape.context:
        raise ParamsError(
            f"{method}.virtual_tokens is {length}, and the base {base.name} reads {base.shape.context} tokens, those of"
            " a text included; lower it"
        )
    if method == "prompt":
        return PromptTuning.start(base, task, solved, table)
    return PrefixTuning.start(base, task, solved, table)


def prefixes(base: Base, made: Sequence[Method]) -> list[KVPrefix]:
    """The prefixes of several methods; soft prompts run through the base together."""
    from components.prefix.methods.prompt import PromptTuning

    soft = [method.whole() for method in made if isinstance(method, PromptTuning)]
    if len(soft) < 2:
        return [method.prefix(base) for method in made]
    run = iter(KVPrefix.each_from_embeddings(base, soft))
    return [next(run) if isinstance(method, PromptTuning) else method.prefix(base) for method in made]
