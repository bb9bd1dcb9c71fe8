"""A rate in the numbers of a store that counts in doubles: the same bucket, on a coarser clock.

Redis computes in IEEE doubles, which hold every integer below 2^53. So time is counted in ticks of a microsecond there,
and the bucket of :mod:`opsloop.rate_limit.gcra` is reduced again: one tick repays ``gain``, one unit weighs ``weight``,
and ``capacity`` has to leave room below 2^53 for debts. Where it does not, the tick is a millisecond; where that does
not help either, the limit is refused. What is left is exact: no product, sum or quotient of the script is ever rounded
to another integer (see ``design/limits-on-redis.md`` for the argument).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from opsloop.errors import ConfigError
from opsloop.rate_limit.limit import Limit

__all__ = ["EXACT", "Ticks", "ticks"]

EXACT: Final = 2**53
"""Every integer below it is a double."""
ROOM: Final = 4
"""A bucket may owe this many times its capacity before a debt is cut off."""
TICKS_NS: Final = (1_000, 1_000_000)


class Ticks(msgspec.Struct, frozen=True):
    """A bucket on a clock of ``tick_us`` microseconds; build it with :func:`ticks`."""

    tick_us: int
    gain: int
    """Sub-units that one tick repays."""
    weight: int
    """Sub-units that one unit of cost weighs."""
    capacity: int
    """Sub-units that the bucket holds."""
    scale: int
    """How many of the nanosecond bucket's sub-units make one of these."""


def ticks(limit: Limit) -> Ticks:
    """Return the numbers of a rate, or raise :class:`ConfigError` when doubles cannot count it exactly.

    >>> from opsloop.rate_limit import policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> ticks(policy_from_settings([LimitSettings(id="rpm", lever="rate", amount=54, burst=10)]).limits[0])
    Ticks(tick_us=1, gain=9, weight=10000000, capacity=100000000, scale=1000)
    """
    bucket = limit.bucket
    if bucket is None:
        raise ValueError(f"limit {limit.id!r} is no rate")
    for tick_ns in TICKS_NS:
        gain = bucket.gain * tick_ns
        scale = math.gcd(gain, bucket.weight)
        capacity = bucket.capacity // scale
        if capacity * ROOM < EXACT:
            return Ticks(tick_ns // 1000, gain // scale, bucket.weight // scale, capacity, scale)
    raise ConfigError(
        f"limit {limit.id!r}: Redis cannot count {limit.spelled()} exactly",
        fix="use a rounder amount (one that shares factors with the period), a smaller burst or a shorter period",
    )
