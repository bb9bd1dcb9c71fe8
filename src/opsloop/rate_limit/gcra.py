"""A rate as an exact token bucket, which is the generic cell rate algorithm (GCRA) in one integer.

A rate of L units per period of P nanoseconds with a bucket of B units is reduced by ``g = gcd(L, P)`` to ``L' = L / g``
(``gain``) and ``P' = P / g`` (``weight``). One unit of cost weighs P', one nanosecond repays L', the bucket holds
``C = B * P'`` (``capacity``). The state is the theoretical arrival time scaled by L': the moment at which the bucket is
full again. Nothing is divided before a comparison, so a decision is never off by a tick and no refill is ever lost.

Source: ITU-T I.371 (GCRA, virtual scheduling form), with time scaled by L' so that it stays in the integers.
"""

from __future__ import annotations

import math

import msgspec

__all__ = ["Rate", "correct", "debt", "full_in_ns", "rate", "remaining", "take"]


class Rate(msgspec.Struct, frozen=True):
    """A reduced rate; build it with :func:`rate`."""

    gain: int
    """L': sub-units that one nanosecond repays."""
    weight: int
    """P': sub-units that one unit of cost weighs."""
    capacity: int
    """C: sub-units that the bucket holds."""


def rate(amount: int, period_ns: int, *, burst: int | None = None) -> Rate:
    """Return ``amount`` units per ``period_ns`` with a bucket of ``burst`` units, ``amount`` unless given.

    >>> rate(54, 60_000_000_000, burst=10)
    Rate(gain=9, weight=10000000000, capacity=100000000000)
    """
    divisor = math.gcd(amount, period_ns)
    weight = period_ns // divisor
    return Rate(amount // divisor, weight, (amount if burst is None else burst) * weight)


def debt(bucket: Rate, state: int, now_ns: int) -> int:
    """Return how many sub-units are still to be repaid at ``now_ns``; more than the capacity after a late charge."""
    owed = state - now_ns * bucket.gain
    return owed if owed > 0 else 0  # noqa: FURB136 - max() costs twice as much on the hottest line of the room


def take(bucket: Rate, state: int, cost: int, now_ns: int) -> tuple[int, int | None]:
    """Take ``cost`` units if they are there; return (state after, nanoseconds to wait).

    The wait is 0 when the cost was taken, the exact first nanosecond at which it would be when it was not, and
    ``None`` when the bucket can never hold that much. A refusal leaves the state as it was.

    >>> per_second = rate(2, 1_000_000_000)
    >>> state, wait = take(per_second, 0, 2, 0)
    >>> wait, take(per_second, state, 1, 0) == (state, 500_000_000)
    (0, True)
    >>> take(per_second, state, 3, 0)[1] is None
    True
    """
    weight = cost * bucket.weight
    if weight > bucket.capacity:
        return state, None
    floor = now_ns * bucket.gain
    want = (state if state > floor else floor) + weight  # noqa: FURB136 - as in debt()
    over = want - floor - bucket.capacity
    if over > 0:
        return state, -(-over // bucket.gain)
    return want, 0


def correct(bucket: Rate, state: int, units: int, now_ns: int) -> int:
    """Charge ``units`` more (or give them back when negative) without a check; return the state after.

    The bucket may go into debt, which is paid by waiting; it never holds more than its capacity.

    >>> per_second = rate(2, 1_000_000_000)
    >>> remaining(per_second, correct(per_second, 0, -5, 0), 0), full_in_ns(per_second, correct(per_second, 0, 6, 0), 0)
    (2, 3000000000)
    """
    floor = now_ns * bucket.gain
    return max(floor, max(state, floor) + units * bucket.weight)


def remaining(bucket: Rate, state: int, now_ns: int) -> int:
    """Return how many whole units could be taken at ``now_ns``."""
    return max(0, bucket.capacity - debt(bucket, state, now_ns)) // bucket.weight


def full_in_ns(bucket: Rate, state: int, now_ns: int) -> int:
    """Return after how many nanoseconds the bucket is full again."""
    return -(-debt(bucket, state, now_ns) // bucket.gain)
