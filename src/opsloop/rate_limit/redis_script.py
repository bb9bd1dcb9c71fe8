"""What goes to Redis and what comes back: one script call for each operation, as bytes."""

from __future__ import annotations

import hashlib
import operator
import struct
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from opsloop.errors import StoreError
from opsloop.rate_limit.admit import HOLD_NS, LATE_SETTLE_NS
from opsloop.rate_limit.context import Amounts, Context, amount_of
from opsloop.rate_limit.decision import Decision, Demand, Request
from opsloop.rate_limit.gcra import Rate
from opsloop.rate_limit.limit import Lever, Limit
from opsloop.rate_limit.redis_keys import Keys
from opsloop.rate_limit.ticks import EXACT, Ticks, ticks

__all__ = ["SOURCES", "Answer", "Closed", "Kept", "Plan", "Script", "at_time", "read", "sha", "value_of"]

T = TypeVar("T")
ScriptName = Literal["admit", "close"]
Verb = Literal["settle", "renew", "release", "find", "undo"]
SOURCES: Final[dict[ScriptName, str]] = {
    name: resources.files("opsloop.rate_limit").joinpath(f"{name}.lua").read_text("utf-8")
    for name in ("admit", "close")
}
MICROSECOND_NS: Final = 1000
HEADER: Final = struct.Struct("<BdI")
ORDER: Final[dict[Lever, int]] = {"rate": 0, "quota": 1, "concurrency": 2}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.decode


class Script(msgspec.Struct, frozen=True):
    """One call of a script, for a driver to make; the reply is what the script returned."""

    name: ScriptName
    keys: tuple[str, ...]
    arguments: tuple[bytes, ...]
    undo: Callable[[], Script] | None = None
    """What takes an admission back when nobody waits for its answer any more. Without one it has to run anyway."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What an admission answered: the server's time and, in the order of the keys, levels and waits."""

    now_us: int
    levels: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()
    rests: tuple[int, ...] = ()


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """What the end or the renewal of a reservation answered."""

    now_us: int
    levels: tuple[int, ...]
    """What is left in each count that it changed; -1 for a quota whose period is forgotten."""
    done: int
    """Slots given back or renewed."""


class _Limit(msgspec.Struct, frozen=True):
    """A limit as a reservation remembers it, so that another process with another policy can settle it."""

    id: str
    lever: Lever
    amount: int
    unit: str
    per: str
    scope: tuple[str, ...]
    root: str
    lease_ns: int
    bucket: Rate | None


class _Demand(msgspec.Struct, frozen=True):
    limit: _Limit
    key: list[Any]
    cost: int
    resets_in_ns: int


class _Request(msgspec.Struct, frozen=True):
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
        return cls(request, _decode(raw[middle:], type=Answer))


class Plan(msgspec.Struct, frozen=True):
    """A request as the scripts see it: its demands by kind, one for each key, and where they lie."""

    request: Request
    tag: str
    groups: tuple[tuple[int, ...], ...]
    """For each key the positions of the demands that it serves: more than one where a key was given twice."""
    demands: tuple[Demand, ...]
    """The demand of each key, buckets first, then quotas, then slots; the costs of a key given twice are summed."""
    keys: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, keys: Keys) -> Plan:
        """Sort a request's demands by kind and find their keys."""
        demands = request.demands
        by_key: dict[str, list[int]] = {}
        for position in sorted(range(len(demands)), key=lambda at: ORDER[demands[at].limit.lever]):
            demand = demands[position]
            by_key.setdefault(keys.of(demand.limit, demand.key), []).append(position)
        groups = tuple(map(tuple, by_key.values()))
        merged = tuple(_merged([demands[position] for position in group]) for group in groups)
        tag = keys.tag(demands[0].limit, demands[0].key) if demands else "{*}"
        return cls(request, tag, groups, merged, tuple(by_key))

    def admission(self, keys: Keys, *, now_us: int, write: bool) -> Script:
        """Return the call that decides about the request, and writes if it may."""
        request = self.request
        buckets: list[int] = []
        quotas: list[int] = []
        leases: list[int] = []
        for demand in self.demands:
            limit = demand.limit
            cost = min(demand.cost, EXACT)
            if limit.bucket is not None:
                rate = _ticks(limit)
                buckets += (rate.gain, min(cost * rate.weight, EXACT), rate.capacity, rate.tick_us)
            elif limit.lease_ns:
                leases += (limit.amount, limit.lease_ns // MICROSECOND_NS)
            else:
                start_ns = demand.key[2]
                end_ns = request.ts_ns + demand.resets_in_ns
                quotas += (start_ns // MICROSECOND_NS, end_ns // MICROSECOND_NS, limit.amount, cost)
        name = request.reservation if write else ""
        numbers = (now_us, write, buckets, quotas, leases, name, HOLD_NS // MICROSECOND_NS)
        counted = len(self.keys) - len(leases) // 2
        where = self.keys
        if not name:
            return Script("admit", where, (_encode(numbers),))
        where = (*where[:counted], keys.reservation(name, self.tag), *where[counted:])
        return Script("admit", where, (_encode(numbers), _described(request)))

    def closing(
        self, verb: Verb, keys: Keys, *, now_us: int, actual: Amounts | None = None
    ) -> tuple[Script, tuple[Demand, ...]]:
        """Return the call that ends or prolongs the reservation, and the demands whose counts it changes, in order.

        With ``actual`` the counts are corrected from the estimate to it.
        """
        buckets: list[int] = []
        quotas: list[int] = []
        leases: list[int] = []
        changed: list[Demand] = []
        where: list[str] = []
        late = 0
        for demand, key in zip(self.demands, self.keys, strict=True):
            limit = demand.limit
            if limit.lease_ns:
                leases.append(limit.lease_ns // MICROSECOND_NS)
                where.append(key)
                continue
            late = LATE_SETTLE_NS // MICROSECOND_NS
            amount = amount_of(limit.unit, actual)
            if amount is None or amount == demand.cost:
                continue
            units = max(-EXACT, min(amount - demand.cost, EXACT))
            if limit.bucket is not None:
                rate = _ticks(limit)
                buckets += (rate.gain, max(-EXACT, min(units * rate.weight, EXACT)), rate.tick_us)
            else:
                quotas.append(units)
            changed.append(demand)
            where.append(key)
        request = self.request
        numbers = (now_us, verb, buckets, quotas, leases, request.reservation, request.remember, late)
        marker = () if verb == "undo" else (keys.reservation(request.reservation, self.tag),)
        return Script("close", (*marker, *where), (_encode(numbers),)), tuple(changed)

    def changing(self, keys: Keys, *, now_us: int) -> Script:
        """Return the call that adds the costs to the buckets without asking."""
        nothing = msgspec.structs.replace(self, demands=tuple(_negated(demand) for demand in self.demands))
        return nothing.undoing(keys, now_us=now_us)

    @staticmethod
    def finding(name: str, tag: str, keys: Keys, *, now_us: int) -> Script:
        """Return the call that reads a reservation."""
        return Script("close", (keys.reservation(name, tag),), (_encode((now_us, "find", (), (), (), name, False, 0)),))

    def undoing(self, keys: Keys, *, now_us: int) -> Script:
        """Return the call that takes an admission back as if it had never been made."""
        nothing = {demand.limit.unit: 0 for demand in self.demands}
        verb: Verb = "settle" if self.request.reservation else "undo"
        return self.closing(verb, keys, now_us=now_us, actual=nothing)[0]

    def decision(self, status: str, answer: Answer) -> Decision:
        """Return the decision that an answer of the server stands for."""
        now_ns = answer.now_us * MICROSECOND_NS
        request = self.request
        values = [0] * len(request.demands)
        waits: list[int | None] = [0] * len(request.demands)
        for at, (group, demand) in enumerate(zip(self.groups, self.demands, strict=True)):
            value = value_of(demand.limit, answer.levels[at], now_ns)
            wait = answer.waits[at]
            for position in group:
                values[position] = value
                waits[position] = None if wait < 0 else wait * MICROSECOND_NS
        if status == "A":
            return Decision(request, "allowed", tuple(values), now_ns)
        rests = iter(answer.rests)
        demands = list(request.demands)
        for group, demand in zip(self.groups, self.demands, strict=True):
            if demand.limit.lease_ns:
                rest_ns = next(rests) * MICROSECOND_NS
                for position in group:
                    demands[position] = msgspec.structs.replace(demands[position], resets_in_ns=rest_ns)
        seen = msgspec.structs.replace(request, demands=tuple(demands))
        longest = None if None in waits else max(wait for wait in waits if wait is not None)
        verdict: Literal["never_admissible", "rejected"] = "never_admissible" if longest is None else "rejected"
        return Decision(seen, verdict, tuple(values), now_ns, tuple(waits), longest)


def sha(name: ScriptName) -> str:
    """Return the name under which the server knows a script."""
    return _SHAS[name]


def value_of(limit: Limit, level: int, now_ns: int) -> int:
    """Return the state that the store in memory would have where Redis has ``level``: for a bucket its TAT."""
    if limit.bucket is None:
        return level
    return now_ns * limit.bucket.gain + level * _ticks(limit).scale


def at_time(request: Request, now_us: int) -> Request:
    """Return the request as it is at the server's time: every quota in the period that it is there."""
    now_ns = now_us * MICROSECOND_NS
    demands = []
    for demand in request.demands:
        calendar = demand.limit.calendar
        if calendar is None:
            demands.append(demand)
        else:
            period = calendar.period_at(now_ns)
            key = (*demand.key[:2], period.start_ns)
            demands.append(Demand(demand.limit, key, demand.cost, period.end_ns - now_ns))
    return msgspec.structs.replace(request, demands=tuple(demands), ts_ns=now_ns)


def read(reply: bytes, form: type[T]) -> T:
    """Read what follows a reply's letter. Raises :class:`StoreError` for what no script of ours says."""
    try:
        return _decode(reply[1:], type=form)
    except msgspec.DecodeError as cause:
        raise StoreError("Redis answered what no script of ours says", fix="is the server really Redis?") from cause


_SHAS: Final[Mapping[ScriptName, str]] = {
    name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for name, source in SOURCES.items()
}
_TICKS: Final[dict[tuple[int, int, int], Ticks]] = {}


def _ticks(limit: Limit) -> Ticks:
    bucket = cast("Rate", limit.bucket)
    shape = (bucket.gain, bucket.weight, bucket.capacity)
    known = _TICKS.get(shape)
    if known is None:
        known = _TICKS[shape] = ticks(limit)
    return known


def _merged(demands: list[Demand]) -> Demand:
    first = demands[0]
    if len(demands) == 1:
        return first
    return msgspec.structs.replace(first, cost=sum(demand.cost for demand in demands))


def _negated(demand: Demand) -> Demand:
    return msgspec.structs.replace(demand, cost=-demand.cost)


def _described(request: Request) -> bytes:
    demands = tuple(
        _Demand(_Limit(*_SHAPE(demand.limit)), list(demand.key), demand.cost, demand.resets_in_ns)
        for demand in request.demands
    )
    estimate = dict(request.estimate)
    return msgspec.json.encode(
        _Request(request.context, estimate, demands, request.ts_ns, request.remember, request.reservation)
    )


_SHAPE: Final = operator.attrgetter(*_Limit.__struct_fields__)


def _restored(told: _Demand) -> Demand:
    limit = Limit(
        **{name: getattr(told.limit, name) for name in _Limit.__struct_fields__},
        when=(),
        read=cast("Callable[[Context], Any]", operator.attrgetter(*told.limit.scope or ("tenant",))),
        settles=True,
    )
    root, values, *rest = told.key
    return Demand(
        limit, (root, tuple(values) if isinstance(values, list) else values, *rest), told.cost, told.resets_in_ns
    )
