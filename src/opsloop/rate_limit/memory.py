"""The store in memory, and the port that every store has.

One lock makes each call one transaction: read, decide by the pure core, write. Memory is bounded by what still
matters: a bucket is forgotten when it is full again, a quota an hour after its period, a reservation when it is
settled or after an hour. Each write sweeps a few of those that are due.
"""

from __future__ import annotations

import itertools
import threading
from typing import Protocol

from opsloop.clock import Clock, SystemClock
from opsloop.rate_limit import admit as core
from opsloop.rate_limit import concurrency, gcra, rolling
from opsloop.rate_limit.context import Amounts
from opsloop.rate_limit.decision import Decision, Demand, Receipt, Request
from opsloop.rate_limit.expiry import ExpiryWheel
from opsloop.rate_limit.inherit import moved
from opsloop.rate_limit.limit import Key, Limit
from opsloop.rate_limit.policy import Policy

__all__ = ["MemoryStore", "Store"]

SWEPT_PER_WRITE = 8


class Store(Protocol):
    """Where limits are kept: each call is one transaction at the store's own time, and safe to repeat."""

    def admit(self, request: Request) -> Decision:
        """Decide and write; see :func:`opsloop.rate_limit.admit.decide`."""
        ...

    def peek(self, request: Request) -> Decision:
        """Decide and write nothing."""
        ...

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """See :func:`opsloop.rate_limit.admit.settle`."""
        ...

    def renew(self, reservation: str) -> Receipt:
        """See :func:`opsloop.rate_limit.admit.renew`."""
        ...

    def release(self, reservation: str) -> Receipt:
        """See :func:`opsloop.rate_limit.admit.release`."""
        ...


class MemoryStore:
    """A :class:`Store` in this process, safe between threads. Its time is the monotonic clock, which never jumps."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Start with every limit untouched."""
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._now_ns = 0
        self._counts: dict[Key, int] = {}
        self._leases: dict[Key, dict[str, int]] = {}
        self._held: dict[str, core.Held] = {}
        self._slices: dict[Key, dict[int, int]] = {}
        self._state = core.State(self._counts, self._leases, self._held, self._slices)
        self._limits: dict[str, Limit] = {}
        self._wheel = ExpiryWheel[Key | str]()

    def admit(self, request: Request) -> Decision:
        """Decide and write, in one transaction."""
        with self._lock:
            now_ns = self._tick()
            changes, decision = core.decide(self._state, request, now_ns)
            if decision.status == "allowed":
                self._apply(changes, now_ns)
        return decision

    def peek(self, request: Request) -> Decision:
        """Decide and write nothing."""
        with self._lock:
            return core.decide(self._state, request, self._tick())[1]

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """Replace an estimate by what it really cost, once."""
        with self._lock:
            now_ns = self._tick()
            changes, receipt = core.settle(self._state, reservation, actual, now_ns)
            self._apply(changes, now_ns)
        return receipt

    def renew(self, reservation: str) -> Receipt:
        """Prolong a reservation's slots."""
        with self._lock:
            now_ns = self._tick()
            changes, receipt = core.renew(self._state, reservation, now_ns)
            self._apply(changes, now_ns)
        return receipt

    def release(self, reservation: str) -> Receipt:
        """Give a reservation's slots back."""
        with self._lock:
            now_ns = self._tick()
            changes, receipt = core.release(self._state, reservation, now_ns)
            self._apply(changes, now_ns)
        return receipt

    def inherit(self, before: Policy, after: Policy) -> int:
        """Move what rates owe to the numbers of a new policy; return how many buckets. It looks at every key once."""
        with self._lock:
            now_ns = self._tick()
            found = moved(self._counts, before, after, now_ns)
            for old, limit, key, state in found:
                del self._counts[old]
                self._counts[key] = state
                self._limits[limit.root] = limit
                self._wheel.add(key, now_ns)
        return len(found)

    def __len__(self) -> int:
        """Return how many counts, slots and reservations are kept."""
        many = sum(map(len, self._leases.values())) + sum(map(len, self._slices.values()))
        return len(self._counts) + many + len(self._held)

    def _tick(self) -> int:
        """Return the time, which stands still should the clock go back."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._now_ns:
            return self._now_ns
        self._now_ns = now_ns
        return now_ns

    def _apply(self, changes: core.Changes, now_ns: int) -> None:
        counts = self._counts
        for demand, value in zip(changes.demands, changes.values, strict=True):
            known = len(counts)
            counts[demand.key] = value
            if len(counts) > known:
                self._limits[demand.limit.root] = demand.limit
                self._wheel.add(demand.key, core.expires_ns(demand, value, now_ns))
        for demand, number, units in changes.sliced:
            self._apply_slice(demand, number, units, now_ns)
        for key, reservation, expiry_ns in changes.leased:
            leases = self._leases.get(key)
            if leases is None:
                leases = self._leases[key] = {}
                self._wheel.add(key, expiry_ns)
            _drop_expired(leases, now_ns)
            leases.pop(reservation, None)
            leases[reservation] = expiry_ns
        for key, reservation in changes.dropped:
            self._leases.get(key, {}).pop(reservation, None)
        for reservation, held in changes.held:
            if held is None:
                self._held.pop(reservation, None)
            else:
                self._held[reservation] = held
                self._wheel.add(reservation, held.expires_ns)
        if self._wheel.next_ns <= now_ns:
            for item in self._wheel.due(now_ns, most=SWEPT_PER_WRITE):
                self._forget(item, now_ns)

    def _apply_slice(self, demand: Demand, number: int, units: int, now_ns: int) -> None:
        """Write one slice of a rolling quota, and forget those that no longer count when a new one begins."""
        window = demand.limit.window
        if window is None:
            return
        slices = self._slices.get(demand.key)
        if slices is None:
            slices = self._slices[demand.key] = {}
            self._limits[demand.limit.root] = demand.limit
            self._wheel.add(demand.key, rolling.ends_ns(window, number))
        if number not in slices:
            for old in [old for old in slices if rolling.ends_ns(window, old) <= now_ns]:
                del slices[old]
        slices[number] = units

    def _forget(self, item: Key | str, now_ns: int) -> None:
        """Forget what is due, unless it was prolonged: then it goes back onto the wheel."""
        if isinstance(item, str):
            held = self._held.get(item)
            if held is not None and held.expires_ns <= now_ns:
                del self._held[item]
        elif item in self._counts:
            bucket = self._limits[item[0]].bucket
            rest_ns = 0 if bucket is None else gcra.full_in_ns(bucket, self._counts[item], now_ns)
            if rest_ns > 0:
                self._wheel.add(item, now_ns + rest_ns)
            else:
                del self._counts[item]
        elif item in self._slices:
            window, last = self._limits[item[0]].window, max(self._slices[item], default=0)
            ends_ns = 0 if window is None else rolling.ends_ns(window, last)
            if ends_ns > now_ns:
                self._wheel.add(item, ends_ns)
            else:
                del self._slices[item]
        elif item in self._leases:
            leases = self._leases[item]
            _drop_expired(leases, now_ns)
            if leases:
                self._wheel.add(item, concurrency.last_ns(leases))
            else:
                del self._leases[item]


def _drop_expired(leases: dict[str, int], now_ns: int) -> None:
    for reservation in list(itertools.islice(leases, concurrency.expired(leases, now_ns))):
        del leases[reservation]
