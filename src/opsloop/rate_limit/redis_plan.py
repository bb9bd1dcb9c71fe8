"""A request as the scripts see it: its limits by kind, their numbers, and where they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, Literal, cast

import msgspec

from opsloop.rate_limit.admit import HOLD_NS, LATE_SETTLE_NS
from opsloop.rate_limit.context import Amounts, amount_of
from opsloop.rate_limit.decision import Decision, Demand, Request
from opsloop.rate_limit.gcra import Rate
from opsloop.rate_limit.limit import Level, Limit
from opsloop.rate_limit.redis_kept import described, limits_told, places_told
from opsloop.rate_limit.redis_keys import EVERYTHING, Keys
from opsloop.rate_limit.redis_script import Answer, Closed, Script, bulk, read, stream
from opsloop.rate_limit.rolling import Window
from opsloop.rate_limit.ticks import EXACT, Ticks, ticks

__all__ = ["Plan", "Verb", "finding"]

Verb = Literal["settle", "renew", "release", "undo"]
MICROSECOND_NS: Final = 1000
HOLD_US: Final = HOLD_NS // MICROSECOND_NS
LAYOUTS: Final = 1024
WAYS: Final = 4096
SAME: Final = 16
ROLLING: Final = 2
"""The rank of a rolling quota."""


class _Layout(msgspec.Struct, frozen=True, eq=False):
    """What is the same for all requests on the same limits, worked out once."""

    limits: tuple[Limit, ...]
    order: tuple[int, ...]
    """The demands' positions as the scripts want them: buckets, quotas, rolling quotas, slots."""
    counts: tuple[int, ...]
    """The positions of those that are no slots."""
    buckets: tuple[Ticks, ...]
    dated: int
    """How many are a bucket or a quota of the calendar."""
    rolls: tuple[int, ...]
    """The slice of each rolling quota, in microseconds."""
    leases: tuple[int, ...]
    """The lease of each set of slots, in microseconds."""
    levels: tuple[tuple[int, int, int], ...]
    """For each demand the place of its level in an answer, what a nanosecond repays, and how much one of the server's
    sub-units is; 0 and 1 where there is no bucket."""
    told: msgspec.Raw
    """The limits as a reservation remembers them."""
    repeats: bool
    """Whether a key may come twice."""

    @classmethod
    def of(cls, limits: tuple[Limit, ...]) -> _Layout:
        order = tuple(sorted(range(len(limits)), key=lambda at: _rank(limits[at])))
        buckets = tuple(ticks(limits[at]) for at in order if limits[at].bucket is not None)
        scales = [(cast("Rate", limits[at].bucket).gain, t.scale) for at, t in zip(order, buckets, strict=False)]
        scales += [(0, 1)] * (len(order) - len(buckets))
        return cls(
            limits,
            order,
            tuple(at for at in order if not limits[at].lease_ns),
            buckets,
            sum(_rank(limit) < ROLLING for limit in limits),
            tuple(_slice_us(limits[at]) for at in order if limits[at].window is not None),
            tuple(limits[at].lease_ns // MICROSECOND_NS for at in order if limits[at].lease_ns),
            tuple((order.index(at), *scales[order.index(at)]) for at in range(len(limits))),
            limits_told(limits),
            len({limit.root for limit in limits}) < len(limits),
        )

    def numbers(self, periods: Iterable[tuple[int, int]]) -> bytes:
        """Return what the script has to know of the limits, with the quotas' periods in microseconds."""
        rates = [(each.gain, each.weight, each.capacity, each.tick_us) for each in self.buckets]
        ranked = [self.limits[at] for at in self.order]
        first, dated, counted = len(rates), self.dated, len(self.counts)
        quotas = [(limit.amount, *period) for limit, period in zip(ranked[first:dated], periods, strict=True)]
        rolls = [(limit.amount, each) for limit, each in zip(ranked[dated:counted], self.rolls, strict=True)]
        slots = [(limit.amount, each) for limit, each in zip(ranked[counted:], self.leases, strict=True)]
        return stream(_flat((rates, quotas, rolls, slots)))


class _Way(msgspec.Struct):
    """What is the same for all requests of one caller on the same limits: the keys and numbers, ready to be sent."""

    layout: _Layout
    keys: tuple[bytes, ...]
    """In the layout's order."""
    tag: str
    """Where its reservations lie."""
    counts: bytes
    """The keys of its counts, as they go over the wire."""
    slots: bytes
    """The keys of its slots."""
    numbers: bytes
    """What the script has to know of its limits."""
    told: msgspec.Raw
    """Where it is counted, as a reservation remembers it."""
    scripts: dict[tuple[bool, tuple[int, ...]], Script]
    """Calls that are the same for all requests of the same costs: of those without a reservation."""
    refreshed_ns: int = 0
    """When an admission of ours last prolonged the life of its slots' keys."""

    @classmethod
    def of(cls, request: Request, keys: Keys) -> _Way:
        """Return the way of a request, from memory where it was gone before."""
        demands = request.demands
        layout = _layout(demands)
        seen = (layout, tuple([demand.key for demand in demands]))
        way = keys.ways.get(seen)
        if way is None:
            if len(keys.ways) >= WAYS:
                keys.ways.clear()
            where = tuple([keys.of(demands[at].limit, demands[at].key) for at in layout.order])
            counted = len(layout.counts)
            dated = [demands[at] for at in layout.counts[len(layout.buckets) : layout.dated]]
            periods = [(each.key[2], request.ts_ns + each.resets_in_ns) for each in dated]
            way = keys.ways[seen] = cls(
                layout,
                where,
                keys.beside(demands[0].limit, demands[0].key) if demands else EVERYTHING,
                b"".join(map(bulk, where[:counted])),
                b"".join(map(bulk, where[counted:])),
                bulk(layout.numbers((start // MICROSECOND_NS, end // MICROSECOND_NS) for start, end in periods)),
                places_told(request),
                {},
            )
        return cast("_Way", way)

    def refreshes(self, now_ns: int) -> bool:
        """Tell whether the slots' keys, which live for twice the longest hold, have to be prolonged."""
        return abs(now_ns - self.refreshed_ns) >= HOLD_NS // 2


class Plan(msgspec.Struct, frozen=True, gc=False):
    """A request with its layout and keys. Where a key was given twice, ``request`` has it once, with both costs."""

    request: Request
    asked: Request
    """The request as it was asked."""
    way: _Way
    slices: tuple[int, ...] = ()
    """Of an admission, the slice of each rolling quota that it was charged to."""

    @classmethod
    def of(cls, request: Request, keys: Keys) -> Plan:
        """Sort a request's demands by kind and find their keys."""
        asked, demands = request, request.demands
        before = keys.recent.get(id(demands))
        if before is not None and before[0] is demands:  # those of plain rates are the same object again and again
            return cls(request, asked, before[1])
        way = _Way.of(request, keys)
        if way.layout.repeats:
            request = _summed(request)
            way = _Way.of(request, keys)
        elif not request.estimate and not request.reservation and way.layout.dated == len(way.layout.buckets):
            if len(keys.recent) >= WAYS:
                keys.recent.clear()
            keys.recent[id(demands)] = demands, way
        return cls(request, asked, way)

    @property
    def tag(self) -> str:
        """Where its reservation lies."""
        return self.way.tag

    def admission(self, keys: Keys, *, now_us: int, write: bool) -> Script:
        """Return the call that decides about the request, and writes if it may."""
        request, way = self.request, self.way
        layout = way.layout
        costs = [demand.cost for demand in request.demands]
        units = tuple([costs[at] for at in layout.counts])
        name = request.reservation if write else ""
        reusable = not (name or now_us)
        if reusable and (write, units) in way.scripts:
            return way.scripts[write, units]
        refresh = write and bool(layout.leases) and way.refreshes(request.ts_ns)
        if units and max(units) > EXACT:  # no limit holds as much, and scripts read the very largest as negative
            units = tuple([min(cost, EXACT) for cost in units])
        asked = bulk(stream((now_us, write, HOLD_US, refresh, name, *units)))
        undo = partial(self.undoing, keys=keys, now_us=now_us) if write else None
        count = len(way.keys)
        if name:
            marker = keys.reservation(name, way.tag)
            where = way.counts + bulk(marker) + way.slots
            told = described(request, costs, layout.told, way.told)
            return Script("admit", marker, count + 1, where, way.numbers + asked + bulk(told), undo)
        script = Script("admit", way.keys[0], count, way.counts + way.slots, way.numbers + asked + bulk(b""), undo)
        if reusable and len(way.scripts) < SAME:
            way.scripts[write, units] = script
        return script

    def closing(
        self, verb: Verb, keys: Keys, *, now_us: int, actual: Amounts | None = None
    ) -> tuple[Script, tuple[Demand, ...]]:
        """Return the call that ends or prolongs the reservation, and the demands whose counts it changes, in order.

        With ``actual`` the counts are corrected from the estimate to it.
        """
        request, layout, own = self.request, self.way.layout, self.way.keys
        first, dated, counted = len(layout.buckets), layout.dated, len(layout.counts)
        buckets: list[tuple[int, ...]] = []
        quotas: list[tuple[int, ...]] = []
        rolls: list[tuple[int, ...]] = []
        changed: list[Demand] = []
        where = [] if verb == "undo" else [keys.reservation(request.reservation, self.way.tag)]
        for rank in range(counted if actual else 0):
            demand = request.demands[layout.order[rank]]
            amount = amount_of(demand.limit.unit, actual)
            if amount is None or amount == demand.cost:
                continue
            units = max(-EXACT, min(amount - demand.cost, EXACT))
            if rank < first:
                rate = layout.buckets[rank]
                buckets.append((rate.gain, rate.weight, max(-EXACT, min(units * rate.weight, EXACT)), rate.tick_us))
            elif rank < dated:
                quotas.append((units,))
            else:
                rolls.append((units, layout.rolls[rank - dated], self.slices[rank - dated]))
            changed.append(demand)
            where.append(own[rank])
        late_us = LATE_SETTLE_NS // MICROSECOND_NS if counted else 0
        kinds = buckets, quotas, rolls, [(lease,) for lease in layout.leases]
        about = (now_us, verb, request.reservation, request.remember, late_us, HOLD_US)
        return _close((*where, *own[counted:]), about, kinds), tuple(changed)

    def admitted(self, answer: Answer) -> Plan:
        """Return the plan of an admission, which knows where its units were counted."""
        return msgspec.structs.replace(self, slices=answer.slices) if answer.slices else self

    def refreshed(self) -> None:
        """Note that an admission came true which prolonged what has to be prolonged."""
        if self.way.layout.leases and self.way.refreshes(self.request.ts_ns):
            self.way.refreshed_ns = self.request.ts_ns

    def undoing(self, reply: bytes, keys: Keys, *, now_us: int) -> Script:
        """Return the call that takes an admission back as if it had never been made."""
        plan = self.admitted(read(reply, Answer)) if self.way.layout.rolls else self
        nothing = {demand.limit.unit: 0 for demand in self.request.demands}
        verb: Verb = "settle" if self.request.reservation else "undo"
        return plan.closing(verb, keys, now_us=now_us, actual=nothing)[0]

    def decision(self, status: str, answer: Answer) -> Decision:
        """Return the decision that an answer of the server stands for."""
        now_ns = answer.now_us * MICROSECOND_NS
        levels = answer.levels
        values = tuple([now_ns * gain + levels[rank] * scale for rank, gain, scale in self.way.layout.levels])
        if status == "A":
            decision = Decision(self.request, "allowed", values, now_ns)
        else:
            decision = self._refusal(answer, values, now_ns)
        return decision if self.asked is self.request else _expanded(decision, self.asked)

    def levels(self, changed: tuple[Demand, ...], closed: Closed) -> tuple[Level, ...]:
        """Return the levels of the counts that a settlement changed, without periods that are forgotten."""
        now_ns = closed.now_us * MICROSECOND_NS
        found = []
        for demand, level in zip(changed, closed.levels, strict=True):
            bucket = demand.limit.bucket
            if bucket is not None:
                state = now_ns * bucket.gain + level * ticks(demand.limit).scale
                found.append(Level(demand.limit, state, now_ns, demand.resets_in_ns))
            elif level >= 0:
                found.append(Level(demand.limit, level, now_ns, demand.resets_in_ns))
        return tuple(found)

    def at_time(self, now_us: int) -> Request:
        """Return the request as it is at the server's time: every quota in the period that it is there."""
        now_ns = now_us * MICROSECOND_NS
        demands = []
        for demand in self.asked.demands:
            calendar = demand.limit.calendar
            if calendar is None:
                demands.append(demand)
            else:
                period = calendar.period_at(now_ns)
                key = (*demand.key[:2], period.start_ns)
                demands.append(Demand(demand.limit, key, demand.cost, period.end_ns - now_ns))
        return msgspec.structs.replace(self.asked, demands=tuple(demands), ts_ns=now_ns)

    def _refusal(self, answer: Answer, values: tuple[int, ...], now_ns: int) -> Decision:
        layout = self.way.layout
        demands = list(self.request.demands)
        waits: list[int | None] = [0] * len(demands)
        for at, wait in zip(layout.order, answer.waits, strict=True):
            waits[at] = None if wait < 0 else wait * MICROSECOND_NS
        for at, rest in zip(layout.order[len(layout.counts) :], answer.rests, strict=True):
            demands[at] = msgspec.structs.replace(demands[at], resets_in_ns=rest * MICROSECOND_NS)
        seen = msgspec.structs.replace(self.request, demands=tuple(demands))
        longest = None if None in waits else max(wait for wait in waits if wait is not None)
        verdict: Literal["never_admissible", "rejected"] = "never_admissible" if longest is None else "rejected"
        return Decision(seen, verdict, values, now_ns, tuple(waits), longest)


def finding(name: str, tag: str, keys: Keys, *, now_us: int) -> Script:
    """Return the call that reads a reservation."""
    return _close((keys.reservation(name, tag),), (now_us, "find", name, False, 0, 0), ((), (), (), ()))


def _close(keys: Sequence[bytes], about: Iterable[object], kinds: Sequence[Sequence[tuple[int, ...]]]) -> Script:
    """Return a call of the script that ends reservations; ``kinds`` are its numbers for each kind of limit."""
    return Script("close", keys[0], len(keys), b"".join(map(bulk, keys)), bulk(stream((*about, *_flat(kinds)))))


def _flat(kinds: Sequence[Sequence[tuple[int, ...]]]) -> list[int]:
    """Return the numbers of limits of four kinds as the scripts read them: how many there are, then each one's."""
    return [*map(len, kinds), *itertools.chain(*itertools.chain(*kinds))]


_LAYOUTS: Final[dict[tuple[int, ...], _Layout]] = {}


def _layout(demands: tuple[Demand, ...]) -> _Layout:
    """Return the layout of a request's limits. It keeps them alive, so that their identities stay theirs."""
    identities = tuple([id(demand.limit) for demand in demands])
    known = _LAYOUTS.get(identities)
    if known is None:
        if len(_LAYOUTS) >= LAYOUTS:
            _LAYOUTS.clear()
        known = _LAYOUTS[identities] = _Layout.of(tuple(demand.limit for demand in demands))
    return known


def _rank(limit: Limit) -> int:
    """Return where the scripts want a limit: buckets, quotas, rolling quotas, slots."""
    if limit.bucket is not None:
        return 0
    if limit.window is not None:
        return ROLLING
    return 3 if limit.lease_ns else 1


def _slice_us(limit: Limit) -> int:
    """Return the slice of a rolling quota in microseconds: never a shorter one, so no window holds more."""
    return -(-cast("Window", limit.window).slice_ns // MICROSECOND_NS)


def _summed(request: Request) -> Request:
    """Return the request with each key once, at the sum of its costs."""
    merged: dict[Any, Demand] = {}
    for demand in request.demands:
        known = merged.get(demand.key)
        cost = demand.cost if known is None else demand.cost + known.cost
        merged[demand.key] = Demand(demand.limit, demand.key, cost, demand.resets_in_ns)
    return msgspec.structs.replace(request, demands=tuple(merged.values()))


def _expanded(decision: Decision, asked: Request) -> Decision:
    """Return a decision about summed demands as one about each."""
    rank = {demand.key: at for at, demand in enumerate(decision.request.demands)}
    positions = [rank[demand.key] for demand in asked.demands]
    return msgspec.structs.replace(
        decision,
        request=asked,
        values=tuple(decision.values[at] for at in positions),
        waits=tuple(decision.waits[at] for at in positions) if decision.waits else (),
    )
