"""The pure core: admit, settle, renew and release as functions of (state, request, now).

``decide`` looks at every limit first and writes only if all of them agree, so a rejected request costs nobody
anything. No function here changes the state it is handed: each returns the changes to make, which a store applies in
the same transaction. The times are the store's own, and only have to never go back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS
from opsloop.rate_limit import concurrency, gcra, quota, rolling
from opsloop.rate_limit.context import Amounts, amount_of
from opsloop.rate_limit.decision import Decision, Demand, Receipt, Request
from opsloop.rate_limit.limit import Key, Level

__all__ = [
    "HOLD_NS",
    "Changes",
    "Held",
    "State",
    "decide",
    "refuse",
    "release",
    "renew",
    "settle",
    "settled",
]

HOLD_NS: Final = 3600 * NANOSECONDS
"""The longest that a request may take: its slot cannot be renewed, nor its estimate settled, beyond it."""
LATE_SETTLE_NS: Final = 60 * NANOSECONDS
"""How long an estimate can still be settled after its request was released."""
NO_LEASES: Final[dict[str, int]] = {}
NO_SLICES: Final[dict[int, int]] = {}


class Held(msgspec.Struct, frozen=True, gc=False):
    """A reservation: what was decided under an id, and until when that is remembered."""

    decision: Decision
    expires_ns: int
    settled: bool = False


class State(msgspec.Struct, frozen=True):
    """What a store holds. The functions of this file read it and never write it."""

    counts: Mapping[Key, int]
    """A bucket's state or a quota's count; absent is an untouched one."""
    leases: Mapping[Key, dict[str, int]]
    """Reservation id to expiry, in order of expiry."""
    held: Mapping[str, Held]
    slices: Mapping[Key, dict[int, int]] = {}
    """Rolling quotas: slice number to units."""


class Changes(msgspec.Struct, frozen=True, gc=False):
    """What a store has to write."""

    demands: tuple[Demand, ...] = ()
    values: tuple[int, ...] = ()
    """The counts to write, one for each of ``demands``."""
    leased: tuple[tuple[Key, str, int], ...] = ()
    """Slots taken or renewed: (key, reservation, expiry). The lease moves to the end of its limit's order."""
    dropped: tuple[tuple[Key, str], ...] = ()
    """Slots given back: (key, reservation)."""
    held: tuple[tuple[str, Held | None], ...] = ()
    """Reservations to remember, or to forget (``None``)."""
    sliced: tuple[tuple[Demand, int, int], ...] = ()
    """Slices of rolling quotas to write: (demand, slice number, units)."""


NOTHING: Final = Changes()


def decide(state: State, request: Request, now_ns: int) -> tuple[Changes, Decision]:
    """Admit a request on all of its limits or on none.

    A reservation that is remembered gets the answer that it got before. A rejection changes nothing, names every limit
    that said no, and waits for the slowest of them.
    """
    reservation = request.reservation
    if reservation:
        known = state.held.get(reservation)
        if known is not None and known.expires_ns > now_ns:
            return NOTHING, known.decision
    values: list[int] = []
    leased: list[tuple[Key, str, int]] = []
    sliced: list[tuple[Demand, int, int]] = []
    for demand in request.demands:
        value, wait = _take(state, demand, now_ns)
        if wait != 0:
            return NOTHING, refuse(state, request, now_ns)
        values.append(value)
        if demand.limit.lease_ns:
            leased.append((demand.key, reservation, now_ns + demand.limit.lease_ns))
        elif demand.limit.window is not None:
            number = rolling.slice_at(demand.limit.window, now_ns)
            units = state.slices.get(demand.key, NO_SLICES).get(number, 0)
            sliced.append((demand, number, units + demand.cost))
    after = tuple(values)
    decision = Decision(request, "allowed", after, now_ns)
    held = ((reservation, Held(decision, now_ns + HOLD_NS)),) if reservation else ()
    if not leased and not sliced:
        return Changes(request.demands, after, held=held), decision
    counted = [pair for pair in zip(request.demands, values, strict=True) if pair[0].limit.counted]
    demands, counts = tuple(demand for demand, _ in counted), tuple(value for _, value in counted)
    return Changes(demands, counts, tuple(leased), held=held, sliced=tuple(sliced)), decision


def settle(state: State, reservation: str, actual: Amounts, now_ns: int) -> tuple[Changes, Receipt]:
    """Replace a reservation's estimate by what it really cost, and give its slots back; once.

    More than the estimate is charged without asking and paid by waiting; less is given back. A unit that ``actual``
    does not mention keeps its estimate. A quota is corrected in the period in which the request was admitted.
    """
    known = _known(state, reservation, now_ns)
    if known is None or known.settled:
        return NOTHING, Receipt(reservation, "not_held", "settled before, expired, or never admitted")
    counts: list[tuple[Demand, int]] = []
    sliced: list[tuple[Demand, int, int]] = []
    levels: list[Level] = []
    request = known.decision.request
    for demand in request.demands:
        amount = None if demand.limit.lever == "concurrency" else amount_of(demand.limit.unit, actual)
        if amount is None or amount == demand.cost:
            continue
        units = amount - demand.cost
        if demand.limit.window is not None:
            slices = state.slices.get(demand.key, NO_SLICES)
            number = rolling.slice_at(demand.limit.window, known.decision.now_ns)
            if number in slices:  # a slice that is forgotten has left the window
                after = quota.correct(slices[number], units)
                sliced.append((demand, number, after))
                now_used = rolling.used(demand.limit.window, {**slices, number: after}, now_ns)
                levels.append(Level(demand.limit, now_used, now_ns, demand.resets_in_ns))
            continue
        value = state.counts.get(demand.key)
        if demand.limit.bucket is not None:
            counts.append((demand, gcra.correct(demand.limit.bucket, value or 0, units, now_ns)))
        elif value is not None:  # a period that is forgotten is over for good
            counts.append((demand, quota.correct(value, units)))
        else:
            continue
        levels.append(Level(demand.limit, counts[-1][1], now_ns, demand.resets_in_ns))
    after_held = Held(known.decision, known.expires_ns, settled=True) if request.remember else None
    changes = Changes(
        tuple(demand for demand, _ in counts),
        tuple(value for _, value in counts),
        dropped=_slots(request),
        held=((reservation, after_held),),
        sliced=tuple(sliced),
    )
    return changes, settled(request, actual, tuple(levels))


def settled(request: Request, actual: Amounts, levels: tuple[Level, ...]) -> Receipt:
    """Return the receipt of a settlement that corrected ``levels``."""
    if levels:
        reason = "corrected " + ", ".join([level.limit.id for level in levels])
    else:
        reason = "the estimate was right" if request.demands else "no limit applies"
    return Receipt(request.reservation, "settled", reason, request, dict(actual), levels)


def renew(state: State, reservation: str, now_ns: int) -> tuple[Changes, Receipt]:
    """Prolong a reservation's slots by one lease each: all of them or none.

    A lease that ran out is not revived, and none is prolonged beyond the longest time that a request may take.
    """
    known = _known(state, reservation, now_ns)
    if known is None:
        return NOTHING, Receipt(reservation, "not_held", "settled before, expired, or never admitted")
    leased = []
    for demand in known.decision.request.demands:
        if demand.limit.lever == "concurrency":
            if not concurrency.renewable(state.leases.get(demand.key, NO_LEASES), reservation, now_ns):
                return NOTHING, Receipt(reservation, "not_held", f"the lease on {demand.limit.id} ran out")
            if now_ns + demand.limit.lease_ns > known.expires_ns:
                return NOTHING, Receipt(reservation, "not_held", f"{demand.limit.id} was held for the longest time")
            leased.append((demand.key, reservation, now_ns + demand.limit.lease_ns))
    return Changes(leased=tuple(leased)), Receipt(reservation, "renewed", f"{len(leased)} slots renewed")


def release(state: State, reservation: str, now_ns: int) -> tuple[Changes, Receipt]:
    """Give a reservation's slots back and let its estimate stand; it can still be settled for a minute."""
    known = _known(state, reservation, now_ns)
    if known is None:
        return NOTHING, Receipt(reservation, "not_held", "settled before, expired, or never admitted")
    request = known.decision.request
    kept: Held | None = known
    if not known.settled and not request.remember:
        late = any(demand.limit.lever != "concurrency" for demand in request.demands)
        kept = Held(known.decision, min(known.expires_ns, now_ns + LATE_SETTLE_NS)) if late else None
    slots = tuple(
        (key, name)
        for key, name in _slots(request)
        if concurrency.renewable(state.leases.get(key, NO_LEASES), name, now_ns)
    )
    return Changes(dropped=slots, held=((reservation, kept),)), Receipt(
        reservation, "released", f"{len(slots)} slots given back", request
    )


def _known(state: State, reservation: str, now_ns: int) -> Held | None:
    known = state.held.get(reservation)
    return known if known is not None and known.expires_ns > now_ns else None


def _slots(request: Request) -> tuple[tuple[Key, str], ...]:
    return tuple((demand.key, request.reservation) for demand in request.demands if demand.limit.lever == "concurrency")


def _take(state: State, demand: Demand, now_ns: int) -> tuple[int, int | None]:
    """Take from one limit; return (value after, nanoseconds to wait)."""
    limit = demand.limit
    if limit.lease_ns:
        return concurrency.take(state.leases.get(demand.key, NO_LEASES), limit.amount, now_ns)
    if limit.window is not None:
        return rolling.take(limit.window, state.slices.get(demand.key, NO_SLICES), limit.amount, demand.cost, now_ns)
    return _count(demand, state.counts.get(demand.key, 0), now_ns)


def _count(demand: Demand, value: int, now_ns: int) -> tuple[int, int | None]:
    """Take from a rate or a quota that stands at ``value``."""
    bucket = demand.limit.bucket
    if bucket is not None:
        return gcra.take(bucket, value, demand.cost, now_ns)
    return quota.take(demand.limit.amount, value, demand.cost, demand.resets_in_ns)


def refuse(state: State, request: Request, now_ns: int) -> Decision:
    """Return the no of every limit that says it, with the levels as they are."""
    values: list[int] = []
    waits: list[int | None] = []
    demands: list[Demand] = []
    for demand in request.demands:
        seen = demand
        if demand.limit.lease_ns:
            leases = state.leases.get(demand.key, NO_LEASES)
            value = concurrency.held(leases, now_ns)
            wait = _take(state, demand, now_ns)[1]
            seen = msgspec.structs.replace(demand, resets_in_ns=max(0, concurrency.last_ns(leases) - now_ns))
        elif demand.limit.window is not None:
            value = rolling.used(demand.limit.window, state.slices.get(demand.key, NO_SLICES), now_ns)
            wait = _take(state, demand, now_ns)[1]
        else:
            value = state.counts.get(demand.key, 0)
            wait = _count(demand, value, now_ns)[1]
        values.append(value)
        waits.append(wait)
        demands.append(seen)
    longest = None if None in waits else max(wait for wait in waits if wait is not None)
    status: Literal["rejected", "never_admissible"] = "never_admissible" if longest is None else "rejected"
    seen_request = msgspec.structs.replace(request, demands=tuple(demands))
    return Decision(seen_request, status, tuple(values), now_ns, tuple(waits), longest)
