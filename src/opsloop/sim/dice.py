"""The die: what the simulation asks of a generator that :func:`opsloop.clock.seeded` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Dice"]

T = TypeVar("T")


class Dice(Protocol):
    """A seeded source of chance; :class:`random.Random` is one."""

    def random(self) -> float:
        """Return a number uniform on [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """Return ``k`` random bits."""
        ...

    def randint(self, a: int, b: int) -> int:
        """Return an integer from ``a`` to ``b``, both included."""
        ...

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """Return a normally distributed number."""
        ...

    def choice(self, seq: Sequence[T]) -> T:
        """Return one element."""
        ...

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return ``k`` different elements."""
        ...
