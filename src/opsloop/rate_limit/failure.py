"""What stands in for a store that does not answer: a breaker that stops asking, and a policy for each limit.

``closed`` refuses with 503, since nobody knows; ``open`` admits uncounted; ``local`` counts this process's share of the
limit, amount / workers, in memory. A share is never less than one unit, so with more workers than units the shares add
up to the number of workers.
"""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS, Clock
from opsloop.errors import StoreError
from opsloop.rate_limit.context import Amounts
from opsloop.rate_limit.decision import Decision, Demand, Receipt, Request
from opsloop.rate_limit.gcra import Rate
from opsloop.rate_limit.limit import Limit
from opsloop.rate_limit.memory import MemoryStore

__all__ = ["Breaker", "Fallback", "LoneError", "MovingError", "share"]

FAILURES: Final = 3
COOL_DOWN_NS: Final = NANOSECONDS


class LoneError(StoreError):
    """One request cannot be dealt with. It says nothing of the store as a whole, so the breaker does not count it."""


class MovingError(LoneError):
    """A slot of a Cluster is moving, so several of its keys cannot be looked at together now."""


class Breaker:
    """Closed: calls go through. Open, after three failures in a row: for a second nothing is asked, then one call is.

    >>> from opsloop.clock import ManualClock
    >>> clock = ManualClock()
    >>> breaker = Breaker(clock)
    >>> for _ in range(3):
    ...     breaker.failed()
    >>> breaker.allows(), clock.advance(seconds=1), breaker.allows(), breaker.allows()
    (False, None, True, False)
    >>> breaker.succeeded(), breaker.allows()
    (None, True)
    """

    def __init__(self, clock: Clock, *, failures: int = FAILURES, cool_down_ns: int = COOL_DOWN_NS) -> None:
        """Start closed."""
        self._clock = clock
        self._most = failures
        self._cool_down_ns = cool_down_ns
        self._failures = 0
        self._probe_ns = 0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the store counts as gone."""
        return self._failures >= self._most

    def allows(self) -> bool:
        """Tell whether the store may be asked; while open only one caller per cool-down is told yes."""
        if self._failures < self._most:
            return True
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if now_ns < self._probe_ns:
                return False
            self._probe_ns = now_ns + self._cool_down_ns
            return True

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0

    def failed(self) -> None:
        """Count a failure; open after too many in a row."""
        with self._lock:
            self._failures += 1
            self._probe_ns = self._clock.monotonic_ns() + self._cool_down_ns


class Fallback:
    """Decides in the store's place, by each limit's ``on_store_failure``."""

    def __init__(self, clock: Clock, *, workers: int) -> None:
        """Take the share of one of so many workers."""
        self._local = MemoryStore(clock=clock)
        self._workers = workers

    def decide(self, request: Request, reason: str, *, write: bool) -> Decision:
        """Return a decision that says why it is degraded, and what it could not count."""
        closed = tuple(demand for demand in request.demands if demand.limit.on_store_failure == "closed")
        if closed:
            told = msgspec.structs.replace(request, demands=closed)
            count = len(closed)
            waits = (COOL_DOWN_NS,) * count
            return Decision(told, "rejected", (None,) * count, request.ts_ns, waits, COOL_DOWN_NS, reason)
        local = tuple(
            Demand(share(demand.limit, self._workers), demand.key, demand.cost, demand.resets_in_ns)
            for demand in request.demands
            if demand.limit.on_store_failure == "local"
        )
        told = msgspec.structs.replace(request, demands=local)
        if not local:
            return Decision(told, "allowed", (), request.ts_ns, degraded=reason)
        decision = self._local.admit(told) if write else self._local.peek(told)
        return msgspec.structs.replace(decision, degraded=reason)

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """Settle what was admitted here."""
        return self._local.settle(reservation, actual)

    def renew(self, reservation: str) -> Receipt:
        """Renew what was admitted here."""
        return self._local.renew(reservation)

    def release(self, reservation: str) -> Receipt:
        """Release what was admitted here."""
        return self._local.release(reservation)


def share(limit: Limit, workers: int) -> Limit:
    """Return one worker's share of a limit: the rate is divided exactly, whole units are rounded down to at least one.

    >>> from opsloop.rate_limit import policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> rate = policy_from_settings([LimitSettings(id="rpm", lever="rate", amount=10, burst=9)]).limits[0]
    >>> share(rate, 4).bucket == Rate(gain=1, weight=24 * NANOSECONDS, capacity=2 * 24 * NANOSECONDS)
    True
    """
    amount = max(1, limit.amount // workers)
    bucket = limit.bucket
    if bucket is not None:
        weight = bucket.weight * workers
        bucket = Rate(bucket.gain, weight, max(1, limit.capacity // workers) * weight)
    return msgspec.structs.replace(limit, amount=amount, bucket=bucket)
