"""The store in memory, and the port that every store has.

One lock makes each call one transaction. The pure functions of :mod:`~opsloop.rate_limit.admit` are the definition:
they answer :meth:`~MemoryStore.peek`, every refusal, renewals and releases. The two calls that every request pays for,
a yes and its settlement, are written out here without the definition's intermediate values; a property test holds both
against each other.

Memory is bounded by what still matters: a bucket is forgotten when it is full again, a quota an hour after its period,
a reservation when it is settled or after an hour. Each write sweeps twice as much of what is due as it can add, so
nothing piles up and nobody pays for a scan. Whatever callers call themselves, no limit keeps more than ``max_keys``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final, Protocol

from msgspec.structs import replace

from opsloop.clock import Clock, SystemClock
from opsloop.errors import ConfigError
from opsloop.rate_limit import admit as core
from opsloop.rate_limit import concurrency, gcra, quota, rolling
from opsloop.rate_limit.context import Amounts, amount_of
from opsloop.rate_limit.decision import Decision, Demand, Receipt, Request
from opsloop.rate_limit.expiry import ExpiryWheel
from opsloop.rate_limit.inherit import moved
from opsloop.rate_limit.limit import Key, Level, Limit
from opsloop.rate_limit.policy import Policy
from opsloop.rate_limit.tables import Counts, Leases, Table, item_of, table_of

__all__ = ["MAX_KEYS", "MemoryStore", "Store"]

MAX_KEYS: Final = 1_000_000
"""How many callers a limit tells apart unless said otherwise: about 90 MB of buckets."""


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
    """A :class:`Store` in this process, safe between threads. Its time is the monotonic clock, which never jumps.

    A limit (a quota: in one period) that already tells ``max_keys`` callers apart counts all newcomers as one until
    some are forgotten: a flood of invented names can neither fill the memory nor get more than one caller gets.
    """

    def __init__(self, *, clock: Clock | None = None, max_keys: int = MAX_KEYS) -> None:
        """Start with every limit untouched. Raises :class:`ConfigError` for a ``max_keys`` below 1."""
        if max_keys < 1:
            raise ConfigError(f"max_keys is {max_keys}", fix="give room for one key at least")
        self._monotonic_ns = (clock or SystemClock()).monotonic_ns
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._now_ns = 0
        self._tables: dict[Any, Table] = {}
        self._leases: dict[Key, Leases] = {}
        self._held: OrderedDict[str, core.Held] = OrderedDict()
        self._held_due_ns = 0
        self._slices: dict[Key, dict[int, int]] = {}
        self._state = core.State(Counts(self._tables, max_keys), self._leases, self._held, self._slices)
        self._wheel = ExpiryWheel()

    def admit(self, request: Request) -> Decision:
        """Decide and write, in one transaction; the answer is that of :func:`opsloop.rate_limit.admit.decide`."""
        demands = request.demands
        lock = self._lock
        lock.acquire()  # twice as fast as a with statement, which makes bound methods and an argument tuple
        try:
            now_ns = self._monotonic_ns()
            if now_ns < self._now_ns:  # as in _tick()
                now_ns = self._now_ns
            else:
                self._now_ns = now_ns
            bucket = demands[0].limit.bucket if len(demands) == 1 and not request.reservation else None
            if bucket is None:
                return self._admit_all(request, now_ns)
            demand = demands[0]
            root, item = demand.key
            table = self._tables.get(root)
            state = None if table is None else table.counts.get(item)
            if table is None or state is None:
                return self._admit_all(request, now_ns)
            gain = bucket.gain
            floor = now_ns if gain == 1 else now_ns * gain  # multiplying such large integers is what costs most here
            weight = demand.cost * bucket.weight
            value = (state if state > floor else floor) + weight  # noqa: FURB136 - as gcra.debt
            full = floor + bucket.capacity
            if value > full:
                if weight > bucket.capacity:
                    return core.refuse(self._state, request, now_ns)
                wait_ns = -((full - value) // gain)
                return Decision(request, "rejected", (state,), now_ns, (wait_ns,), wait_ns)
            table.counts[item] = value
            if self._wheel.next_ns <= now_ns:
                self._wheel.sweep(now_ns, most=2)
            return Decision(request, "allowed", (value,), now_ns)
        finally:
            lock.release()

    def peek(self, request: Request) -> Decision:
        """Decide and write nothing."""
        with self._lock:
            return core.decide(self._state, request, self._tick())[1]

    def settle(self, reservation: str, actual: Amounts) -> Receipt:
        """Replace an estimate by what it really cost, once; see :func:`opsloop.rate_limit.admit.settle`."""
        lock = self._lock
        lock.acquire()
        try:
            now_ns = self._tick()
            known = self._held.get(reservation)
            if known is None or known.settled or known.expires_ns <= now_ns:
                return core.settle(self._state, reservation, actual, now_ns)[1]
            request = known.decision.request
            levels: list[Level] = []
            for demand in request.demands:
                limit = demand.limit
                if limit.lease_ns:
                    leases = self._leases.get(demand.key)
                    if leases is not None:
                        leases.pop(reservation, None)
                    continue
                amount = amount_of(limit.unit, actual)
                if amount is not None and amount != demand.cost:
                    value = self._correct(demand, amount - demand.cost, known.decision.now_ns, now_ns)
                    if value is not None:
                        levels.append(Level(limit, value, now_ns, demand.resets_in_ns))
            if request.remember:
                self._held[reservation] = core.Held(known.decision, known.expires_ns, settled=True)
            else:
                del self._held[reservation]
            return core.settled(request, actual, tuple(levels))
        finally:
            lock.release()

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
            found = moved(self._state.counts, before, after, now_ns)
            for old, limit, key, state in found:
                self._tables[old[0]].counts[old[1]] = 0  # a full bucket, which is forgotten when it is looked at
                table, item, _ = self._found(Demand(limit, key, 0))
                if item in table.counts:
                    table.counts[item] = state
                else:
                    self._wheel.add(table.forget, item, table.enter(item, state, now_ns))
            self._rehome({old: (limit, key) for old, limit, key, _ in found})
        return len(found)

    def __len__(self) -> int:
        """Return how many counts, slots and reservations are kept."""
        many = sum(map(len, self._leases.values())) + sum(map(len, self._slices.values()))
        return len(self._state.counts) + many + len(self._held)

    def _rehome(self, homes: dict[Key, tuple[Limit, Key]]) -> None:
        """Have requests that still run settled in the buckets to which what they owe was moved."""
        for reservation, known in self._held.items() if homes else ():
            request = known.decision.request
            if all(demand.key not in homes for demand in request.demands):
                continue
            demands = tuple(
                Demand(*homes.get(demand.key, (demand.limit, demand.key)), demand.cost, demand.resets_in_ns)
                for demand in request.demands
            )
            decision = replace(known.decision, request=replace(request, demands=demands))
            self._held[reservation] = core.Held(decision, known.expires_ns, settled=known.settled)

    def _tick(self) -> int:
        """Return the time, which stands still should the clock go back."""
        now_ns = self._monotonic_ns()
        if now_ns < self._now_ns:
            return self._now_ns
        self._now_ns = now_ns
        return now_ns

    def _admit_all(self, request: Request, now_ns: int) -> Decision:
        """Decide and write for any number of limits."""
        reservation = request.reservation
        if reservation:
            known = self._held.get(reservation)
            if known is not None and known.expires_ns > now_ns:
                return known.decision
        values: list[int] = []
        counted: list[tuple[Table, Any, int]] = []
        for demand in request.demands:
            limit = demand.limit
            bucket = limit.bucket
            if bucket is not None:
                root, item = demand.key
                table = self._tables.get(root)
                state = None if table is None else table.counts.get(item)
                if table is None or state is None:
                    table, item, state = self._found(demand)
                gain = bucket.gain
                floor = now_ns if gain == 1 else now_ns * gain
                value = (state if state > floor else floor) + demand.cost * bucket.weight  # noqa: FURB136 - as gcra.debt
                fits = value <= floor + bucket.capacity
                counted.append((table, item, value))
            elif limit.calendar is not None:
                table, item, value = self._counted(demand, now_ns)
                fits = value <= limit.amount
                counted.append((table, item, value))
            elif limit.window is not None:
                slices = self._slices.get(demand.key, core.NO_SLICES)
                value, wait = rolling.take(limit.window, slices, limit.amount, demand.cost, now_ns)
                fits = wait == 0
            else:
                value = self._slots(demand.key, now_ns) + 1
                fits = value <= limit.amount
            if not fits:
                return core.refuse(self._state, request, now_ns)
            values.append(value)
        for table, item, value in counted:
            if item in table.counts:
                table.counts[item] = value
            else:
                self._wheel.add(table.forget, item, table.enter(item, value, now_ns))
        decision = Decision(request, "allowed", tuple(values), now_ns)
        if len(counted) < len(values):
            for demand in request.demands:
                if demand.limit.lease_ns:
                    self._lease(demand.key, reservation, now_ns + demand.limit.lease_ns, now_ns)
                elif demand.limit.window is not None:
                    self._roll(demand.key, demand.limit.window, demand.cost, now_ns)
        if reservation:
            self._held[reservation] = core.Held(decision, now_ns + core.HOLD_NS)
        if self._wheel.next_ns <= now_ns or self._held_due_ns <= now_ns:
            self._sweep(now_ns, 2 * len(values) + 2)
        return decision

    def _counted(self, demand: Demand, now_ns: int) -> tuple[Table, Any, int]:
        """Return a quota's place, and its count if the demand were admitted."""
        root, item, start_ns = demand.key
        table = self._tables.get((root, start_ns))
        used = None if table is None else table.counts.get(item)
        if table is None or used is None:
            table, item, used = self._found(demand)
        table.ends_ns = now_ns + demand.resets_in_ns
        return table, item, used + demand.cost

    def _found(self, demand: Demand) -> tuple[Table, Any, int]:
        """Return where a demand is counted, and its number; 0 for someone whom no table knows."""
        table = self._tables.get(table_of(demand.key)) or Table(self._tables, demand)
        item = item_of(table, demand.key, self._max_keys)
        return table, item, table.counts.get(item, 0)

    def _correct(self, demand: Demand, units: int, then_ns: int, now_ns: int) -> int | None:
        """Charge units or give them back; return the number after, ``None`` for a period that is forgotten."""
        bucket, window = demand.limit.bucket, demand.limit.window
        if window is not None:
            slices, number = self._slices.get(demand.key, core.NO_SLICES), rolling.slice_at(window, then_ns)
            if number not in slices:
                return None
            slices[number] = quota.correct(slices[number], units)
            return rolling.used(window, slices, now_ns)
        table, item, value = self._found(demand)
        known = item in table.counts
        if bucket is not None:
            value = gcra.correct(bucket, value, units, now_ns)
        elif known:
            value = quota.correct(value, units)
        else:
            return None
        if known:
            table.counts[item] = value
        else:
            self._wheel.add(table.forget, item, table.enter(item, value, now_ns))
        return value

    def _roll(self, key: Key, window: rolling.Window, cost: int, now_ns: int) -> None:
        """Count in the slice of now, and forget those that no longer count when it is a new one."""
        number = rolling.slice_at(window, now_ns)
        slices = self._slices.get(key)
        if slices is None:
            slices = self._slices[key] = {}
            self._wheel.add(self._forget_slices, (key, window), rolling.ends_ns(window, number))
        if number not in slices:
            for old in [old for old in slices if rolling.ends_ns(window, old) <= now_ns]:
                del slices[old]
        slices[number] = slices.get(number, 0) + cost

    def _slots(self, key: Key, now_ns: int) -> int:
        """Return how many slots are held."""
        leases = self._leases.get(key)
        if leases is None:
            return 0
        if leases.due_ns <= now_ns:
            leases.drop_expired(now_ns)
        return len(leases)

    def _lease(self, key: Key, reservation: str, expiry_ns: int, now_ns: int) -> None:
        """Lease a slot, or prolong its lease."""
        leases = self._leases.get(key)
        if leases is None:
            leases = self._leases[key] = Leases(expiry_ns)
            self._wheel.add(self._forget_leases, key, expiry_ns)
        elif leases.due_ns <= now_ns:
            leases.drop_expired(now_ns)
        leases.pop(reservation, None)
        leases[reservation] = expiry_ns

    def _apply(self, changes: core.Changes, now_ns: int) -> None:
        """Write what a renewal or a release wants written."""
        for key, reservation, expiry_ns in changes.leased:
            self._lease(key, reservation, expiry_ns, now_ns)
        for key, reservation in changes.dropped:
            leases = self._leases.get(key)
            if leases is not None:
                leases.pop(reservation, None)
        for reservation, held in changes.held:
            if held is None:
                self._held.pop(reservation, None)
            else:
                if held.expires_ns < self._held[reservation].expires_ns:  # sooner than its place among the others says
                    self._wheel.add(self._forget_held, reservation, held.expires_ns)
                self._held[reservation] = held
        if self._wheel.next_ns <= now_ns:
            self._wheel.sweep(now_ns, most=2)

    def _sweep(self, now_ns: int, most: int) -> None:
        """Forget at most so many of the things that are due, reservations first: they are in order of expiry."""
        held = self._held
        for _ in range(most // 2):
            reservation = next(iter(held), "")
            self._held_due_ns = held[reservation].expires_ns if reservation else now_ns + core.HOLD_NS
            if self._held_due_ns > now_ns:
                break
            del held[reservation]
            most -= 1
        self._wheel.sweep(now_ns, most=most)

    def _forget_held(self, reservation: str, now_ns: int) -> int:
        known = self._held.get(reservation)
        if known is not None and known.expires_ns <= now_ns:
            del self._held[reservation]
        return 0

    def _forget_slices(self, item: tuple[Key, rolling.Window], now_ns: int) -> int:
        key, window = item
        ends_ns = rolling.ends_ns(window, max(self._slices[key]))
        if ends_ns > now_ns:
            return ends_ns
        del self._slices[key]
        return 0

    def _forget_leases(self, key: Key, now_ns: int) -> int:
        leases = self._leases[key]
        leases.drop_expired(now_ns)
        if leases:
            return concurrency.last_ns(leases)
        del self._leases[key]
        return 0
