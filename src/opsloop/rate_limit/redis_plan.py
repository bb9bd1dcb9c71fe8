"""A request as the scripts see it: its limits by kind, their numbers, and where they lie."""

from __future__ import annotations

import itertools
import operator
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, cast

import msgspec

from opsloop.rate_limit.admit import HOLD_NS, LATE_SETTLE_NS
from opsloop.rate_limit.context import Amounts, Context, amount_of
from opsloop.rate_limit.decision import Decision, Demand, Request
from opsloop.rate_limit.gcra import Rate
from opsloop.rate_limit.limit import Level, Lever, Limit
from opsloop.rate_limit.redis_keys import EVERYTHING, Keys
from opsloop.rate_limit.redis_script import Answer, Closed, Script, bulks, read
from opsloop.rate_limit.rolling import Window
from opsloop.rate_limit.ticks import EXACT, Ticks, ticks

__all__ = ["Kept", "Plan", "Verb", "finding"]

Verb = Literal["settle", "renew", "release", "undo"]
MICROSECOND_NS: Final = 1000
HOLD_US: Final = HOLD_NS // MICROSECOND_NS
HEADER: Final = struct.Struct("<BdI")
LAYOUTS: Final = 1024
WAYS: Final = 16_384
SAME: Final = 16
_encode = msgspec.msgpack.Encoder().encode


class _Limit(msgspec.Struct, frozen=True, array_like=True):
    """A limit as a reservation remembers it, so that another process with another policy can settle it."""

    id: str
    lever: Lever
    amount: int
    unit: str
    per: str
    scope: tuple[str, ...]
    root: str
    lease_ns: int
    gain: int
    weight: int
    burst: int
    """0 where there is no bucket."""
    rolling: int = 0
    """How many periods a rolling quota spans; 0 where it does not roll."""
    slice_ns: int = 0

    @classmethod
    def of(cls, limit: Limit) -> _Limit:
        rate = limit.bucket or Rate(0, 0, 0)
        burst = limit.capacity if limit.bucket else 0
        return cls(
            id=limit.id,
            lever=limit.lever,
            amount=limit.amount,
            unit=limit.unit,
            per=limit.per,
            scope=limit.scope,
            root=limit.root,
            lease_ns=limit.lease_ns,
            gain=rate.gain,
            weight=rate.weight,
            burst=burst,
            rolling=limit.window.count if limit.window else 0,
            slice_ns=limit.window.slice_ns if limit.window else 0,
        )

    def limit(self) -> Limit:
        read = operator.attrgetter(*self.scope or ("tenant",))
        return Limit(
            id=self.id,
            lever=self.lever,
            amount=self.amount,
            unit=self.unit,
            per=self.per,
            scope=self.scope,
            when=(),
            root=self.root,
            read=cast("Callable[[Context], Any]", read),
            bucket=Rate(self.gain, self.weight, self.burst * self.weight) if self.burst else None,
            window=Window(self.rolling, self.slice_ns) if self.rolling else None,
            lease_ns=self.lease_ns,
            settles=True,
        )


class _Demand(msgspec.Struct, frozen=True, array_like=True):
    limit: _Limit
    key: list[Any]
    cost: int
    resets_in_ns: int


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """A request as a reservation remembers it."""

    context: Context
    estimate: dict[str, int]
    demands: tuple[_Demand, ...]
    ts_ns: int
    remember: bool
    reservation: str


class Kept(msgspec.Struct, frozen=True):
    """A reservation that was found in Redis."""

    request: Request
    answer: Answer

    @classmethod
    def read(cls, raw: bytes) -> Kept:
        """Read what the scripts keep: a header, the description as JSON, the answer as msgpack."""
        _, _, length = HEADER.unpack_from(raw)
        middle = HEADER.size + length
        told = msgspec.json.decode(raw[HEADER.size : middle], type=_Request)
        demands = tuple(_restored(demand) for demand in told.demands)
        request = Request(told.context, told.estimate, demands, told.ts_ns, told.reservation, told.remember)
        return cls(request, msgspec.msgpack.decode(raw[middle:], type=Answer))


class _Layout(msgspec.Struct, frozen=True, eq=False):
    """What is the same for all requests on the same limits, worked out once."""

    limits: tuple[Limit, ...]
    order: tuple[int, ...]
    """The demands' positions as the scripts want them: buckets, quotas, rolling quotas, slots."""
    buckets: tuple[Ticks, ...]
    scales: tuple[tuple[int, int, int], ...]
    """Of each bucket its position, what a nanosecond repays, and how many of its sub-units are one of the server's."""
    quotas: int
    """How many are counted by the calendar."""
    rolls: tuple[int, ...]
    """The slice of each rolling quota, in microseconds."""
    leases: tuple[int, ...]
    """The lease of each set of slots, in microseconds."""
    numbers: msgspec.Raw
    """What the script has to know about them, packed."""
    told: tuple[msgspec.Raw, ...]
    """Each limit as a reservation remembers it, in the order of the demands."""
    repeats: bool
    """Whether a key may come twice."""

    @classmethod
    def of(cls, limits: tuple[Limit, ...]) -> _Layout:
        order = tuple(sorted(range(len(limits)), key=lambda at: _rank(limits[at])))
        buckets = tuple(ticks(limits[at]) for at in order if limits[at].bucket is not None)
        amounts = tuple(limits[at].amount for at in order if _rank(limits[at]) == 1)
        rolls = [(limits[at].amount, _slice_us(limits[at])) for at in order if limits[at].window is not None]
        slots = [(limits[at].amount, limits[at].lease_ns // MICROSECOND_NS) for at in order if limits[at].lease_ns]
        rates = [number for each in buckets for number in (each.gain, each.weight, each.capacity, each.tick_us)]
        numbers = _encode((rates, amounts, [*itertools.chain(*rolls)], [*itertools.chain(*slots)]))
        return cls(
            limits,
            order,
            buckets,
            tuple((at, cast("Rate", limits[at].bucket).gain, t.scale) for at, t in zip(order, buckets, strict=False)),
            len(amounts),
            tuple(slice_us for _, slice_us in rolls),
            tuple(lease for _, lease in slots),
            msgspec.Raw(numbers),
            tuple(msgspec.Raw(msgspec.json.encode(_Limit.of(limit))) for limit in limits),
            len({limit.root for limit in limits}) < len(limits),
        )

    @property
    def dated(self) -> int:
        """How many of them are a bucket or a quota."""
        return len(self.buckets) + self.quotas

    @property
    def counted(self) -> int:
        """How many of them are no slots."""
        return len(self.buckets) + self.quotas + len(self.rolls)


class _Way(msgspec.Struct):
    """What is the same for all requests of one caller on the same limits: the keys, ready to be sent."""

    layout: _Layout
    keys: tuple[bytes, ...]
    """In the layout's order."""
    tag: str
    """Where its reservations lie."""
    packed: tuple[bytes, bytes]
    """The keys of counts and of slots, as they go over the wire."""
    scripts: dict[tuple[bool, tuple[int, ...]] | None, Script]
    """Calls that are the same for all requests of the same costs: of those that are neither dated nor reserved."""
    refreshed_ns: int = 0
    """When an admission of ours last prolonged the life of its slots' keys."""

    @classmethod
    def of(cls, demands: tuple[Demand, ...], keys: Keys) -> _Way:
        """Return the way of a request, from memory where it was gone before."""
        layout = _layout(demands)
        seen = (layout, tuple([demand.key for demand in demands]))
        way = keys.ways.get(seen)
        if way is None:
            where = tuple([keys.of(demands[at].limit, demands[at].key) for at in layout.order])
            tag = keys.beside(demands[0].limit, demands[0].key) if demands else EVERYTHING
            counted = layout.counted
            if len(keys.ways) >= WAYS:
                keys.ways.clear()
            packed = bulks(where[:counted]), bulks(where[counted:])
            way = keys.ways[seen] = cls(layout, where, tag, packed, {})
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
        way = _Way.of(demands, keys)
        if way.layout.repeats:
            request = _summed(request)
            way = _Way.of(request.demands, keys)
        elif not request.estimate and not request.reservation and not way.layout.quotas:
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
        demands = request.demands
        first, dated, counted = len(layout.buckets), layout.dated, layout.counted
        costs = tuple([demands[at].cost for at in layout.order[:counted]])
        name = request.reservation if write else ""
        same = (write, costs) if not (name or layout.quotas or now_us) else None
        if same in way.scripts:
            return way.scripts[same]
        if costs and max(costs) > EXACT:
            costs = tuple([min(cost, EXACT) for cost in costs])
        periods: list[int] = []
        for at in layout.order[first:dated]:
            demand = demands[at]
            end_ns = request.ts_ns + demand.resets_in_ns
            periods += (demand.key[2] // MICROSECOND_NS, end_ns // MICROSECOND_NS)
        refresh = write and bool(layout.leases) and way.refreshes(request.ts_ns)
        numbers = _encode((now_us, write, layout.numbers, costs, periods, name, HOLD_US, refresh))
        undo = partial(self.undoing, keys=keys, now_us=now_us) if write else None
        counts, slots = way.packed
        if not name:
            script = Script("admit", way.keys, (numbers, b""), undo, counts + slots)
            if same is not None and len(way.scripts) < SAME:
                way.scripts[same] = script
            return script
        marker = keys.reservation(name, way.tag)
        where = (*way.keys[:counted], marker, *way.keys[counted:])
        return Script("admit", where, (numbers, self._described()), undo, counts + bulks((marker,)) + slots)

    def closing(
        self, verb: Verb, keys: Keys, *, now_us: int, actual: Amounts | None = None
    ) -> tuple[Script, tuple[Demand, ...]]:
        """Return the call that ends or prolongs the reservation, and the demands whose counts it changes, in order.

        With ``actual`` the counts are corrected from the estimate to it.
        """
        request, layout, own = self.request, self.way.layout, self.way.keys
        first, dated, counted = len(layout.buckets), layout.dated, layout.counted
        buckets: list[int] = []
        quotas: list[int] = []
        rolls: list[int] = []
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
                buckets += (rate.gain, rate.weight, max(-EXACT, min(units * rate.weight, EXACT)), rate.tick_us)
            elif rank < dated:
                quotas.append(units)
            else:
                rolls += (units, layout.rolls[rank - dated], self.slices[rank - dated])
            changed.append(demand)
            where.append(own[rank])
        late_us = LATE_SETTLE_NS // MICROSECOND_NS if counted else 0
        about = (request.reservation, request.remember, late_us, HOLD_US)
        numbers = (now_us, verb, buckets, quotas, rolls, layout.leases, *about)
        return Script("close", (*where, *own[counted:]), (_encode(numbers),)), tuple(changed)

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
        layout, levels = self.way.layout, answer.levels
        values = [0] * len(levels)
        for rank, at in enumerate(layout.order):
            values[at] = levels[rank]
        for at, gain, scale in layout.scales:
            values[at] = now_ns * gain + values[at] * scale
        if status == "A":
            decision = Decision(self.request, "allowed", tuple(values), now_ns)
        else:
            decision = self._refusal(answer, tuple(values), now_ns)
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
        for at, rest in zip(layout.order[layout.counted :], answer.rests, strict=True):
            demands[at] = msgspec.structs.replace(demands[at], resets_in_ns=rest * MICROSECOND_NS)
        seen = msgspec.structs.replace(self.request, demands=tuple(demands))
        longest = None if None in waits else max(wait for wait in waits if wait is not None)
        verdict: Literal["never_admissible", "rejected"] = "never_admissible" if longest is None else "rejected"
        return Decision(seen, verdict, values, now_ns, tuple(waits), longest)

    def _described(self) -> bytes:
        request = self.request
        demands = [
            (told, demand.key, demand.cost, demand.resets_in_ns)
            for demand, told in zip(request.demands, self.way.layout.told, strict=True)
        ]
        return msgspec.json.encode(
            (
                request.context,
                dict(request.estimate),
                demands,
                request.ts_ns,
                request.remember,
                request.reservation,
            )
        )


def finding(name: str, tag: str, keys: Keys, *, now_us: int) -> Script:
    """Return the call that reads a reservation."""
    return Script(
        "close", (keys.reservation(name, tag),), (_encode((now_us, "find", (), (), (), (), name, False, 0, 0)),)
    )


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
        return 2
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


def _restored(told: _Demand) -> Demand:
    root, values, *rest = told.key
    key = (root, tuple(values) if isinstance(values, list) else values, *rest)
    return Demand(told.limit.limit(), key, told.cost, told.resets_in_ns)
