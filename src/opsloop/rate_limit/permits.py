"""Permits: a hot limit is asked for a chunk at a time, and most requests are then admitted without asking anybody.

The chunk is charged up front, lives for half a second and dies with what is left of it. So the long-run rate stays
exact, and in any interval at most one chunk per worker more is admitted than the bucket would have. Near the limit,
where no whole chunk is left, each request is asked for by itself.

Limits that lie in another slot of a Cluster than the rest of a request are taken this way too: before the rest is asked
for, and put back here when it is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from opsloop.clock import Clock
from opsloop.errors import ConfigError
from opsloop.rate_limit.context import Amounts, amount_of
from opsloop.rate_limit.decision import Decision, Demand, Receipt, Request
from opsloop.rate_limit.limit import Key, Limit
from opsloop.rate_limit.redis_core import Core, Steps

__all__ = ["Permits"]

LIFE_NS: Final = 500_000_000
REMEMBERED: Final = 65_536


class _Stock:
    """The permits of one bucket that this process has charged and not yet used."""

    __slots__ = ("expires_ns", "fetching", "level", "units")

    def __init__(self) -> None:
        self.units = 0
        self.expires_ns = 0
        self.level = 0
        self.fetching = False


class Permits:
    """Takes the limits named in ``chunks`` by the chunk, and everything else through the core."""

    def __init__(self, core: Core, clock: Clock, chunks: Mapping[str, int]) -> None:
        """``chunks`` is limit id to units per chunk; about rate x 50 ms / workers is a good size."""
        self._core = core
        self._clock = clock
        self._chunks = dict(chunks)
        self._stocks: dict[Key, _Stock] = {}
        self._open: dict[str, tuple[Demand, ...]] = {}
        self._lock = threading.Lock()

    def check(self, limits: Iterable[Limit]) -> tuple[Limit, ...]:
        """Return the limits that are not taken by the chunk; raise :class:`ConfigError` for one that cannot be."""
        known = {limit.id: limit for limit in limits}
        for name, chunk in self._chunks.items():
            limit = known.get(name)
            if limit is None:
                continue
            if limit.bucket is None:
                raise ConfigError(f"permits for {name!r}: a {limit.lever} cannot be leased", fix="lease rates only")
            if not 1 <= chunk <= limit.capacity:
                raise ConfigError(
                    f"permits for {name!r}: a chunk of {chunk} does not fit its burst of {limit.capacity}",
                    fix="use about rate x 50 ms / workers",
                )
        return tuple(limit for name, limit in known.items() if name not in self._chunks)

    def over_admission(self, limit: str, *, workers: int) -> int:
        """Return how many units more than its bucket a limit may admit in any interval: 0 where it is not leased."""
        return self._chunks.get(limit, 0) * workers

    def admit(self, request: Request) -> Steps[Decision]:
        """Take permits first, then ask for the rest; on a refusal put the permits back."""
        leased = self._chunks and [demand for demand in request.demands if demand.limit.id in self._chunks]
        return self._leased(request, leased) if leased else self._core.admit(request)

    def settle(self, reservation: str, actual: Amounts) -> Steps[Receipt]:
        """Settle through the core; what was taken as permits is corrected in its bucket, if this process took it."""
        receipt = yield from self._core.settle(reservation, actual)
        taken = self._open.pop(reservation, ())
        if receipt.status != "settled" or receipt.request is None:
            return receipt
        for demand in taken:
            amount = amount_of(demand.limit.unit, actual)
            if amount is not None and amount != demand.cost:
                change = Demand(demand.limit, demand.key, amount - demand.cost)
                yield from self._core.change(msgspec.structs.replace(receipt.request, demands=(change,)))
        return receipt

    def _leased(self, request: Request, leased: list[Demand]) -> Steps[Decision]:
        rest = msgspec.structs.replace(
            request, demands=tuple(demand for demand in request.demands if demand.limit.id not in self._chunks)
        )
        refusals: dict[Key, Decision] = {}
        taken: list[Demand] = []
        kept = False
        try:
            for demand in leased:
                refused = yield from self._take(demand, request)
                if refused is None:
                    taken.append(demand)
                else:
                    refusals[demand.key] = refused
            decision = yield from self._core.peek(rest) if refusals else self._core.admit(rest)
            kept = decision.allowed and not refusals
        finally:  # whatever happened in between, a cancellation too
            if not kept:
                self._put_back(taken)
        if kept and decision.reservation:
            self._remember(decision.reservation, tuple(taken))
        return self._joined(request, decision, refusals)

    def _take(self, demand: Demand, request: Request) -> Steps[Decision | None]:
        """Take permits from the stock, or charge new ones; return the refusal, or ``None`` when they are taken."""
        with self._lock:
            stock = self._stocks.setdefault(demand.key, _Stock())
            now_ns = self._clock.monotonic_ns()
            if now_ns >= stock.expires_ns:
                stock.units = 0
            if stock.units >= demand.cost:
                stock.units -= demand.cost
                return None
            alone = stock.fetching  # one chunk at a time: whoever comes meanwhile asks for itself
            stock.fetching = True
        chunk = demand.cost if alone else max(demand.cost, self._chunks[demand.limit.id])
        try:
            decision = yield from self._charge(demand, chunk, request)
            if not decision.allowed and chunk > demand.cost:
                chunk = demand.cost
                decision = yield from self._charge(demand, chunk, request)
        finally:
            if not alone:
                stock.fetching = False
        if not decision.allowed:
            return decision
        with self._lock:
            stock.level = decision.values[0] or 0
            if chunk > demand.cost:
                stock.units += chunk - demand.cost
                stock.expires_ns = now_ns + LIFE_NS
        return None

    def _charge(self, demand: Demand, units: int, request: Request) -> Steps[Decision]:
        asked = Demand(demand.limit, demand.key, units)
        return self._core.admit(Request(request.context, {}, (asked,), request.ts_ns))

    def _put_back(self, taken: Iterable[Demand]) -> None:
        """Give permits back to the stock, where they die like the others if nobody takes them."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            for demand in taken:
                stock = self._stocks[demand.key]
                stock.units += demand.cost
                if now_ns >= stock.expires_ns:
                    stock.units, stock.expires_ns = demand.cost, now_ns + LIFE_NS

    def _joined(self, request: Request, rest: Decision, refusals: Mapping[Key, Decision]) -> Decision:
        """Return the decision about the whole request: what the core said, and what the permits did."""
        demands: list[Demand] = []
        values: list[int | None] = []
        waits: list[int | None] = []
        inner = iter(zip(rest.request.demands, rest.values, rest.waits or (0,) * len(rest.values), strict=True))
        for demand in request.demands:
            if demand.limit.id not in self._chunks:
                found, value, wait = next(inner)
            elif demand.key in refusals:
                refused = refusals[demand.key]
                found, value, wait = demand, refused.values[0], refused.waits[0]
            else:
                found, value, wait = demand, self._stocks[demand.key].level, 0
            demands.append(found)
            values.append(value)
            waits.append(wait)
        whole = msgspec.structs.replace(rest.request, demands=tuple(demands))
        if rest.allowed and not refusals:
            return Decision(whole, "allowed", tuple(values), rest.now_ns)
        longest = None if None in waits else max(wait for wait in waits if wait is not None)
        now_ns = max([rest.now_ns, *(refused.now_ns for refused in refusals.values())])
        return Decision(
            whole, "never_admissible" if longest is None else "rejected", tuple(values), now_ns, tuple(waits), longest
        )

    def _remember(self, reservation: str, taken: tuple[Demand, ...]) -> None:
        self._open[reservation] = taken
        if len(self._open) > REMEMBERED:
            self._open.pop(next(iter(self._open), ""), None)
