"""A rolling quota: so many units in the last so many seconds, hours or days, whenever one looks.

The window of W nanoseconds is cut into 60 slices of ``w = ceil(W / 60)`` on the store's own clock. A unit is counted in
the slice of its admission, and a slice counts until all of it has left the window. So a unit counts for at least W and
at most W + w + 60 ns: **no interval of length W ever holds more than the amount**, and what frees a unit comes at most
one slice late. The wait that is told is exact: a slice leaves at a known instant.

A calendar quota is cheaper (one number) and lets twice the amount through around its reset; a token bucket refills
evenly and lets a full bucket and a refill through in one window. This is for promises of the form "in any 24 hours".

Objects: the slices of one limit and caller, a mapping of slice number to units, at most 61 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["SLICES", "Window", "ends_ns", "longest_ns", "slice_at", "take", "used", "window"]

SLICES: Final = 60
"""Into how many slices a window is cut: its precision."""


class Window(msgspec.Struct, frozen=True):
    """A rolling window; build it with :func:`window`."""

    count: int
    """How many periods it spans."""
    slice_ns: int


def window(count: int, period_ns: int) -> Window:
    """Return the window of the last ``count`` periods.

    >>> window(24, 3_600_000_000_000)
    Window(count=24, slice_ns=1440000000000)
    """
    return Window(count, -(-count * period_ns // SLICES))


def slice_at(rolling: Window, now_ns: int) -> int:
    """Return the number of the slice that holds ``now_ns``."""
    return now_ns // rolling.slice_ns


def ends_ns(rolling: Window, number: int) -> int:
    """Return the instant at which a slice stops to count."""
    return (number + SLICES + 1) * rolling.slice_ns


def longest_ns(rolling: Window) -> int:
    """Return how long a unit that is taken now counts at the longest."""
    return (SLICES + 1) * rolling.slice_ns


def used(rolling: Window, slices: Mapping[int, int], now_ns: int) -> int:
    """Return the units that count at ``now_ns``.

    >>> minute = window(60, 1)
    >>> used(minute, {0: 3, 1: 4}, 60), used(minute, {0: 3, 1: 4}, 61), used(minute, {0: 3, 1: 4}, 62)
    (7, 4, 0)
    """
    oldest = slice_at(rolling, now_ns) - SLICES
    return sum(units for number, units in slices.items() if number >= oldest)


def take(rolling: Window, slices: Mapping[int, int], amount: int, cost: int, now_ns: int) -> tuple[int, int | None]:
    """Take ``cost`` units if they are left; return (used after, nanoseconds to wait).

    The wait is 0 when they were taken, the exact first nanosecond at which they will be when not, ``None`` when no
    window has that much.

    >>> minute = window(60, 1)
    >>> take(minute, {0: 3}, 5, 2, 10), take(minute, {0: 3, 9: 2}, 5, 4, 10), take(minute, {}, 5, 6, 0)
    ((5, 0), (5, 60), (0, None))
    """
    now_used = used(rolling, slices, now_ns)
    if cost > amount:
        return now_used, None
    if now_used + cost <= amount:
        return now_used + cost, 0
    left, oldest, wait = now_used, slice_at(rolling, now_ns) - SLICES, 0
    for number in sorted(number for number in slices if number >= oldest):
        left -= slices[number]
        wait = ends_ns(rolling, number) - now_ns
        if left + cost <= amount:
            break
    return now_used, wait
