"""The exact quantile that every room means: inclusive, linear between neighbours, no bucket and no sketch.

With n sorted values it lies at rank ``q (n - 1)``. Source: Hyndman & Fan 1996, type 7; ClickHouse's
``quantileExactInclusive`` is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["quantile"]


def quantile(values: Sequence[float], q: float) -> float:
    """Return the inclusive quantile of ``values``, which must be sorted and not empty.

    >>> quantile([1, 2], 0.95)
    1.95
    """
    rank = q * (len(values) - 1) + 1
    low = int(rank)
    if low >= len(values):
        return float(values[-1])
    below, above = float(values[low - 1]), float(values[low])
    return below + (rank - low) * (above - below)
