"""How long a store that does not answer is asked: a few times in a row. Knows neither what is asked nor why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from components.errors import PrefaceError, StoreUnavailable

T = TypeVar("T")


@dataclass
class CircuitBreaker:
    """With one store: after ``limit`` silences in a row it is left alone."""

    store: str
    limit: int = 3
    silent: int = 0

    @property
    def spent(self) -> bool:
        return self.silent >= self.limit

    def ask(self, question: Callable[[], T]) -> T:
        """The answer, or what the store raised. A refusal is an answer too, and starts the count anew.

        Raises:
            StoreUnavailable: it was silent, or was so often enough not to be asked.
        """
        if self.spent:
            raise StoreUnavailable(f"the {self.store} did not answer {self.limit} times in a row; it is left alone now")
        try:
            answer = question()
        except StoreUnavailable:
            self.silent += 1
            raise
        except PrefaceError:
            self.silent = 0
            raise
        self.silent = 0
        return answer


@dataclass(frozen=True)
class Asking:
    """The two halves of a registry, each of which can be down by itself."""

    tracking: CircuitBreaker = field(default_factory=lambda: CircuitBreaker("tracking store"))
    artifacts: CircuitBreaker = field(default_factory=lambda: CircuitBreaker("artifact store"))
