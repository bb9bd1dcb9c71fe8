"""Rate and durations: shares with their counts and exact interval, times with their median and number.

A percentage alone says nothing about how much it rests on. Every rate here carries k of n and the exact
(Clopper-Pearson 1934) interval; without any case it has no value, which is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import fmean, median
from typing import Final

import msgspec

__all__ = ["Durations", "Rate", "durations", "exact_interval", "rate"]

_BISECTIONS: Final = 60


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """k of n; ``value`` is ``None`` when n is 0."""

    k: int
    n: int
    value: float | None
    low: float
    high: float
    """The 95 % interval; 0 to 1 when nothing is known."""


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """The median, with the mean beside it and the number that both rest on."""

    n: int
    median_seconds: float | None = None
    mean_seconds: float | None = None


def rate(k: int, n: int) -> Rate:
    """Return k of n with its exact 95 % interval.

    >>> shown = rate(3, 4)
    >>> shown.value, round(shown.low, 3), round(shown.high, 3)
    (0.75, 0.194, 0.994)
    """
    low, high = exact_interval(k, n)
    return Rate(k=k, n=n, value=k / n if n else None, low=low, high=high)


def exact_interval(k: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval for k successes in n, by bisection of the binomial tails.

    >>> [round(bound, 3) for bound in exact_interval(14, 14, confidence=0.9)]
    [0.807, 1.0]
    """
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else _bisect(lambda p: _at_least(k, n, p) < tail)
    high = 1.0 if k == n else _bisect(lambda p: _at_least(k + 1, n, p) < 1 - tail)
    return low, high


def durations(seconds: Iterable[float | None]) -> Durations:
    """Return what times that have come amount to; ``None`` is one that has not and is not counted.

    >>> durations([60.0, None, 180.0]).median_seconds
    120.0
    """
    known = [value for value in seconds if value is not None]
    if not known:
        return Durations(n=0)
    return Durations(n=len(known), median_seconds=median(known), mean_seconds=fmean(known))


def _bisect(below: Callable[[float], bool]) -> float:
    """Return the p in [0, 1] up to which ``below`` holds."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _at_least(k: int, n: int, p: float) -> float:
    """Return P(X >= k) for X binomial(n, p), in logarithms so that a large n does not overflow."""
    if p <= 0 or p >= 1:
        return float(k <= 0 or p >= 1)
    chances = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    )
    return math.fsum(math.exp(chance) for chance in chances)
