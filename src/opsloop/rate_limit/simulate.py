"""A new policy on recorded traffic: who would have been rejected, by which limit.

An *arrival* is one request as it was recorded: by its ``limit`` events where the limiter was in front of it, else by
its ``request`` event, with the tokens of its ``llm`` and ``embed`` events. Arrivals are replayed in order through the
limiter itself, at their own times. What was reserved and settled is reserved and settled again; a slot is held for as
long as the request took.

Limits of what it can know: callers would have reacted to a rejection (retried, slowed down) and do not here; a request
that was rejected when it was recorded has no duration and holds no slot, and no actual cost beside its estimate.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec

from opsloop.clock import ManualClock, SeededIds
from opsloop.event import Event
from opsloop.rate_limit.admit import HOLD_NS
from opsloop.rate_limit.context import UNITS, Amounts, Context
from opsloop.rate_limit.decision import Decision
from opsloop.rate_limit.limiter import Limiter
from opsloop.rate_limit.policy import Policy

__all__ = ["Arrival", "LimitOutcome", "Rejection", "Report", "TenantOutcome", "arrivals", "simulate"]

MOST_REJECTIONS: Final = 50
Outcome = tuple["Arrival", Decision, Decision | None]


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request, as a limiter would have seen it."""

    ts_ns: int
    context: Context
    estimate: Amounts
    was_allowed: bool
    ends_ns: int | None = None
    """When it was over; ``None`` when that was not recorded."""
    actual: Amounts = {}
    settled_ns: int | None = None


class LimitOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one limit would have done; a shadow limit's rejections are among no others."""

    limit: str
    decisions: int
    rejected: int
    used_ratio_max: float


class TenantOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant would have met."""

    tenant: str
    decisions: int
    rejected: int
    violated: dict[str, int]
    """Rejections by limit; one rejection counts for every limit that it violates."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """One request that would have been rejected."""

    ts_ns: int
    request_id: str
    tenant: str
    violated: tuple[str, ...]
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a replay."""

    decisions: int
    allowed: int
    rejected: int
    """Those that are never admissible included."""
    never_admissible: int
    newly_rejected: int
    """Allowed when recorded, rejected now."""
    newly_allowed: int
    unknown_duration: int
    """Arrivals whose end was not recorded: they held no slot."""
    limits: tuple[LimitOutcome, ...]
    tenants: tuple[TenantOutcome, ...]
    """Most rejected first."""
    rejections: tuple[Rejection, ...]
    """The first of them, at most 50."""


def arrivals(events: Iterable[Event]) -> list[Arrival]:
    """Return the requests that events tell of, in order of time."""
    requests: dict[str, Event] = {}
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    admits: list[Event] = []
    settles: dict[str, Event] = {}
    anonymous: list[Event] = []
    for event in events:
        if event.event == "request":
            if event.request_id:
                requests[event.request_id] = event
            else:
                anonymous.append(event)
        elif event.event in {"llm", "embed"} and event.request_id:
            calls[event.request_id].update(_tokens(event))
        elif event.event == "limit" and event.attributes.get("phase") == "settle":
            settles[str(event.attributes.get("reservation"))] = event
        elif event.event == "limit":
            admits.append(event)
    seen = {event.request_id for event in admits}
    found = [_from_limit(event, requests.get(event.request_id), settles) for event in admits]
    found += [
        _from_request(event, calls.get(event.request_id))
        for event in (*requests.values(), *anonymous)
        if not event.request_id or event.request_id not in seen
    ]
    return sorted(found, key=lambda arrival: arrival.ts_ns)


def simulate(policy: Policy, events: Iterable[Event]) -> Report:
    """Replay recorded ``request``, ``llm``, ``embed`` and ``limit`` events against a policy.

    >>> from opsloop.rate_limit import policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> policy = policy_from_settings([LimitSettings(id="rps", lever="rate", amount=1, per="second")])
    >>> report = simulate(policy, [Event(ts_ns=n, event="request", tenant="acme") for n in range(3)])
    >>> report.allowed, report.rejected, report.tenants[0].violated
    (1, 2, {'rps': 2})
    """
    traffic = arrivals(events)
    clock = ManualClock(traffic[0].ts_ns if traffic else 0)
    # Whoever ran so long was alive: in a replay a slot ends with its request and not with its lease.
    parts = (tuple(limit.leased(HOLD_NS) for limit in part) for part in (policy.limits, policy.shadow))
    limiter = Limiter(Policy(*parts), clock=clock, ids=SeededIds())
    ends: list[tuple[int, int, str, Amounts]] = []
    outcomes: list[Outcome] = []
    for number, arrival in enumerate(traffic):
        while ends and ends[0][0] <= arrival.ts_ns:
            _end(limiter, clock, heapq.heappop(ends))
        clock.advance(ns=arrival.ts_ns - clock.now_ns())
        decision, shadow = limiter.attempt(arrival.context, arrival.estimate)
        outcomes.append((arrival, decision, shadow))
        if decision.reservation:
            _plan(ends, arrival, number, decision.reservation)
    return _report(policy, outcomes)


def _plan(ends: list[tuple[int, int, str, Amounts]], arrival: Arrival, number: int, reservation: str) -> None:
    """Note when the request is settled and when it gives its slots back, the first of which may be both."""
    if arrival.settled_ns is not None:
        heapq.heappush(ends, (max(arrival.settled_ns, arrival.ts_ns), number, reservation, arrival.actual))
    else:
        ends_ns = arrival.ts_ns if arrival.ends_ns is None else arrival.ends_ns
        heapq.heappush(ends, (ends_ns, number, reservation, {}))


def _end(limiter: Limiter, clock: ManualClock, planned: tuple[int, int, str, Amounts]) -> None:
    ts_ns, _, reservation, actual = planned
    clock.advance(ns=max(0, ts_ns - clock.now_ns()))
    limiter.settle(reservation, actual)


def _report(policy: Policy, outcomes: list[Outcome]) -> Report:
    decided: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    fullest: dict[str, float] = defaultdict(float)
    tenants: Counter[str] = Counter()
    violated: dict[str, Counter[str]] = defaultdict(Counter)
    refusals: Counter[str] = Counter()
    for arrival, decision, shadow in outcomes:
        tenants[arrival.context.tenant] += 1
        for one in (decision,) if shadow is None else (decision, shadow):
            for name, state in one.limits.items():
                decided[name] += 1
                fullest[name] = max(fullest[name], state.used_ratio)
        if shadow is not None:
            rejected.update(violation.limit for violation in shadow.violated)
        if not decision.allowed:
            refusals[arrival.context.tenant] += 1
            names = [violation.limit for violation in decision.violated]
            rejected.update(names)
            violated[arrival.context.tenant].update(names)
    refused = [(arrival, decision) for arrival, decision, _ in outcomes if not decision.allowed]
    return Report(
        decisions=len(outcomes),
        allowed=len(outcomes) - len(refused),
        rejected=len(refused),
        never_admissible=sum(decision.status == "never_admissible" for _, decision in refused),
        newly_rejected=sum(arrival.was_allowed for arrival, _ in refused),
        newly_allowed=sum(decision.allowed and not arrival.was_allowed for arrival, decision, _ in outcomes),
        unknown_duration=sum(arrival.ends_ns is None for arrival, _, _ in outcomes),
        limits=tuple(
            LimitOutcome(
                limit=limit.id,
                decisions=decided[limit.id],
                rejected=rejected[limit.id],
                used_ratio_max=fullest[limit.id],
            )
            for limit in (*policy.limits, *policy.shadow)
        ),
        tenants=tuple(
            TenantOutcome(
                tenant=tenant, decisions=tenants[tenant], rejected=refusals[tenant], violated=dict(violated[tenant])
            )
            for tenant in sorted(tenants, key=lambda tenant: (-refusals[tenant], tenant))
        ),
        rejections=tuple(_rejection(arrival, decision) for arrival, decision in refused[:MOST_REJECTIONS]),
    )


def _rejection(arrival: Arrival, decision: Decision) -> Rejection:
    return Rejection(
        ts_ns=arrival.ts_ns,
        request_id=arrival.context.request_id,
        tenant=arrival.context.tenant,
        violated=tuple(violation.limit for violation in decision.violated),
        reason=decision.reason,
    )


def _from_request(event: Event, calls: Counter[str] | None) -> Arrival:
    return Arrival(
        ts_ns=event.ts_ns,
        context=_context(event),
        estimate=dict(calls) if calls else _tokens(event),
        was_allowed=event.error_type != "rate_limited",
        ends_ns=_end_ns(event),
    )


def _from_limit(event: Event, request: Event | None, settles: dict[str, Event]) -> Arrival:
    attributes = event.attributes
    settled = settles.get(str(attributes.get("reservation") or "")) if attributes.get("reservation") else None
    ends_ns = _end_ns(request) if request is not None and attributes.get("allowed") else None
    return Arrival(
        ts_ns=event.ts_ns,
        context=_context(event),
        estimate=_amounts(attributes.get("estimate")),
        was_allowed=bool(attributes.get("allowed")),
        ends_ns=settled.ts_ns if ends_ns is None and settled is not None else ends_ns,
        actual=_amounts(settled.attributes.get("actual")) if settled is not None else {},
        settled_ns=None if settled is None else settled.ts_ns,
    )


def _context(event: Event) -> Context:
    named = {name: str(event.attributes.get(name, "")) for name in ("organisation", "key")}
    return Context(tenant=event.tenant, model=event.model, route=event.route, request_id=event.request_id, **named)


def _end_ns(event: Event) -> int | None:
    return None if event.duration_us is None else event.ts_ns + event.duration_us * 1000


def _tokens(event: Event) -> dict[str, int]:
    known = {name: getattr(event, name) for name in ("input_tokens", "output_tokens", "cost_microusd")}
    return {name: amount for name, amount in known.items() if amount is not None}


def _amounts(value: object) -> dict[str, int]:
    """Return the amounts of an event's attribute; what is no amount is left out, since anyone can write events."""
    if not isinstance(value, dict):
        return {}
    return {unit: n for unit, n in value.items() if unit in UNITS and type(n) is int and n >= 0}
