"""Latency: exact quantiles over the durations of a window, of successes and failures apart.

Quantile
    The inclusive one of :mod:`opsloop.quantile`, exact: no bucket, no sketch.
Limits
    A quantile needs values beyond it. Below ``n = 10 / (1 - q)`` (p95: 200, p99: 1000) it is *rough*, and is shown so.
    Rejections of our own limiter are left out: they take no time and would flatter every quantile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from opsloop.dashboard.window import Window
from opsloop.quantile import quantile

__all__ = ["QUANTILES", "Latencies", "Latency", "latencies", "latency", "rough"]

QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """The quantiles of one kind of duration, in microseconds; ``None`` where nothing was measured."""

    n: int = 0
    """How many durations there are."""
    skipped: int = 0
    """Events without a duration: counted, never taken as 0."""
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """The kinds of duration that are told apart."""

    served: Latency = Latency()
    """Every request but the rejected ones, end to end."""
    success: Latency = Latency()
    """Of these, the ones that succeeded."""
    error: Latency = Latency()
    """... and the ones that failed: fast failures flatter a quantile over both."""
    first_token: Latency = Latency()
    """Time to first token of served requests."""
    retrieve: Latency = Latency()
    """Retrievals."""
    llm: Latency = Latency()
    """Model calls."""


def latencies(window: Window) -> Latencies:
    """Work out every latency of a window."""
    return Latencies(
        served=latency(event.duration_us for event in window.served),
        success=latency(event.duration_us for event in window.served if not event.error),
        error=latency(event.duration_us for event in window.served if event.error),
        first_token=latency(event.time_to_first_token_us for event in window.served),
        retrieve=latency(event.duration_us for event in window.of_stage("retrieve")),
        llm=latency(event.duration_us for event in window.of_kind("llm")),
    )


def latency(durations_us: Iterable[int | None]) -> Latency:
    """Return the quantiles of durations in microseconds; the absent ones are counted in ``skipped``.

    >>> latency([100, 200, None]).p50, latency([100, 200, None]).skipped
    (150.0, 1)
    """
    given = list(durations_us)
    values = sorted(value for value in given if value is not None)
    skipped = len(given) - len(values)
    if not values:
        return Latency(skipped=skipped)
    p50, p90, p95, p99 = (quantile(values, q) for q in QUANTILES)
    return Latency(n=len(values), skipped=skipped, p50=p50, p90=p90, p95=p95, p99=p99)


def rough(n: int, q: float) -> bool:
    """Tell whether n values are too few for the quantile q: fewer than ten lie beyond it on average.

    >>> rough(199, 0.95), rough(200, 0.95)
    (True, False)
    """
    beyond = 1 - q if q >= 0.5 else q
    return n < round(10 / beyond, 6)
