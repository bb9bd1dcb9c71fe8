"""Concurrency as leases: a slot is held until it is released or its lease runs out, whichever comes first.

The leases of one limit are a mapping of reservation id to expiry, kept in order of expiry: a new or renewed lease goes
to the end, since all leases of a limit last equally long. So the earliest expiry is always in front. A holder that
crashes frees its slot one lease later; a live one renews every third of a lease. A renewal never revives a lease that
ran out, because its slot may have been given away.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

__all__ = ["expired", "held", "last_ns", "renewable", "take"]


def expired(leases: Mapping[str, int], now_ns: int) -> int:
    """Return how many leases at the front have run out.

    >>> expired({"a": 5, "b": 9}, 5)
    1
    """
    count = 0
    for expiry_ns in leases.values():
        if expiry_ns > now_ns:
            break
        count += 1
    return count


def held(leases: Mapping[str, int], now_ns: int) -> int:
    """Return how many slots are held at ``now_ns``."""
    return len(leases) - expired(leases, now_ns)


def last_ns(leases: dict[str, int]) -> int:
    """Return when the last lease ends, 0 without any.

    >>> last_ns({"a": 5, "b": 9}), last_ns({})
    (9, 0)
    """
    return leases[next(reversed(leases))] if leases else 0


def take(leases: Mapping[str, int], amount: int, now_ns: int) -> tuple[int, int]:
    """Take a slot of ``amount`` if one is free; return (slots held after, nanoseconds to the first lease's end).

    The wait is 0 when a slot was free. A holder may release sooner than its lease ends, or renew it: the wait is a
    hint, where a rate's is exact.

    >>> take({"a": 30}, 2, 0), take({"a": 30, "b": 40}, 2, 10), take({"a": 30, "b": 40}, 2, 30)
    ((2, 0), (2, 20), (2, 0))
    """
    gone = expired(leases, now_ns)
    live = len(leases) - gone
    if live < amount:
        return live + 1, 0
    # Where the limit was lowered below what is held, more than one lease has to end.
    return live, next(itertools.islice(leases.values(), gone + live - amount, None)) - now_ns


def renewable(leases: Mapping[str, int], reservation: str, now_ns: int) -> bool:
    """Tell whether a lease is still running, so that it may be prolonged.

    >>> renewable({"a": 5}, "a", 4), renewable({"a": 5}, "a", 5), renewable({}, "a", 0)
    (True, False, False)
    """
    return leases.get(reservation, now_ns) > now_ns
